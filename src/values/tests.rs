use super::*;

#[test]
fn an_address_is_an_ip_and_a_port() {
    assert_eq!(address("10.0.0.1:7400"), Ok(SocketAddr::from(([10, 0, 0, 1], 7400))));
    assert_eq!(address("[::1]:7400").map(|it| it.port()), Ok(7400));
}

#[test]
fn a_name_is_refused_as_a_name() {
    assert_eq!(address("disco-1:7400"), Err(ValueError::Name("disco-1:7400".into())));
    assert_eq!(address("localhost"), Err(ValueError::Name("localhost".into())));
}

#[test]
fn an_address_without_a_port_or_sense_is_refused_as_such() {
    assert_eq!(address("10.0.0.1"), Err(ValueError::NoPort("10.0.0.1".into())));
    assert_eq!(address("10.0.0.1:99999"), Err(ValueError::Address("10.0.0.1:99999".into())));
    assert_eq!(address("10.0.0.300:1"), Err(ValueError::Address("10.0.0.300:1".into())));
}

#[test]
fn a_list_of_addresses_drops_repeats_and_blanks() {
    let list = addresses("10.0.0.1:1, 10.0.0.2:2,,10.0.0.1:1").expect("valid list");
    assert_eq!(list.to_string(), "10.0.0.1:1,10.0.0.2:2");
    assert_eq!(addresses(""), Ok(Addresses::default()));
}

#[test]
fn durations_have_units() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("8"), Ok(Duration::from_secs(8)));
    assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
    for wrong in ["", "s", "1.5s", "-1s", "8 days", "99999999999999999999h"] {
        assert_eq!(duration(wrong), Err(ValueError::Duration(wrong.into())), "{wrong}");
    }
}

#[test]
fn names_are_what_the_registry_takes() {
    assert_eq!(service("orders-v2"), Ok("orders-v2".into()));
    assert_eq!(instance_id("web-1.example:80"), Ok("web-1.example:80".into()));
    assert_eq!(name("eu-west_1.A"), Ok("eu-west_1.A".into()));
    assert_eq!(name("a b"), Err(ValueError::Label("a b".into())));
    for wrong in ["", "-orders", "a/b", "a b", "\u{fc}", "Orders", "a_b"] {
        assert!(matches!(service(wrong), Err(ValueError::Unfit(_))), "{wrong}");
    }
    for wrong in ["", ":80", "a/b", "A"] {
        assert!(matches!(instance_id(wrong), Err(ValueError::Unfit(_))), "{wrong}");
    }
}

#[test]
fn a_time_that_the_registry_would_not_grant_is_refused() {
    assert_eq!(ttl("3s"), Ok(Duration::from_secs(3)));
    assert_eq!(ttl("5m"), Ok(Duration::from_secs(300)));
    for wrong in ["1ms", "2s", "6m"] {
        assert_eq!(ttl(wrong), Err(ValueError::Ttl), "{wrong}");
    }
}

#[test]
fn an_address_named_twice_is_refused_where_it_matters() {
    let twice = "10.0.0.1:7400, 10.0.0.2:7400,10.0.0.2:7400";
    assert_eq!(addresses(twice).unwrap().0.len(), 2);
    assert_eq!(distinct_addresses(twice), Err(ValueError::Twice(twice.to_owned())));
    assert_eq!(distinct_addresses("10.0.0.1:7400,,").unwrap().0.len(), 1);
}

#[test]
fn a_loss_is_a_namespace_and_an_index() {
    let given = losses("default@12, disco@0").unwrap().0;
    assert_eq!(given, [("default".to_owned(), 12), ("disco".to_owned(), 0)].into());
    assert_eq!(losses("").unwrap(), Losses::default());
    for wrong in ["default", "default@", "default@x", "@3", "a b@3"] {
        assert!(losses(wrong).is_err(), "{wrong}");
    }
}
