//! The client of a stream.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;

/// Most bytes kept of each text; below, most texts kept of a list.
const LONGEST_TEXT: usize = 256;
const MOST_FEATURES: usize = 64;

/// An xDS client, as its first request described it.
///
/// Only useful fields are kept, and texts are cut, because the description of an Envoy lists
/// hundreds of extensions and the client is not trusted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The configured name of the client.
    pub id: String,
    /// The configured cluster that the client belongs to.
    pub cluster: String,
    /// Program and version, such as `envoy 1.40.0`.
    pub user_agent: String,
    /// The zone that it runs in.
    pub zone: String,
    /// The features that it announces.
    pub features: Vec<String>,
}

impl Client {
    pub(super) fn from_node(node: &Node) -> Self {
        let version = match &node.user_agent_version_type {
            Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
            Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
                .version
                .as_ref()
                .map(|it| format!("{}.{}.{}", it.major_number, it.minor_number, it.patch))
                .unwrap_or_default(),
            None => String::new(),
        };
        let agent = format!("{} {version}", cut(&node.user_agent_name));
        Self {
            id: cut(&node.id),
            cluster: cut(&node.cluster),
            user_agent: cut(agent.trim()),
            zone: node.locality.as_ref().map(|it| cut(&it.zone)).unwrap_or_default(),
            features: node.client_features.iter().take(MOST_FEATURES).map(|it| cut(it)).collect(),
        }
    }
}

fn cut(text: &str) -> String {
    let end = text.floor_char_boundary(text.len().min(LONGEST_TEXT));
    text[..end].to_owned()
}
