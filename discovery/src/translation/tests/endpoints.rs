use proto::quorate::v1::{Health, registry_command::Command};

use super::*;
use crate::registry::tests::{Mesh, instance};

#[test]
fn endpoints_are_grouped_by_locality_which_weighs_what_can_be_used() {
    let mut mesh = Mesh::default();
    let cases = [
        ("a", 5, Health::Healthy, "z1"),
        ("b", 7, Health::Unknown, "z1"),
        ("c", 9, Health::Unhealthy, "z1"),
        ("d", 0, Health::Draining, "z2"),
    ];
    for (at, (id, weight, health, zone)) in cases.into_iter().enumerate() {
        let command = placed(id, &format!("10.0.0.{}:80", at + 1), weight, health, zone);
        mesh.run(Command::RegisterInstance(command)).unwrap();
    }
    assert_eq!(
        Told::of(&mesh).endpoints("orders"),
        ["0 z1 12: 10.0.0.1:80 Healthy 5, 10.0.0.2:80 Unknown 7", "0 z2 1: 10.0.0.4:80 Draining 1",]
    );
}

/// D14: silence alone leaves no service without endpoints.
#[test]
fn silent_instances_come_after_the_others_and_are_all_there_is_if_need_be() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    mesh.register("orders", "b", "10.0.0.2:80", 2).unwrap();
    mesh.mark(1, true);
    let both = ["0  1: 10.0.0.1:80 Degraded 1, 10.0.0.2:80 Healthy 1"];
    assert_eq!(Told::of(&mesh).endpoints("orders"), both);
    mesh.mark(2, true);
    let unknown = ["0  2: 10.0.0.1:80 Unknown 1, 10.0.0.2:80 Unknown 1"];
    assert_eq!(Told::of(&mesh).endpoints("orders"), unknown);
    mesh.mark(1, false);
    mesh.mark(2, false);
    let healthy = ["0  2: 10.0.0.1:80 Healthy 1, 10.0.0.2:80 Healthy 1"];
    assert_eq!(Told::of(&mesh).endpoints("orders"), healthy);
}

/// gRPC clients ignore degraded endpoints.
#[test]
fn half_of_an_http2_service_is_never_degraded() {
    let mut mesh = Mesh::default();
    for lease_id in 1..=3 {
        let id = format!("i{lease_id}");
        let mut command = instance("orders", &id, &format!("10.0.0.{lease_id}:80"), lease_id);
        command.instance.as_mut().unwrap().protocol = "http2".into();
        mesh.run(Command::RegisterInstance(command)).unwrap();
    }
    mesh.mark(1, true);
    assert!(Told::of(&mesh).endpoints("orders")[0].contains("10.0.0.1:80 Degraded"));
    mesh.mark(2, true);
    let told = ["0  3: 10.0.0.1:80 Unknown 1, 10.0.0.2:80 Unknown 1, 10.0.0.3:80 Healthy 1"];
    assert_eq!(Told::of(&mesh).endpoints("orders"), told);
}

#[test]
fn unhealthy_instances_are_listed_only_if_the_service_wants_them_tried() {
    let mut mesh = Mesh::default();
    let sick = placed("a", "10.0.0.1:80", 1, Health::Unhealthy, "z");
    mesh.run(Command::RegisterInstance(sick)).unwrap();
    assert_eq!(Told::of(&mesh).endpoints("orders"), Vec::<String>::new());
    mesh.run(configure(None, true)).unwrap();
    assert_eq!(Told::of(&mesh).endpoints("orders"), ["0 z 1: 10.0.0.1:80 Unhealthy 1"]);
}

#[test]
fn instances_that_are_down_are_left_out() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    mesh.register("orders", "b", "10.0.0.2:80", 2).unwrap();
    mesh.expire(1).unwrap();
    assert_eq!(Told::of(&mesh).endpoints("orders"), ["0  1: 10.0.0.2:80 Healthy 1"]);
    mesh.deregister("orders", "b").unwrap();
    assert_eq!(Told::of(&mesh).endpoints("orders"), Vec::<String>::new());
}

#[test]
fn of_two_instances_at_one_address_the_later_counts() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "b", "10.0.0.1:80", 1).unwrap();
    let later = placed("a", "10.0.0.1:80", 3, Health::Healthy, "z");
    mesh.run(Command::RegisterInstance(later)).unwrap();
    assert_eq!(Told::of(&mesh).endpoints("orders"), ["0 z 3: 10.0.0.1:80 Healthy 3"]);
}

#[test]
fn instance_changes_only_the_endpoints_of_its_service() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    mesh.register("orders", "b", "10.0.0.2:80", 2).unwrap();
    let changes = translated(&mesh);
    let told: Vec<_> = changes.iter().map(describe).collect();
    assert_eq!(told, ["put eds orders"]);
}
