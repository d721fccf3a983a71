use std::collections::BTreeMap;

use discovery::{lease::PATIENCE, resource::ResourceType};
use proto::quorate::v1::{
    DeleteResources, DeregisterInstance, Health, Instance, RegisterInstance,
    registry_command::Command,
};
use raft::MemoryRows;

use super::*;
use crate::publish::Board;

const TTL_MS: u64 = 10_000;

/// A message in field 1000, as a later version may have: protobuf skips what it does not know.
const UNKNOWN_KIND: &[u8] = b"\xc2\x3e\x00";

fn machine() -> (RegistryMachine, Board) {
    let (publisher, board) = Publisher::new();
    (RegistryMachine::new(publisher, Leases::new(PATIENCE)), board)
}

/// Registers an instance whose port ends as its id does.
fn register(service: &str, id: &str) -> Vec<u8> {
    let number = id.trim_start_matches(|it: char| !it.is_ascii_digit());
    let instance = Instance {
        service: service.to_owned(),
        id: id.to_owned(),
        address: format!("10.0.0.1:80{number}"),
        health: Health::Healthy.into(),
        ..Instance::default()
    };
    let command = RegisterInstance {
        instance: Some(instance),
        lease_id: 1,
        ttl_ms: TTL_MS,
        ..RegisterInstance::default()
    };
    RegistryCommand { command: Some(Command::RegisterInstance(command)) }.encode_to_vec()
}

fn deregister(service: &str, id: &str) -> Vec<u8> {
    let (service, id) = (service.to_owned(), id.to_owned());
    let command = DeregisterInstance { service, id, lease_id: 0 };
    RegistryCommand { command: Some(Command::DeregisterInstance(command)) }.encode_to_vec()
}

fn entry(index: u64) -> EntryMeta {
    EntryMeta { index, term: 1 }
}

fn clusters(board: &Board) -> Vec<String> {
    board.snapshot().resources(ResourceType::Cluster).map(|it| it.name().to_string()).collect()
}

#[test]
fn readers_see_a_batch_once_it_is_published() {
    let (mut machine, board) = machine();
    let mut rows = MemoryRows::new();
    machine.load(&rows).unwrap();
    machine.apply(entry(1), &register("orders", "o1"), &mut rows).unwrap();
    machine.apply(entry(2), &register("web", "w1"), &mut rows).unwrap();
    assert_eq!(board.read(|it| it.services().count()), 0);
    assert_eq!((board.revision(), clusters(&board).len()), (0, 0));

    machine.publish(2);
    assert_eq!(board.read(|it| it.services().count()), 2);
    assert_eq!(board.revision(), 2);
    assert_eq!(clusters(&board), ["orders", "web"]);
}

#[test]
fn what_readers_see_is_what_the_machine_holds() {
    let (mut machine, board) = machine();
    let mut rows = MemoryRows::new();
    machine.load(&rows).unwrap();
    for index in 1..=20 {
        let command = register("orders", &format!("o{}", index % 7));
        machine.apply(entry(index), &command, &mut rows).unwrap();
        if index % 3 == 0 {
            machine.publish(index);
            board.read(|readable| assert_eq!(*readable, machine.registry));
        }
    }
}

#[test]
fn a_restart_and_a_raft_snapshot_bring_back_the_same() {
    let (mut before, board_before) = machine();
    let mut rows = MemoryRows::new();
    before.load(&rows).unwrap();
    before.apply(entry(1), &register("orders", "o1"), &mut rows).unwrap();
    before.apply(entry(2), &register("web", "w1"), &mut rows).unwrap();
    before.publish(2);

    let (mut after, board_after) = machine();
    after.load(&rows).unwrap();
    after.publish(2);
    assert_eq!(after.registry, before.registry);
    let versions = |board: &Board| -> BTreeMap<_, _> {
        let snapshot = board.snapshot();
        ResourceType::all().map(|kind| (kind, snapshot.type_version(kind))).into()
    };
    assert_eq!(versions(&board_after), versions(&board_before));

    after.load(&MemoryRows::new()).unwrap();
    after.publish(3);
    assert_eq!(clusters(&board_after), [""; 0]);
}

#[test]
fn a_command_that_changes_nothing_makes_no_snapshot() {
    let (mut machine, board) = machine();
    let mut rows = MemoryRows::new();
    machine.load(&rows).unwrap();
    machine.apply(entry(1), &register("orders", "o1"), &mut rows).unwrap();
    machine.publish(1);
    assert_eq!(board.snapshot().revision(), 1);
    machine.apply(entry(2), &deregister("orders", "no such instance"), &mut rows).unwrap();
    machine.publish(2);
    assert_eq!(board.snapshot().revision(), 1);
    assert_eq!(board.revision(), 2);
    // The same registration, word for word but for its lease.
    machine.apply(entry(3), &register("orders", "o1"), &mut rows).unwrap();
    machine.publish(3);
    assert_eq!(board.snapshot().revision(), 1, "a step without a change pushes another one out");
    assert_eq!(board.revision(), 3);
    machine.apply(entry(4), &register("orders", "o2"), &mut rows).unwrap();
    machine.publish(4);
    assert_eq!(board.snapshot().revision(), 4);
}

#[test]
fn unknown_commands_and_unreadable_rows_stop_the_replica() {
    let (mut machine, _board) = machine();
    let mut rows = MemoryRows::new();
    machine.load(&rows).unwrap();
    for unknown in [UNKNOWN_KIND, b"", b"\xff"] {
        assert_eq!((machine.commands().level_of)(unknown), None, "it is not proposed");
        let error = machine.apply(entry(1), unknown, &mut rows).unwrap_err();
        assert!(error.is_outdated() && error.context().contains("upgrade this server"), "{error}");
    }
    assert_eq!((machine.commands().level_of)(&register("orders", "o1")), Some(1));
    let command = Some(Command::DeleteResources(DeleteResources { file: "edge.yaml".to_owned() }));
    let deletion = RegistryCommand { command }.encode_to_vec();
    assert_eq!((machine.commands().level_of)(&deletion), Some(2), "older versions know no files");

    rows.put(b"what/".to_vec(), Vec::new());
    assert!(machine.load(&rows).is_err());
}
