//! Whether a client of xDS belongs to this server's mesh.
//!
//! Addresses are used again. An Envoy may find servers of another mesh at its configured addresses;
//! it would take their configuration for the latest of its own and drop everything it has. So its
//! bootstrap names its mesh, in the metadata of its node, and servers of another mesh refuse it. An
//! Envoy that is refused keeps what it has and tries the next address. An Envoy whose bootstrap
//! names no mesh is served: the file may have been written before the mesh was formed.

use envoy_types::pb::{
    envoy::config::core::v3::Node,
    google::protobuf::{Struct, value::Kind},
};
use tonic::Status;

/// The path to the mesh id in the metadata of a client's node.
const METADATA: &str = "quorate";
const MESH: &str = "mesh";

/// How many characters of a client's id and of its mesh id a message shows.
const SHOWN: usize = 128;

/// Admits a client whose node names this mesh, or none.
pub(super) fn check_mesh(node: &Node, ours: &str) -> Result<(), Status> {
    let Some(theirs) = mesh_of(node).filter(|theirs| *theirs != ours) else {
        return Ok(());
    };
    let id: String = node.id.chars().take(SHOWN).collect();
    let theirs: String = theirs.chars().take(SHOWN).collect();
    Err(Status::failed_precondition(format!(
        "client {id:?} belongs to mesh {theirs}, this server to mesh {ours}; it keeps what it has. \
         Make its bootstrap anew if it is to change over"
    )))
}

fn mesh_of(node: &Node) -> Option<&str> {
    let Kind::StructValue(ours) = field(node.metadata.as_ref()?, METADATA)? else { return None };
    match field(ours, MESH)? {
        Kind::StringValue(mesh) if !mesh.is_empty() => Some(mesh),
        Kind::StringValue(_)
        | Kind::NullValue(_)
        | Kind::NumberValue(_)
        | Kind::BoolValue(_)
        | Kind::StructValue(_)
        | Kind::ListValue(_) => None,
    }
}

fn field<'a>(of: &'a Struct, key: &str) -> Option<&'a Kind> {
    of.fields.get(key)?.kind.as_ref()
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::Value;
    use tonic::Code;

    use super::*;

    #[test]
    fn a_client_of_this_mesh_or_of_none_is_served() {
        assert!(check_mesh(&Node::default(), "ours").is_ok());
        assert!(check_mesh(&of_mesh("ours"), "ours").is_ok());
        assert!(check_mesh(&of_mesh(""), "ours").is_ok());
    }

    #[test]
    fn a_client_of_another_mesh_is_told_both() {
        let refused = check_mesh(&of_mesh("theirs"), "ours").unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition);
        let text = refused.message();
        assert!(text.contains("mesh theirs") && text.contains("mesh ours"), "{text}");
    }

    fn of_mesh(mesh: &str) -> Node {
        let text = Kind::StringValue(mesh.to_owned());
        let ours = Kind::StructValue(one(MESH, text));
        Node { metadata: Some(one(METADATA, ours)), ..Node::default() }
    }

    fn one(key: &str, kind: Kind) -> Struct {
        Struct { fields: [(key.to_owned(), Value { kind: Some(kind) })].into() }
    }
}
