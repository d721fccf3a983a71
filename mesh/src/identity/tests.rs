use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use super::{record::IDENTITY_FILE, *};

const MESH: &str = "c9a1c7f2-8f0c-4e7c-9d0a-3f5d6c1e2b4a";

#[test]
fn a_first_start_makes_an_identity_that_later_starts_find() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made/by/open");
    let first = open(&path, &["data"], None).unwrap().identity();
    assert!(first.first_start && first.node_id != 0 && first.store_id != 0);
    let second = open(&path, &["data"], None).unwrap().identity();
    assert_ne!(second.start, first.start, "each start draws its own number");
    let start = second.start;
    assert_eq!(second, Identity { boot_epoch: 2, start, first_start: false, ..first });
}

#[test]
fn a_data_directory_belongs_to_its_user_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let path = dir.path().join("made");
    open(&path, &["data"], None).unwrap();
    assert_eq!(mode(&path), 0o700);
    for loose in [0o755, 0o770, 0o500] {
        fs::set_permissions(&path, Permissions::from_mode(loose)).unwrap();
        DataDir::claim(&path, &BTreeSet::from(["data".to_owned()]), None).unwrap();
        assert_eq!(mode(&path), loose, "a claim changes nothing");
        open(&path, &["data"], None).unwrap();
        assert_eq!(mode(&path), 0o700);
    }
}

#[test]
fn a_first_identity_and_a_changed_one_survive_a_power_cut() {
    let image = powercut::cut(|dir| {
        let mut opened = open(&dir.join("made/by/open"), &["data"], None).unwrap();
        opened.set_mesh(&MESH.parse().unwrap()).unwrap();
    });
    let again = open(&image.path().join("made/by/open"), &["data"], None).unwrap().identity();
    assert_eq!(again.boot_epoch, 2);
    assert_eq!(again.mesh_id, Some(MESH.parse().unwrap()));
}

#[test]
fn mesh_and_formation_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = MeshId::generate();
    let formation = FormationRecord {
        mesh_id: mesh.to_string(),
        members: vec![FormationMemberRecord {
            node_id: 1,
            store_id: 2,
            address: "127.0.0.1:7400".to_owned(),
        }],
    };
    open(dir.path(), &["disco"], None).unwrap().set_formation(formation.clone()).unwrap();
    let again = open(dir.path(), &["disco"], Some(&mesh)).unwrap();
    assert_eq!(again.identity().mesh_id, Some(mesh));
    assert_eq!(again.formation(), Some(&formation));
}

#[test]
fn what_a_fresh_volume_holds_is_ignored() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    assert!(open(dir.path(), &["data"], None).unwrap().identity().first_start);
}

#[test]
fn every_refusal_names_its_reason_and_changes_nothing() {
    let mesh = MeshId::generate();
    type Spoil = fn(&Path, &MeshId);
    let member: Spoil = |path, mesh| {
        open(path, &["data"], None).unwrap().set_mesh(mesh).unwrap();
    };
    let cases: [(&str, Spoil, &[&str], &str); 9] = [
        ("other services", member, &["disco"], "services data, not disco"),
        ("more services", member, &["data", "disco"], "services data, not data,disco"),
        ("other mesh", member, &["data"], "belongs to mesh"),
        (
            "overtaken",
            |path, _| open(path, &["data"], None).unwrap().set_overtaken().unwrap(),
            &["data"],
            "quorate reclaim",
        ),
        (
            "newer format",
            |path, mesh| {
                open(path, &["data"], None).unwrap().set_mesh(mesh).unwrap();
                spoil_identity(path, "quorate-identity 2", "quorate-identity 3");
            },
            &["data"],
            "has format 3",
        ),
        (
            "older format",
            |path, mesh| {
                open(path, &["data"], None).unwrap().set_mesh(mesh).unwrap();
                spoil_identity(path, "quorate-identity 2", "quorate-identity 1");
            },
            &["data"],
            "version before 0.1.0",
        ),
        (
            "changed content",
            |path, mesh| {
                open(path, &["data"], None).unwrap().set_mesh(mesh).unwrap();
                spoil_identity(path, "boot_epoch", "boot_epoxy");
            },
            &["data"],
            "checksum does not match",
        ),
        (
            "no header",
            |path, _| {
                fs::create_dir_all(path).unwrap();
                fs::write(path.join(IDENTITY_FILE), "{}").unwrap();
            },
            &["data"],
            "no header",
        ),
        (
            "no identity",
            |path, _| fs::create_dir_all(path.join("raft")).unwrap(),
            &["data"],
            "no identity file",
        ),
    ];
    for (name, spoil, services, reason) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("dir");
        spoil(&path, &mesh);
        let before = listing(&path);
        let error = open(&path, services, Some(&MeshId::generate())).unwrap_err();
        assert!(error.to_string().contains(reason), "{name}: {error}");
        assert_eq!(listing(&path), before, "{name}");
    }
}

