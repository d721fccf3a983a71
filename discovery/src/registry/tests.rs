mod groups;
mod instances;
mod leases;
mod members;
mod property;
mod query;
mod resources;
mod services;

use proto::quorate::v1::{
    AddressHint, AssignReplica, DecideGroup, DeregisterInstance, ExpireLease, Health, LeaseMark,
    MarkLeases, Member as WireMember, NodeRecord, RecordNode, RecordServer, RegisterInstance,
    RegistryDone, ReportLeader, SetInstanceHealth, registry_refusal::Reason,
};

use super::*;

#[test]
fn empty_command_is_refused() {
    let outcome = Registry::default().apply(RegistryCommand::default(), 1, 1);
    let Some(registry_reply::Outcome::Refused(refusal)) = outcome.reply.outcome else { panic!() };
    assert_eq!(refusal.reason(), Reason::Malformed);
}

#[test]
fn rows_of_no_registry_are_refused() {
    let key = RecordKey::Node(5).encode();
    let restore = |key: &[u8], value: &[u8]| Registry::restore([(key, value)]).unwrap_err();
    assert!(matches!(restore(b"x", b""), RestoreError::Key { .. }));
    assert!(matches!(restore(b"node/123", b""), RestoreError::Key { .. }));
    assert!(matches!(restore(&key, b"\xff"), RestoreError::Decode { .. }));
    assert!(matches!(restore(&key, b""), RestoreError::Invalid { .. }));
    let mut mesh = Mesh::default();
    mesh.nodes(1);
    let other = mesh.registry.record(&RecordKey::Node(1)).unwrap();
    assert!(matches!(restore(&key, &other), RestoreError::Invalid { .. }));
}

/// A health report for an instance of `orders`, by the holder of a lease.
fn health(lease_id: u64, id: &str, health: Health) -> Command {
    Command::SetInstanceHealth(SetInstanceHealth {
        service: "orders".to_owned(),
        id: id.to_owned(),
        lease_id,
        health: health.into(),
        ..SetInstanceHealth::default()
    })
}

/// The term in which every command here is committed.
pub(crate) const TERM: u64 = 4;

/// A registry, and the index of the next command.
#[derive(Default)]
pub(crate) struct Mesh {
    pub(crate) registry: Registry,
    pub(crate) index: u64,
    pub(crate) touched: BTreeSet<RecordKey>,
    pub(crate) outcome: Outcome,
    message: String,
}

impl Mesh {
    pub(crate) fn run(&mut self, command: Command) -> Result<RegistryDone, Reason> {
        self.index += 1;
        let command = RegistryCommand { command: Some(command) };
        self.outcome = self.registry.apply(command, self.index, TERM);
        self.touched = self.outcome.touched.clone();
        match self.outcome.reply.outcome.clone().unwrap() {
            registry_reply::Outcome::Done(done) => Ok(done),
            registry_reply::Outcome::Refused(refusal) => {
                let reason = refusal.reason();
                self.message = refusal.message;
                Err(reason)
            }
        }
    }

    pub(crate) fn register(
        &mut self,
        service: &str,
        id: &str,
        address: &str,
        lease_id: u64,
    ) -> Result<RegistryDone, Reason> {
        self.run(Command::RegisterInstance(instance(service, id, address, lease_id)))
    }

    /// Removes an instance, whichever lease holds it.
    pub(crate) fn deregister(&mut self, service: &str, id: &str) -> Result<RegistryDone, Reason> {
        self.deregister_held(service, id, 0)
    }

    pub(crate) fn deregister_held(
        &mut self,
        service: &str,
        id: &str,
        lease_id: u64,
    ) -> Result<RegistryDone, Reason> {
        let (service, id) = (service.to_owned(), id.to_owned());
        self.run(Command::DeregisterInstance(DeregisterInstance { service, id, lease_id }))
    }

    pub(crate) fn expire(&mut self, lease_id: u64) -> Result<RegistryDone, Reason> {
        let granted_index = self.registry.grant(lease_id).map_or(0, |it| it.granted_index);
        self.run(Command::ExpireLease(ExpireLease { lease_id, granted_index, term: TERM }))
    }

    /// Marks a lease as silent, or removes the mark.
    pub(crate) fn mark(&mut self, lease_id: u64, silent: bool) {
        let granted_index = self.registry.grant(lease_id).map_or(0, |it| it.granted_index);
        let marks = vec![LeaseMark { lease_id, granted_index, silent }];
        self.run(Command::MarkLeases(MarkLeases { marks, term: TERM })).unwrap();
    }

    /// Registers the nodes 1 to `count`, each with a lease of the same number.
    pub(crate) fn nodes(&mut self, count: u64) {
        for node_id in 1..=count {
            self.run(Command::RecordNode(node(node_id, 1, node_id))).unwrap();
        }
    }

    pub(crate) fn decide(
        &mut self,
        namespace: &str,
        voters: &[u64],
    ) -> Result<RegistryDone, Reason> {
        self.run(Command::DecideGroup(DecideGroup {
            namespace: namespace.to_owned(),
            first_voters: voters.iter().map(|node_id| member(*node_id)).collect(),
            voters_wanted: 3,
        }))
    }

    pub(crate) fn assign(&mut self, group: u32, node_id: u64) -> Result<RegistryDone, Reason> {
        let replica = Some(member(node_id));
        self.run(Command::AssignReplica(AssignReplica { group, replica }))
    }

    pub(crate) fn lead(&mut self, group: u32, leader_id: u64, term: u64) {
        let serving = Vec::new();
        let members = Vec::new();
        let report = ReportLeader { group, leader_id, term, serving, members, progress: None };
        self.run(Command::ReportLeader(report)).unwrap();
    }
}

pub(crate) fn instance(service: &str, id: &str, address: &str, lease_id: u64) -> RegisterInstance {
    let instance = proto::quorate::v1::Instance {
        service: service.to_owned(),
        id: id.to_owned(),
        address: address.to_owned(),
        ..Default::default()
    };
    RegisterInstance { instance: Some(instance), lease_id, ..RegisterInstance::default() }
}

/// A node whose address is made from its id.
pub(crate) fn node(node_id: u64, boot_epoch: u64, lease_id: u64) -> RecordNode {
    let node = NodeRecord {
        node_id,
        store_id: node_id + 100,
        boot_epoch,
        mesh_address: format!("10.0.1.{node_id}:7400"),
        kv_address: format!("10.0.1.{node_id}:2379"),
        name: format!("n{node_id}"),
        lease_id,
        ..NodeRecord::default()
    };
    RecordNode { node: Some(node) }
}

fn server(node_id: u64, boot_epoch: u64, address: &str) -> RecordServer {
    let services = vec!["disco".to_owned()];
    let address = address.to_owned();
    let hint = AddressHint { node_id, boot_epoch, address, services, ..AddressHint::default() };
    RecordServer { hint: Some(hint), ..RecordServer::default() }
}

fn member(node_id: u64) -> WireMember {
    WireMember { node_id, store_id: node_id + 100 }
}

fn instance_key(service: &str, id: &str) -> RecordKey {
    RecordKey::Instance { service: service.to_owned(), id: id.to_owned() }
}

fn changed() -> RegistryDone {
    RegistryDone { changed: true, ..RegistryDone::default() }
}

fn granted(lease_id: u64) -> RegistryDone {
    RegistryDone { lease_id, ..changed() }
}
