use std::fs::{self, File, OpenOptions};

use super::*;

#[test]
fn only_what_was_synced_is_left() {
    let image = cut(|dir| {
        fs::write(dir.join("unsynced"), "bytes").unwrap();
        let mut file = File::create(dir.join("synced")).unwrap();
        file.write_all(b"first ").unwrap();
        file.sync_data().unwrap();
        file.write_all(b"second").unwrap();
        fs::create_dir(dir.join("below")).unwrap();
        File::create(dir.join("below/file")).unwrap().sync_all().unwrap();
        File::open(dir).unwrap().sync_all().unwrap();
        // Created after the directory was synced.
        File::create(dir.join("late")).unwrap().sync_all().unwrap();
    });
    let mut names: Vec<String> = fs::read_dir(image.path())
        .unwrap()
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["below", "synced", "unsynced"]);
    assert_eq!(fs::read_to_string(image.path().join("unsynced")).unwrap(), "");
    assert_eq!(fs::read_to_string(image.path().join("synced")).unwrap(), "first ");
    assert_eq!(fs::read_dir(image.path().join("below")).unwrap().count(), 0);
}

#[test]
fn a_rename_or_removal_lasts_once_the_directory_is_synced() {
    let image = cut(|dir| {
        for name in ["old", "kept", "gone"] {
            let mut file = File::create(dir.join(name)).unwrap();
            file.write_all(name.as_bytes()).unwrap();
            file.sync_all().unwrap();
        }
        fs::remove_file(dir.join("gone")).unwrap();
        fs::rename(dir.join("old"), dir.join("new")).unwrap();
        File::open(dir).unwrap().sync_all().unwrap();
        fs::rename(dir.join("kept"), dir.join("moved")).unwrap();
        // An inode number may be reused. The old bytes do not belong to the new file.
        let file = OpenOptions::new().create_new(true).write(true).open(dir.join("other"));
        file.unwrap().write_all(b"other").unwrap();
    });
    let read = |name: &str| fs::read_to_string(image.path().join(name)).ok();
    assert_eq!(read("new").as_deref(), Some("old"));
    assert_eq!(read("kept").as_deref(), Some("kept"));
    for name in ["old", "gone", "moved", "other"] {
        assert_eq!(read(name), None, "{name}");
    }
}
