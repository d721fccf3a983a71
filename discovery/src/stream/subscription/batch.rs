//! The content of one response.

use crate::resource::{Name, Reference, Resource};

/// Size above which a response is split, where the protocol allows it. By default gRPC clients
/// refuse messages of more than 4 MiB.
const RESPONSE_LIMIT: usize = 3 << 20;

/// The content of one response, taken from a subscription.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) puts: Vec<Resource>,
    pub(crate) gone: Vec<Name>,
    /// What the client will request and wait for, because this response has a resource that refers
    /// to it and that the client had not, or with other content.
    pub(crate) references: Vec<Reference>,
    /// Whether users wait for something in this response.
    pub(crate) precedes_users: bool,
    size: usize,
}

impl Batch {
    pub(super) fn push(&mut self, resource: Resource) {
        self.size += resource.size();
        self.puts.push(resource);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.puts.is_empty() && self.gone.is_empty()
    }

    /// A resource that is larger than the limit is sent alone.
    pub(super) fn has_room_for(&self, resource: &Resource) -> bool {
        self.puts.is_empty() || self.size + resource.size() <= RESPONSE_LIMIT
    }
}
