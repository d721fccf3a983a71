use std::io::{self, Write};

use super::{Lossy, filter};

#[test]
fn a_filter_is_levels_and_targets() {
    for right in ["info", "WARN", "off", "info,raft=debug", "raft=trace", "info, openraft=error"] {
        assert!(filter(right).is_ok(), "{right}");
    }
    for wrong in ["verbose", "", "info,raft", "raft=loud", "info,,warn"] {
        let failure = filter(wrong).expect_err(wrong);
        assert_eq!(failure.code, crate::failure::Code::Usage, "{wrong}");
        assert!(failure.hint.is_some(), "{wrong}");
    }
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
    }
    let mut lossy = Lossy(Broken);
    assert!(lossy.write_all(b"a line").is_ok());
    assert!(lossy.flush().is_ok());
}
