use clap::Parser;

use super::*;
use crate::failure::Code;

#[derive(Parser)]
struct Serve {
    #[command(flatten)]
    args: ServeArgs,
}

#[test]
fn nothing_empty_or_unknown_services_are_refused_with_the_key_and_the_choices() {
    for args in [&[][..], &["--services", ""], &["--services", " , "], &["--services", "disc"]] {
        let failure = check(args).expect_err("no services");
        assert_eq!(failure.code, Code::Usage, "{args:?}");
        assert!(failure.message.contains("services"), "{failure}");
        let hint = failure.hint.expect("a hint");
        for part in ["--services", "QUORATE_SERVICES", "file", "disco", "data", "all"] {
            assert!(hint.contains(part), "{hint}");
        }
    }
}

#[test]
fn all_is_every_service() {
    let config = check(&["--services", "all"]).expect("valid");
    assert_eq!(config.services, BTreeSet::from([Service::Disco, Service::Data]));
    assert_eq!(check(&["--services", "data,disco"]), Ok(config));
}

#[test]
fn a_disco_server_told_of_nobody_forms_alone_and_of_others_waits() {
    assert_eq!(start_of(&["--services", "disco"]), Ok(Start::Alone));
    assert_eq!(start_of(&["--services", "all"]), Ok(Start::Alone));
    let others = ["--services", "disco", "--listen", "10.0.0.1:7400", "--peers", "10.0.0.2:7400"];
    assert_eq!(start_of(&others), Ok(Start::Formed));
    let itself = ["--services", "disco", "--peers", "127.0.0.1:7400"];
    assert_eq!(start_of(&itself), Ok(Start::Formed));
}

#[test]
fn a_data_server_needs_disco_or_peers() {
    let failure = check(&["--services", "data"]).expect_err("told of nobody");
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.contains("--disco or --peers"), "{failure}");
    let disco = ["--services", "data", "--disco", "127.0.0.1:7500"];
    assert_eq!(start_of(&disco), Ok(Start::Joined));
    let peers = ["--services", "data", "--peers", "127.0.0.1:7500"];
    assert_eq!(start_of(&peers), Ok(Start::Formed));
}

#[test]
fn a_server_does_not_greet_itself() {
    let args = ["--services", "disco", "--peers", "127.0.0.1:7400,127.0.0.1:7500"];
    let config = check(&args).expect("valid");
    assert_eq!(config.seeds, [SocketAddr::from(([127, 0, 0, 1], 7500))]);
}

#[test]
fn the_advertised_address_is_the_one_that_leads_to_the_seeds() {
    let args = [
        "--services=data",
        "--listen=0.0.0.0:7400",
        "--kv-listen=0.0.0.0:2379",
        "--disco=10.0.0.1:7400,10.0.0.2:7400",
    ];
    let config = check(&args).expect("valid");
    assert_eq!(config.advertise.to_string(), "10.0.0.9:7400");
    assert_eq!(config.kv.map(|kv| kv.advertise.to_string()).as_deref(), Some("10.0.0.9:2379"));
}

#[test]
fn several_ways_to_the_seeds_are_not_guessed_between() {
    let args =
        ["--services=data", "--listen=0.0.0.0:7400", "--disco=10.0.0.1:7400,192.168.0.1:7400"];
    let failure = check(&args).expect_err("ambiguous");
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.contains("10.0.0.9, 192.168.0.9"), "{failure}");
    assert!(failure.hint.is_some_and(|hint| hint.contains("--advertise")));
}

#[test]
fn every_address_without_a_seed_needs_one_to_advertise() {
    let failure = check(&["--services=all", "--listen=0.0.0.0:7400"]).expect_err("no address");
    assert!(failure.hint.is_some_and(|hint| hint.contains("--advertise")));
    let given = ["--services=all", "--listen=0.0.0.0:7400", "--advertise=10.0.0.9:7400"];
    assert!(check(&given).is_ok());
    let senseless = ["--services=all", "--advertise=0.0.0.0:7400"];
    assert_eq!(check(&senseless).map_err(|it| it.code), Err(Code::Usage));
}

#[test]
fn loopback_is_not_advertised_to_another_machine() {
    let failure = check(&["--services=disco", "--peers=10.0.0.1:7400"]).expect_err("not reachable");
    assert!(failure.message.contains("127.0.0.1:7400"), "{failure}");
    assert!(failure.hint.is_some_and(|hint| hint.contains("--listen")));
}

#[test]
fn two_uses_of_one_port_are_named() {
    let failure = check(&["--services=all", "--kv-listen=127.0.0.1:7400"]).expect_err("clash");
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.contains("--listen"), "{failure}");
    assert!(failure.message.contains("--kv-listen"), "{failure}");
    let everywhere = check(&["--services=disco", "--admin-listen=0.0.0.0:7400"]);
    assert_eq!(everywhere.map_err(|it| it.code), Err(Code::Usage));
    // Without the data service there is no KV port to clash with.
    assert!(check(&["--services=disco", "--kv-listen=127.0.0.1:7400"]).is_ok());
    let chosen = ["--services=all", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0"];
    assert!(check(&chosen).is_ok());
}

#[test]
fn a_mesh_id_must_be_one() {
    let failure = check(&["--services=all", "--mesh=mine"]).expect_err("no mesh id");
    assert_eq!(failure.code, Code::Usage);
    assert!(failure.message.contains("--mesh"), "{failure}");
}

fn start_of(args: &[&str]) -> Result<Start, Failure> {
    check(args).map(|config| config.start)
}

/// Checks flags on a machine whose address in every network ends in 9.
fn check(args: &[&str]) -> Result<Config, Failure> {
    let args = [&["serve"], args].concat();
    let serve = Serve::try_parse_from(args).expect("the flags parse by themselves");
    Config::check(&serve.args, |target| match target.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, _] = ip.octets();
            Ok(IpAddr::from([a, b, c, 9]))
        }
        IpAddr::V6(_) => Err(io::ErrorKind::NetworkUnreachable.into()),
    })
}
