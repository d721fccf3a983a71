//! What one response holds.

use std::sync::Arc;

use crate::resource::Resource;

/// Size beyond which a response is split, if it can be. gRPC clients refuse messages of more than
/// 4 MiB by default.
const RESPONSE_LIMIT: usize = 3 << 20;

/// What is taken from a subscription to be sent in one response.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) puts: Vec<Resource>,
    pub(crate) gone: Vec<Arc<str>>,
    /// The load assignments that the client will wait for, because their cluster is here and is
    /// not what the client had.
    pub(crate) awaits: Vec<Arc<str>>,
    /// Something here must be known to the client before a listener or route may use it.
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

    /// A resource larger than the limit goes alone.
    pub(super) fn has_room_for(&self, resource: &Resource) -> bool {
        self.puts.is_empty() || self.size + resource.size() <= RESPONSE_LIMIT
    }
}
