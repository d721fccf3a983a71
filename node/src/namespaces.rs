//! Which namespaces this node hosts, and who the members of each are.
//!
//! The data service writes here when it starts and stops groups; the services that clients call
//! read. A namespace is listed from the start of its group until just before the group is stopped.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use mesh::{DISCO_GROUP, GroupId, NodeId};
use raft::Group;
use tokio::sync::watch;

/// The namespace of clients that name none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The group of [`DEFAULT_NAMESPACE`]: data groups are numbered after DISCO's own.
pub const DEFAULT_GROUP: GroupId = DISCO_GROUP + 1;

/// The namespaces of this node. Clones are handles to the same ones.
#[derive(Clone, Debug, Default)]
pub struct Namespaces {
    inner: Arc<RwLock<Inner>>,
    /// Marked as changed whenever a namespace is added, or the reason for having none is set.
    news: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Inner {
    hosted: BTreeMap<String, Hosted>,
    members: BTreeMap<String, Vec<MemberAddress>>,
    absence: Absence,
}

/// Why there is no namespace yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Absence {
    /// In words; empty until the data service has looked at its groups.
    pub reasons: Vec<String>,
    /// A person must act first, so a caller need not wait.
    pub lasting: bool,
}

/// A namespace with a replica on this node.
#[derive(Clone, Debug)]
pub struct Hosted {
    pub namespace: String,
    pub group: Group,
}

/// A member of a namespace's group, and where it is reached if that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberAddress {
    pub node_id: NodeId,
    /// A label for people.
    pub name: String,
    pub mesh_address: Option<SocketAddr>,
    pub kv_address: Option<SocketAddr>,
    pub voter: bool,
}

impl Namespaces {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn insert(&self, hosted: Hosted) {
        self.write().hosted.insert(hosted.namespace.clone(), hosted);
        self.news.send_replace(());
    }

    /// Sets why there is no namespace, for as long as there is none.
    pub fn set_absence(&self, absence: Absence) {
        self.write().absence = absence;
        self.news.send_replace(());
    }

    /// What is waited for while there is no namespace, in words.
    pub fn waits_for(&self) -> Vec<String> {
        self.read().absence.reasons.clone()
    }

    /// Waits until this node hosts any namespace, or must wait for a person, and returns the wanted
    /// one if it is among them.
    pub async fn find(&self, namespace: &str) -> Option<Hosted> {
        let mut news = self.news.subscribe();
        loop {
            news.mark_unchanged();
            {
                let inner = self.read();
                if !inner.hosted.is_empty() || inner.absence.lasting {
                    return inner.hosted.get(namespace).cloned();
                }
            }
            // `self` holds the sender, so this never fails.
            news.changed().await.ok()?;
        }
    }

    /// Forgets a namespace and its members.
    pub fn remove(&self, namespace: &str) {
        let mut inner = self.write();
        inner.hosted.remove(namespace);
        inner.members.remove(namespace);
    }

    pub fn set_members(&self, namespace: &str, members: Vec<MemberAddress>) {
        self.write().members.insert(namespace.to_owned(), members);
    }

    /// The members as they were last set; none if they never were.
    pub fn members(&self, namespace: &str) -> Vec<MemberAddress> {
        self.read().members.get(namespace).cloned().unwrap_or_default()
    }

    /// The hosted namespaces, in order.
    pub fn names(&self) -> Vec<String> {
        self.read().hosted.keys().cloned().collect()
    }

    // A panic cannot leave a change half done, since each one only inserts or removes. So a
    // poisoned lock is used.
    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}
