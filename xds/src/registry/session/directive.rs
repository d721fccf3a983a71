//! The directives that data nodes are sent.

use std::{collections::BTreeSet, time::Duration};

use proto::{
    millis,
    quorate::v1::{AddressHint, Directive},
};

use super::node::{RecordState, SessionNode};
use crate::shared::Shared;

/// The directive for a node by the present registry and book, without its meta.
pub(super) fn of(shared: &Shared, node: &SessionNode, ttl: Duration) -> Directive {
    let node_id = node.node_id();
    let mut directive = shared.board.read(|registry| {
        let mut groups = registry.groups_of_node(node_id);
        let hosts: BTreeSet<u64> =
            groups.iter().flat_map(|it| &it.replicas).map(|it| it.node_id).collect();
        let mut members = registry.list_members(&Default::default());
        members.retain(|it| hosts.contains(&it.node_id));
        for group in &mut groups {
            // Progress changes all the time, and nodes ask for it when they need it.
            group.progress = None;
        }
        let record_state = node.record_state(registry);
        Directive {
            meta: None,
            ttl_ms: millis(ttl),
            addresses: registry.addresses_for_node(node_id),
            members,
            groups,
            stopping_noted: matches!(record_state, RecordState::Recorded { stopping: true, .. }),
        }
    });
    for hint in &mut directive.addresses {
        use_later_address(shared, hint);
    }
    directive
}

/// Replaces the registry's address by a later one from the book, which learns without a quorum.
fn use_later_address(shared: &Shared, hint: &mut AddressHint) {
    if let Some(known) = shared.host.mesh().book().hint(hint.node_id)
        && known.boot_epoch >= hint.boot_epoch
    {
        hint.boot_epoch = known.boot_epoch;
        hint.start = known.start;
        hint.moves = known.moves;
        hint.address = known.address.to_string();
    }
}
