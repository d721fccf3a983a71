//! The cost of changing one resource among more and more of them.
//!
//! `cargo bench --workspace --bench snapshot`
#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark measures and tells"
)]

use std::time::Instant;

use discovery::{
    resource::{Resource, ResourceChange, ResourceType},
    snapshot::Snapshot,
};
use envoy_types::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;

const SIZES: [u64; 3] = [1_000, 10_000, 100_000];
const CHANGES: u64 = 1_000;

fn main() {
    for size in SIZES {
        let mut snapshot = Snapshot::empty().with_changes(1, (0..size).map(|name| put(name, 0)));
        let changes: Vec<_> = (0..CHANGES).map(|n| put(n * 7_919 % size, n + 1)).collect();
        let begun = Instant::now();
        for (revision, change) in (2..).zip(changes) {
            // Streams hold the snapshot before, so nothing is changed in place.
            let before = snapshot.clone();
            snapshot = snapshot.with_changes(revision, [change]);
            drop(before);
        }
        let each = begun.elapsed() / u32::try_from(CHANGES).unwrap_or(u32::MAX);
        println!("measured: one change among {size} resources: {each:?}");
    }
}

fn put(name: u64, content: u64) -> ResourceChange {
    let message = ClusterLoadAssignment {
        cluster_name: format!("service-{name}/{content}"),
        ..ClusterLoadAssignment::default()
    };
    let name = format!("service-{name}");
    ResourceChange::Put(Resource::new(ResourceType::Endpoints, name, &message))
}
