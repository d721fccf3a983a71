//! What DISCO has told a node, and whether the node still hears it.

use std::sync::Arc;

use mesh::{DISCO_GROUP, GroupId};
use proto::quorate::v1::GroupProgress;

use super::orders::Orders;

/// What DISCO has told, and whether the node still hears it.
#[derive(Clone, Debug, Default)]
pub(crate) struct DiscoState {
    /// The latest orders since this process started; kept when the session is lost.
    pub(crate) orders: Option<Arc<Orders>>,
    pub(crate) link: Link,
    /// The revision of the registry behind the orders.
    revision: u64,
    /// The last revision that a server has named: the DISCO group had committed it.
    seen: u64,
    /// DISCO has committed that this node stops.
    pub(crate) stopping_noted: bool,
}

/// Whether DISCO is heard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Link {
    Live,
    /// Not heard, and not every server has been tried since.
    #[default]
    Lost,
    /// No server that is known accepts this node.
    Unreached,
}

impl DiscoState {
    pub(crate) fn is_live(&self) -> bool {
        self.link == Link::Live
    }

    pub(super) fn follow(&mut self, orders: Orders, revision: u64) {
        // A server with a quorum that names an earlier revision may be a moment behind. Or an
        // operator of DISCO has accepted a loss; then this node must not contradict the group for
        // ever.
        self.seen = if orders.fresh { revision } else { self.seen.max(revision) };
        self.orders = match self.orders.take() {
            Some(known) if !orders.fresh && revision < self.revision => {
                Some(Arc::new(Orders { fresh: false, ..Orders::clone(&known) }))
            }
            _ => {
                self.revision = revision;
                Some(Arc::new(orders))
            }
        };
    }

    /// What this node can say of how far the DISCO group had come.
    pub(super) fn disco_progress(&self, group: GroupId) -> Option<GroupProgress> {
        let seen = GroupProgress { committed_index: self.seen, ..GroupProgress::default() };
        (group == DISCO_GROUP && self.seen > 0).then_some(seen)
    }

    /// Returns whether the link has changed.
    pub(super) fn set_link(&mut self, link: Link) -> bool {
        std::mem::replace(&mut self.link, link) != link
    }
}
