//! Who is at the other end.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;

/// Bytes kept of each text, and texts kept of a list.
const LONGEST_TEXT: usize = 256;
const MOST_FEATURES: usize = 64;

/// An xDS client, as its first request described it.
///
/// Only what is of use is kept, and no text beyond a limit: the description of an Envoy lists
/// hundreds of extensions, and it comes from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Name the client was configured with.
    pub id: String,
    /// What the client is part of, as it was configured with.
    pub cluster: String,
    /// Program and version, such as `envoy 1.40.0`.
    pub user_agent: String,
    /// Where it runs.
    pub zone: String,
    /// What it says it can do.
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
