//! What a client claims to hold from an earlier stream.
//!
//! A server that may be behind must not remove it. So three cases are distinguished: the client
//! holds nothing, it holds what this server would send, or it may hold more.

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::SotwRequest;
use crate::resource::{ResourceType, Version};
use crate::snapshot::{Snapshot, version_of};

/// The claim in the first request of a type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The client holds nothing of the type.
    Nothing,
    /// Everything that the client holds is in the snapshot with the same content, so nothing would
    /// be removed.
    Known,
    /// The client holds, or may hold, something that the snapshot does not.
    Unknown,
}

impl Claim {
    /// The claim of the first delta request of a type.
    pub fn of_delta(request: &DeltaDiscoveryRequest, snapshot: &Snapshot) -> Self {
        let held = &request.initial_resource_versions;
        let Some(kind) = ResourceType::from_type_url(&request.type_url) else {
            return Self::Nothing;
        };
        let is_known = |name: &str, version: &str| {
            let resource = snapshot.get(kind, name);
            resource.is_some_and(|it| Version::parse(version) == Some(it.version()))
        };
        match (held.is_empty(), request.response_nonce.is_empty()) {
            (true, true) => Self::Nothing,
            (true, false) => Self::Unknown,
            (false, _) if held.iter().all(|(name, version)| is_known(name, version)) => Self::Known,
            (false, _) => Self::Unknown,
        }
    }

    /// The claim of the first state-of-the-world request of a type.
    pub fn of_sotw(request: &SotwRequest, snapshot: &Snapshot) -> Self {
        let head = &request.head;
        let Some(kind) = ResourceType::from_type_url(&head.type_url) else {
            return Self::Nothing;
        };
        if head.version_info.is_empty() {
            return if head.response_nonce.is_empty() { Self::Nothing } else { Self::Unknown };
        }
        let names = request.names().unwrap_or_default();
        if Version::parse(&head.version_info) == Some(version_for(kind, &names, snapshot)) {
            Self::Known
        } else {
            Self::Unknown
        }
    }
}

/// The version of the response that the request would get.
fn version_for(kind: ResourceType, names: &[String], snapshot: &Snapshot) -> Version {
    if !kind.has_wildcard() {
        return snapshot.type_version(kind);
    }
    let is_wildcard = names.is_empty() || names.iter().any(|it| it == "*");
    let is_named = |name: &str| names.iter().any(|it| it == name);
    version_of(
        snapshot
            .resources(kind)
            .filter(|it| (is_wildcard && it.in_wildcard()) || is_named(it.name())),
    )
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::envoy::config::cluster::v3::Cluster;
    use envoy_types::pb::envoy::service::discovery::v3::DiscoveryRequest;

    use super::*;
    use crate::resource::{Resource, ResourceChange};

    fn cluster(name: &str) -> Resource {
        let message = Cluster { name: name.to_owned(), ..Cluster::default() };
        Resource::new(ResourceType::Cluster, name, &message)
    }

    fn snapshot() -> Snapshot {
        let puts = ["a", "b"].map(|it| ResourceChange::Put(cluster(it)));
        Snapshot::empty().with_changes(1, puts)
    }

    fn delta(held: &[(&str, Version)]) -> Claim {
        let request = DeltaDiscoveryRequest {
            type_url: ResourceType::Cluster.type_url().to_owned(),
            initial_resource_versions: held
                .iter()
                .map(|(name, version)| ((*name).to_owned(), version.to_string()))
                .collect(),
            ..DeltaDiscoveryRequest::default()
        };
        Claim::of_delta(&request, &snapshot())
    }

    fn sotw(names: &[&str], version: &str, nonce: &str) -> Claim {
        let request = DiscoveryRequest {
            type_url: ResourceType::Cluster.type_url().to_owned(),
            resource_names: names.iter().map(ToString::to_string).collect(),
            version_info: version.to_owned(),
            response_nonce: nonce.to_owned(),
            ..DiscoveryRequest::default()
        };
        Claim::of_sotw(&request.into(), &snapshot())
    }

    #[test]
    fn a_delta_client_names_what_it_holds() {
        let a = cluster("a").version();
        assert_eq!(delta(&[]), Claim::Nothing);
        assert_eq!(delta(&[("a", a)]), Claim::Known, "what it lacks can be added");
        assert_eq!(delta(&[("a", a), ("gone", a)]), Claim::Unknown);
        assert_eq!(delta(&[("b", a)]), Claim::Unknown);
    }

    #[test]
    fn a_state_of_the_world_client_names_a_version() {
        let both = version_of(&[cluster("a"), cluster("b")]).to_string();
        let one = version_of(&[cluster("a")]).to_string();
        assert_eq!(sotw(&[], "", ""), Claim::Nothing);
        assert_eq!(sotw(&[], &both, ""), Claim::Known);
        assert_eq!(sotw(&["a"], &one, ""), Claim::Known);
        assert_eq!(sotw(&[], &one, ""), Claim::Unknown);
        assert_eq!(sotw(&[], "elsewhere", ""), Claim::Unknown);
        assert_eq!(sotw(&[], "", "7"), Claim::Unknown, "a nonce of another stream");
    }
}
