use super::{Limits, raise_limit};

#[test]
fn a_server_keeps_files_for_itself_however_few_there_are() {
    for open_files in [0, 256, 1024, 4096, 65_536, 1 << 20, u64::MAX] {
        for has_kv in [false, true] {
            let limits = Limits::of(open_files, has_kv);
            let kv = if has_kv { limits.kv.most() } else { 0 };
            let callers = (limits.mesh.most() + kv + limits.admin.most()) as u64;
            assert!(limits.mesh.most() >= 16 && limits.admin.most() == 64);
            if open_files >= 1024 {
                assert!(callers <= open_files - 256, "{open_files}: {callers}");
                // Beyond the million nobody counts.
                assert!(callers >= open_files.min(1 << 20) / 2, "{open_files}: {callers}");
            }
        }
    }
}

#[test]
fn the_limit_is_raised_once_and_stays() {
    let raised = raise_limit().unwrap();
    assert!(raised >= 256);
    assert_eq!(raise_limit().unwrap(), raised);
}
