//! The cost of publishing a new service while more and more services exist.
//!
//! `cargo bench --workspace --bench new_services`
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures and tells"
)]

use std::time::Instant;

use discovery::{registry::Registry, snapshot::Snapshot, translation::Translator};
use proto::quorate::v1::{
    Health, Instance, RegisterInstance, RegistryCommand, registry_command::Command,
};

const SERVICES: u64 = 5_000;

fn main() {
    let (mut registry, mut translator) = (Registry::default(), Translator::default());
    let mut snapshot = Snapshot::empty();
    let (begun, mut since) = (Instant::now(), Instant::now());
    for index in 1..=SERVICES {
        let touched = registry.apply(register(index), index, 1).touched;
        snapshot = snapshot.with_changes(index, translator.translate(&registry, &touched));
        if index % 1_000 == 0 {
            let each = since.elapsed() / 1_000;
            println!("measured: services {}..{index}: {each:?} each", index - 1_000);
            since = Instant::now();
        }
    }
    println!("measured: {SERVICES} new services: {:?}", begun.elapsed());
}

fn register(number: u64) -> RegistryCommand {
    let instance = Instance {
        service: format!("service-{number}"),
        id: "one".to_owned(),
        address: format!("10.0.{}.{}:80", number / 250, number % 250),
        health: Health::Healthy.into(),
        ..Instance::default()
    };
    let command = RegisterInstance {
        instance: Some(instance),
        lease_id: number,
        ttl_ms: 10_000,
        ..RegisterInstance::default()
    };
    RegistryCommand { command: Some(Command::RegisterInstance(command)) }
}
