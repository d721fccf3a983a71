//! What the data directory remembers about the groups of this node (`groups.json`).
//!
//! The node starts its groups from this file while DISCO is away. Two notes in it tell a store that
//! has lost a group from one that never held it:
//!
//! - [`GroupEntry::placed`] is set, durably, after the store has made room for the group and before
//!   the replica runs. If the note is set and the store has no room for the group, the store has
//!   lost it, and with it the votes of the replica.
//! - [`GroupEntry::held`] is set at most a second after the replica has first voted or stored
//!   something. If the note is set and the room in the store is empty, its contents were lost. If
//!   the note is not set, the process ended before the replica had voted, as far as this directory
//!   knows.
//!
//! The file is replaced as a whole, and synced before the node acts on it. A file that cannot be
//! read stops the node: if the node assumed that it had held nothing, a replica that has lost its
//! votes could vote again.

use std::{
    collections::BTreeMap,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use mesh::{GroupId, Member, NodeId, file};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::session::{Assignment, NodeState, Orders, Peer};

const FILE: &str = "groups.json";
const DRAFT: &str = "groups.json.new";

/// The layout of the file. A file of a newer layout is refused.
const FORMAT: u32 = 1;

/// The groups of this node, on disk.
#[derive(Debug)]
pub(crate) struct GroupsFile {
    path: PathBuf,
    contents: Contents,
}

/// One group, as it was last ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct GroupEntry {
    pub(crate) namespace: String,
    first_voters: Vec<MemberRow>,
    replicas: Vec<MemberRow>,
    voters_wanted: usize,
    formed: bool,
    /// Whether the store has made room for this node's replica.
    #[serde(default)]
    placed: bool,
    /// Whether this node's replica was seen to have voted or stored anything.
    held: bool,
}