#[test]
fn a_directory_knows_whether_it_stands_where_it_was_made() {
    let dir = tempfile::tempdir().unwrap();
    let (path, renamed) = (dir.path().join("made"), dir.path().join("renamed"));
    assert!(!open(&path, &["data"], None).unwrap().identity().moved);
    fs::rename(&path, &renamed).unwrap();
    assert!(!open(&renamed, &["data"], None).unwrap().identity().moved, "renaming moves nothing");

    let (whole, partial) = (dir.path().join("whole"), dir.path().join("partial"));
    for copy in [&whole, &partial] {
        fs::create_dir(copy).unwrap();
        fs::copy(renamed.join(IDENTITY_FILE), copy.join(IDENTITY_FILE)).unwrap();
    }
    fs::create_dir(whole.join(place::DIR)).unwrap();
    for copy in [&whole, &partial] {
        assert!(open(copy, &["data"], None).unwrap().identity().moved);
        assert!(open(copy, &["data"], None).unwrap().identity().moved, "a start settles nothing");
        open(copy, &["data"], None).unwrap().set_place().unwrap();
        assert!(!open(copy, &["data"], None).unwrap().identity().moved);
    }
    assert!(!open(&renamed, &["data"], None).unwrap().identity().moved);
}

#[test]
fn a_person_says_which_copy_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut overtaken = open(dir.path(), &["data"], None).unwrap();
    let before = overtaken.identity();
    overtaken.set_overtaken().unwrap();
    let refused = DataDir::reclaim(dir.path());
    assert!(matches!(refused, Err(DataDirError::Locked(_))), "its server still runs");
    drop(overtaken);
    fs::remove_dir(dir.path().join(place::DIR)).unwrap();
    assert_eq!(DataDir::reclaim(dir.path()).unwrap(), before.node_id);
    let after = open(dir.path(), &["data"], None).unwrap().identity();
    assert!(!after.moved && after.boot_epoch > before.boot_epoch + 100, "{after:?}");
    let empty = tempfile::tempdir().unwrap();
    assert!(DataDir::reclaim(empty.path()).is_err(), "there is nothing to keep");
    assert!(DataDir::reclaim(&empty.path().join("none")).is_err());
}

#[test]
fn a_directory_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let held = open(dir.path(), &["data"], None).unwrap();
    let refused = open(dir.path(), &["data"], None);
    assert!(matches!(refused, Err(DataDirError::Locked(_))));
    drop(held);
    assert!(open(dir.path(), &["data"], None).is_ok());
}

fn open(
    path: &Path,
    services: &[&str],
    expected_mesh: Option<&MeshId>,
) -> Result<DataDir, DataDirError> {
    let services = services.iter().map(|name| (*name).to_owned()).collect();
    DataDir::open(path, &services, expected_mesh)
}

fn spoil_identity(path: &Path, from: &str, to: &str) {
    let file = path.join(IDENTITY_FILE);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains(from));
    fs::write(&file, text.replacen(from, to, 1)).unwrap();
}

/// Every file with its content.
fn listing(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), fs::read(path).unwrap_or_default()))
        .collect();
    files.sort();
    files
}

/// Earlier builds wrote the same format without the field `terms_forgotten`.
#[test]
fn an_identity_of_a_version_before_is_no_damage() {
    let dir = tempfile::tempdir().unwrap();
    let before = open(dir.path(), &["data"], None).unwrap().identity();
    let file = dir.path().join(IDENTITY_FILE);
    let text = fs::read_to_string(&file).unwrap();
    let (header, body) = text.split_once('\n').unwrap();
    let mut record: serde_json::Value = serde_json::from_str(body).unwrap();
    assert!(record.as_object_mut().unwrap().remove("terms_forgotten").is_some());
    let body = record.to_string();
    let (kind, _) = header.rsplit_once(' ').unwrap();
    fs::write(&file, format!("{kind} {:08x}\n{body}\n", crc32c::crc32c(body.as_bytes()))).unwrap();
    assert_eq!(open(dir.path(), &["data"], None).unwrap().identity().node_id, before.node_id);
}
