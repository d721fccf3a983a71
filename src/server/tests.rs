use nix::errno::Errno;

use super::*;

#[test]
fn a_port_that_cannot_be_opened_says_why_and_what_to_do() {
    let failure = |cause: Errno| {
        let address = SocketAddr::from(([10, 0, 0, 1], 443));
        let source = io::Error::from_raw_os_error(cause as i32);
        port_failure(ListenError::Bind { name: "admin", address, source })
    };
    let remedies = [
        (Errno::EADDRINUSE, "is another server running on this port?"),
        (Errno::EACCES, "take one above 1023, or grant CAP_NET_BIND_SERVICE"),
        (Errno::EADDRNOTAVAIL, "this machine has no such address"),
        (Errno::EINVAL, "--listen, --kv-listen and --admin-listen say where"),
    ];
    for (cause, remedy) in remedies {
        let failure = failure(cause);
        assert_eq!(failure.code, Code::Other, "{failure:?}");
        assert!(failure.message.contains("10.0.0.1:443 (admin)"), "{failure:?}");
        assert!(failure.hint.as_ref().is_some_and(|it| it.contains(remedy)), "{failure:?}");
    }
    let denied = failure(Errno::EACCES);
    assert!(denied.message.contains("Permission denied"), "{denied:?}");
}
