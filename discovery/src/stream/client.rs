//! Who is at the other end.

use envoy_types::pb::envoy::config::core::v3::Node;
use envoy_types::pb::envoy::config::core::v3::node::UserAgentVersionType;

/// An xDS client, as its first request described it.
///
/// Only what is of use is kept: the description of an Envoy lists hundreds of extensions.
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
        Self {
            id: node.id.clone(),
            cluster: node.cluster.clone(),
            user_agent: format!("{} {version}", node.user_agent_name).trim().to_owned(),
            zone: node.locality.as_ref().map(|it| it.zone.clone()).unwrap_or_default(),
            features: node.client_features.clone(),
        }
    }
}
