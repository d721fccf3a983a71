//! The ids that do not change with addresses: of meshes, servers, stores and groups.

use std::{fmt, str::FromStr, sync::Arc};

use uuid::Uuid;

/// A server. Random, nonzero, made at its first start and never reused.
pub type NodeId = u64;

/// A Raft group; 1 is the registry's own, data groups count from 2.
pub type GroupId = u32;

/// DISCO's own group, in every mesh.
pub const DISCO_GROUP: GroupId = 1;

/// A node id as operators read and type it: 16 hexadecimal digits.
pub fn node_hex(node_id: NodeId) -> String {
    format!("{node_id:016x}")
}

/// The id of a whole installation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MeshId(Arc<str>);

impl MeshId {
    pub fn generate() -> Self {
        Self(Uuid::new_v4().to_string().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MeshId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshId({})", self.0)
    }
}

impl FromStr for MeshId {
    type Err = ParseMeshIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uuid = Uuid::try_parse(text).map_err(|_| ParseMeshIdError(text.to_owned()))?;
        Ok(Self(uuid.to_string().into()))
    }
}

/// The text is not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a mesh id (a UUID): {0:?}")]
pub struct ParseMeshIdError(String);

/// A member of a group: a server together with the store that it had when it joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub node_id: NodeId,
    pub store_id: u64,
}