/// Why the file cannot be used.
#[derive(Debug, Error)]
pub enum GroupsFileError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "{path} cannot be understood; restore it, or wipe the data directory to come back as a \
         new node"
    )]
    Malformed {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} has layout {found}, and this version reads layout {FORMAT}")]
    Newer { path: PathBuf, found: u32 },
    #[error("cannot write {path}")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Contents {
    format: u32,
    /// The mesh that the groups are of.
    mesh: Option<String>,
    groups: BTreeMap<GroupId, GroupEntry>,
    nodes: Vec<PeerRow>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct MemberRow {
    #[serde(with = "hex")]
    node_id: NodeId,
    #[serde(with = "hex")]
    store_id: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct PeerRow {
    #[serde(with = "hex")]
    node_id: NodeId,
    name: String,
    mesh_address: Option<SocketAddr>,
    kv_address: Option<SocketAddr>,
}

impl GroupsFile {
    /// Reads what is remembered in a data directory; nothing on a first start.
    ///
    /// # Errors
    ///
    /// If there is a file and it cannot be understood.
    pub(crate) fn load(directory: &Path) -> Result<Self, GroupsFileError> {
        let path = directory.join(FILE);
        let contents = match fs::read(&path) {
            Ok(bytes) => parse(&path, &bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Contents::empty(),
            Err(source) => return Err(GroupsFileError::Read { path, source }),
        };
        Ok(Self { path, contents })
    }

    /// Remembers orders, of DISCO or of the formation.
    pub(crate) fn remember(&mut self, orders: &Orders) -> Result<(), GroupsFileError> {
        let mut contents = self.contents.clone();
        contents.mesh = Some(orders.mesh.to_string());
        for (group, assignment) in &orders.assignments {
            let before = contents.groups.get(group);
            let entry = GroupEntry::from_assignment(assignment, before);
            contents.groups.insert(*group, entry);
        }
        contents.nodes = orders.peers.values().map(PeerRow::from_peer).collect();
        self.replace(contents)
    }

    /// Notes that the store has made room for a group's replica.
    pub(crate) fn mark_placed(&mut self, group: GroupId) -> Result<(), GroupsFileError> {
        self.mark(group, |entry| entry.placed = true)
    }

    /// Notes that this node's replica of a group has something to remember.
    pub(crate) fn mark_held(&mut self, group: GroupId) -> Result<(), GroupsFileError> {
        self.mark(group, |entry| entry.held = true)
    }

    /// Forgets a group that this node no longer hosts.
    pub(crate) fn forget(&mut self, group: GroupId) -> Result<(), GroupsFileError> {
        let mut contents = self.contents.clone();
        contents.groups.remove(&group);
        self.replace(contents)
    }

    pub(crate) fn placed(&self, group: GroupId) -> bool {
        self.contents.groups.get(&group).is_some_and(|it| it.placed)
    }

    pub(crate) fn held(&self, group: GroupId) -> bool {
        self.contents.groups.get(&group).is_some_and(|it| it.held)
    }

    /// The orders as last heard; none if there never were any.
    pub(crate) fn orders(&self) -> Option<Orders> {
        let Contents { mesh, groups, nodes, .. } = &self.contents;
        Some(Orders {
            mesh: mesh.as_ref()?.parse().ok()?,
            assignments: groups
                .iter()
                .map(|(group, entry)| (*group, entry.to_assignment(*group)))
                .collect(),
            peers: nodes.iter().map(|row| (row.node_id, row.to_peer())).collect(),
            fresh: false,
        })
    }

    fn mark(
        &mut self,
        group: GroupId,
        note: impl FnOnce(&mut GroupEntry),
    ) -> Result<(), GroupsFileError> {
        let mut contents = self.contents.clone();
        if let Some(entry) = contents.groups.get_mut(&group) {
            note(entry);
        }
        self.replace(contents)
    }

    /// Writes the file before it changes the memory, so that the node never acts on what a crash
    /// would undo.
    fn replace(&mut self, contents: Contents) -> Result<(), GroupsFileError> {
        if contents == self.contents {
            return Ok(());
        }
        write(&self.path, &contents)
            .map_err(|source| GroupsFileError::Write { path: self.path.clone(), source })?;
        self.contents = contents;
        Ok(())
    }
}

impl Contents {
    const fn empty() -> Self {
        Self { format: FORMAT, mesh: None, groups: BTreeMap::new(), nodes: Vec::new() }
    }
}

impl GroupEntry {
    fn from_assignment(assignment: &Assignment, before: Option<&Self>) -> Self {
        Self {
            namespace: assignment.namespace.clone(),
            first_voters: rows(&assignment.first_voters),
            replicas: rows(&assignment.replicas),
            voters_wanted: assignment.voters_wanted,
            formed: assignment.formed,
            placed: before.is_some_and(|it| it.placed),
            held: before.is_some_and(|it| it.held),
        }
    }

    fn to_assignment(&self, group: GroupId) -> Assignment {
        Assignment {
            group,
            namespace: self.namespace.clone(),
            first_voters: members(&self.first_voters),
            replicas: members(&self.replicas),
            voters_wanted: self.voters_wanted,
            formed: self.formed,
        }
    }
}

impl PeerRow {
    fn from_peer(peer: &Peer) -> Self {
        Self {
            node_id: peer.node_id,
            name: peer.name.clone(),
            mesh_address: peer.mesh_address,
            kv_address: peer.kv_address,
        }
    }

    /// The state of a node is not remembered: whether it is up or down, only DISCO can say.
    fn to_peer(&self) -> Peer {
        Peer {
            node_id: self.node_id,
            name: self.name.clone(),
            mesh_address: self.mesh_address,
            kv_address: self.kv_address,
            zone: String::new(),
            state: NodeState::Away,
        }
    }
}

fn rows(members: &[Member]) -> Vec<MemberRow> {
    let rows = members
        .iter()
        .map(|member| MemberRow { node_id: member.node_id, store_id: member.store_id });
    rows.collect()
}

fn members(rows: &[MemberRow]) -> Vec<Member> {
    let members = rows.iter().map(|row| Member { node_id: row.node_id, store_id: row.store_id });
    members.collect()
}

fn parse(path: &Path, bytes: &[u8]) -> Result<Contents, GroupsFileError> {
    #[derive(Deserialize)]
    struct Layout {
        format: u32,
    }
    let malformed = |source| GroupsFileError::Malformed { path: path.to_owned(), source };
    let layout: Layout = serde_json::from_slice(bytes).map_err(malformed)?;
    if layout.format > FORMAT {
        return Err(GroupsFileError::Newer { path: path.to_owned(), found: layout.format });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

fn write(path: &Path, contents: &Contents) -> io::Result<()> {
    let mut bytes = serde_json::to_vec_pretty(contents)?;
    bytes.push(b'\n');
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    file::replace(directory, DRAFT, FILE, &bytes)
}

/// Ids are written as people see them everywhere: as 16 hexadecimal digits.
mod hex {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{id:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use mesh::MeshId;

    use super::*;
    use crate::namespaces::{DEFAULT_GROUP, DEFAULT_NAMESPACE};

    #[test]
    fn what_is_remembered_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut groups_file = GroupsFile::load(directory.path()).unwrap();
        assert_eq!(groups_file.orders(), None);
        let orders = orders();
        groups_file.remember(&orders).unwrap();
        groups_file.mark_placed(DEFAULT_GROUP).unwrap();

        let again = GroupsFile::load(directory.path()).unwrap();
        assert_eq!(again.orders(), Some(orders));
        assert!(again.placed(DEFAULT_GROUP) && !again.held(DEFAULT_GROUP));
        assert!(!again.placed(DEFAULT_GROUP + 1));
        groups_file.mark_held(DEFAULT_GROUP).unwrap();
        assert!(GroupsFile::load(directory.path()).unwrap().held(DEFAULT_GROUP));
    }

    #[test]
    fn what_is_remembered_survives_a_power_cut() {
        let image = powercut::cut(|directory| {
            let mut groups_file = GroupsFile::load(directory).unwrap();
            groups_file.remember(&orders()).unwrap();
            groups_file.mark_placed(DEFAULT_GROUP).unwrap();
        });
        let again = GroupsFile::load(image.path()).unwrap();
        assert!(again.orders().is_some() && again.placed(DEFAULT_GROUP));
    }

    #[test]
    fn repeated_orders_keep_the_notes_of_having_held() {
        let directory = tempfile::tempdir().unwrap();
        let mut groups_file = GroupsFile::load(directory.path()).unwrap();
        groups_file.remember(&orders()).unwrap();
        groups_file.mark_placed(DEFAULT_GROUP).unwrap();
        groups_file.mark_held(DEFAULT_GROUP).unwrap();
        groups_file.remember(&orders()).unwrap();
        assert!(groups_file.placed(DEFAULT_GROUP) && groups_file.held(DEFAULT_GROUP));
    }

    #[test]
    fn orders_without_a_group_do_not_forget_it() {
        let directory = tempfile::tempdir().unwrap();
        let mut groups_file = GroupsFile::load(directory.path()).unwrap();
        let orders = orders();
        groups_file.remember(&orders).unwrap();
        let without = Orders { assignments: BTreeMap::new(), ..orders.clone() };
        groups_file.remember(&without).unwrap();
        assert_eq!(groups_file.orders(), Some(orders));
        groups_file.forget(DEFAULT_GROUP).unwrap();
        assert_eq!(groups_file.orders(), Some(without));
    }

    #[test]
    fn a_file_that_cannot_be_understood_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "{\"format\": 1, \"gro").unwrap();
        let refused = GroupsFile::load(directory.path());
        assert!(matches!(refused, Err(GroupsFileError::Malformed { .. })), "{refused:?}");
    }

    #[test]
    fn a_file_of_a_later_version_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "{\"format\": 2}").unwrap();
        let refused = GroupsFile::load(directory.path());
        assert!(matches!(refused, Err(GroupsFileError::Newer { found: 2, .. })), "{refused:?}");
    }

    fn orders() -> Orders {
        let member = Member { node_id: 0xfedc_ba98_7654_3210, store_id: 7 };
        let assignment = Assignment {
            group: DEFAULT_GROUP,
            namespace: DEFAULT_NAMESPACE.to_owned(),
            first_voters: vec![member],
            replicas: vec![member],
            voters_wanted: 3,
            formed: true,
        };
        let peer = Peer {
            node_id: member.node_id,
            name: "n1".to_owned(),
            mesh_address: Some(SocketAddr::from(([10, 0, 0, 1], 7400))),
            kv_address: None,
            zone: String::new(),
            state: NodeState::Away,
        };
        Orders {
            mesh: MeshId::generate(),
            assignments: BTreeMap::from([(DEFAULT_GROUP, assignment)]),
            peers: BTreeMap::from([(member.node_id, peer)]),
            fresh: false,
        }
    }
}
