//! The ten types of resources that xDS names.

/// What type URLs begin with.
pub(crate) const PREFIX: &str = "type.googleapis.com/";

pub mod type_url {
    pub const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
    pub const ROUTE: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";
    pub const SCOPED_ROUTE: &str =
        "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration";
    pub const VIRTUAL_HOST: &str = "type.googleapis.com/envoy.config.route.v3.VirtualHost";
    pub const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
    pub const LOAD_ASSIGNMENT: &str =
        "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
    pub const ENDPOINT: &str = "type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint";
    pub const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
    pub const RUNTIME: &str = "type.googleapis.com/envoy.service.runtime.v3.Runtime";
    pub const EXTENSION: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
}

/// Where the name of a resource comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// A field of the resource. An envelope may repeat it.
    Field(&'static str),
    /// The envelope; the field, if the message has one, says less.
    Envelope,
}

/// Type URL, the acronym of its discovery service, and who names its resources.
const TYPES: [(&str, &str, Naming); 10] = [
    (type_url::LISTENER, "LDS", Naming::Field("name")),
    (type_url::ROUTE, "RDS", Naming::Field("name")),
    (type_url::SCOPED_ROUTE, "SRDS", Naming::Field("name")),
    // Of VHDS a name is `route configuration/host`, but the field is a word for people.
    (type_url::VIRTUAL_HOST, "VHDS", Naming::Envelope),
    (type_url::CLUSTER, "CDS", Naming::Field("name")),
    (type_url::LOAD_ASSIGNMENT, "EDS", Naming::Field("cluster_name")),
    (type_url::ENDPOINT, "LEDS", Naming::Envelope),
    (type_url::SECRET, "SDS", Naming::Field("name")),
    (type_url::RUNTIME, "RTDS", Naming::Field("name")),
    (type_url::EXTENSION, "ECDS", Naming::Field("name")),
];

pub(crate) fn naming(type_url: &str) -> Option<Naming> {
    TYPES.iter().find(|(url, _, _)| *url == type_url).map(|(_, _, naming)| *naming)
}

/// The type URLs of all ten.
pub fn urls() -> impl Iterator<Item = &'static str> {
    TYPES.iter().map(|(url, _, _)| *url)
}

/// `Cluster` of CDS' type URL; the URL itself if it is nobody's.
pub(crate) fn short(type_url: &str) -> &str {
    type_url.rsplit('.').next().unwrap_or(type_url)
}
