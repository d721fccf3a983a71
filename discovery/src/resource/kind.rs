//! The types of resources, as a table.
//!
//! What differs between types is written here, in one row for each, and nowhere else: a machine asks
//! the row, never which type it is. So a further type is a variant, its row, and its source.

use std::fmt;

use ResourceType::{
    Cluster, Endpoints, Extension, Listener, LocalityEndpoints, Route, Runtime, ScopedRoute,
    Secret, VirtualHost,
};

/// The types of resources that this server serves.
///
/// They are listed in make-before-break order (xDS protocol, "Eventual consistency
/// considerations").
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourceType {
    Cluster,
    Endpoints,
    LocalityEndpoints,
    Secret,
    Runtime,
    Listener,
    ScopedRoute,
    Route,
    VirtualHost,
    Extension,
}

/// The part that a type plays when a client is taken from one state to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It is used by others. It is sent at once, and users wait for it.
    Used,
    /// It uses others, and waits for what it may use.
    User,
    /// It depends on nothing, and nothing depends on it.
    Apart,
}

/// What there is to know of a type.
struct Row {
    /// The name of its discovery service, as the protocol abbreviates it.
    short: &'static str,
    type_url: &'static str,
    wildcard: bool,
    part: Part,
    fresh: bool,
    sent_again: bool,
    retired_after: &'static [ResourceType],
}

impl ResourceType {
    /// The number of types.
    pub const COUNT: usize = Self::all().len();

    /// Every type, in make-before-break order.
    pub const fn all() -> [Self; 10] {
        [
            Cluster,
            Endpoints,
            LocalityEndpoints,
            Secret,
            Runtime,
            Listener,
            ScopedRoute,
            Route,
            VirtualHost,
            Extension,
        ]
    }

    /// The type with this URL, if this server knows it.
    pub fn from_type_url(url: &str) -> Option<Self> {
        Self::all().into_iter().find(|kind| kind.type_url() == url)
    }

    pub const fn type_url(self) -> &'static str {
        self.row().type_url
    }

    /// Whether a client may subscribe to all resources of the type (xDS protocol, "How the client
    /// specifies what resources to return").
    ///
    /// For the same types a state-of-the-world response is the full set, so that a name missing
    /// from it is deleted.
    pub const fn has_wildcard(self) -> bool {
        self.row().wildcard
    }

    pub const fn part(self) -> Part {
        self.row().part
    }

    /// Whether a client is always sent the latest content, also while it is taken from one snapshot
    /// to the next. That is right for what changes often and breaks nothing: endpoints, secrets.
    pub const fn is_fresh(self) -> bool {
        self.row().fresh
    }

    /// Whether a resource is sent again, unchanged, after a resource that refers to it has changed.
    /// The client waits for it before it uses the other one (xDS protocol, "Resource warming").
    pub const fn is_sent_again(self) -> bool {
        self.row().sent_again
    }

    /// The types whose resources may use one of this type: it is removed when those are settled.
    pub const fn retired_after(self) -> &'static [Self] {
        self.row().retired_after
    }

    /// Position in a table with one entry per type.
    pub const fn index(self) -> usize {
        self as usize
    }

    const fn row(self) -> Row {
        /// What may lead a request to a cluster.
        const USERS: &[ResourceType] = &[Listener, ScopedRoute, Route, VirtualHost, Extension];
        const USERS_AND_CLUSTERS: &[ResourceType] =
            &[Cluster, Listener, ScopedRoute, Route, VirtualHost, Extension];

        match self {
            Cluster => Row {
                short: "cds",
                type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
                wildcard: true,
                part: Part::Used,
                fresh: false,
                sent_again: false,
                retired_after: USERS,
            },
            Endpoints => Row {
                short: "eds",
                type_url: "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
                wildcard: false,
                part: Part::Used,
                fresh: true,
                sent_again: true,
                retired_after: USERS_AND_CLUSTERS,
            },
            LocalityEndpoints => Row {
                short: "leds",
                type_url: "type.googleapis.com/envoy.config.endpoint.v3.LbEndpoint",
                wildcard: false,
                part: Part::Apart,
                fresh: true,
                sent_again: false,
                retired_after: &[Endpoints],
            },
            Secret => Row {
                short: "sds",
                type_url: "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
                wildcard: false,
                part: Part::Used,
                fresh: true,
                sent_again: true,
                retired_after: USERS_AND_CLUSTERS,
            },
            Runtime => Row {
                short: "rtds",
                type_url: "type.googleapis.com/envoy.service.runtime.v3.Runtime",
                wildcard: false,
                part: Part::Apart,
                fresh: true,
                sent_again: false,
                retired_after: &[],
            },
            Listener => Row {
                short: "lds",
                type_url: "type.googleapis.com/envoy.config.listener.v3.Listener",
                wildcard: true,
                part: Part::User,
                fresh: false,
                sent_again: false,
                retired_after: &[],
            },
            ScopedRoute => Row {
                short: "srds",
                type_url: "type.googleapis.com/envoy.config.route.v3.ScopedRouteConfiguration",
                wildcard: true,
                part: Part::User,
                fresh: false,
                sent_again: false,
                retired_after: &[Listener],
            },
            Route => Row {
                short: "rds",
                type_url: "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                wildcard: false,
                part: Part::User,
                fresh: false,
                sent_again: false,
                retired_after: &[Listener, ScopedRoute],
            },
            VirtualHost => Row {
                short: "vhds",
                type_url: "type.googleapis.com/envoy.config.route.v3.VirtualHost",
                wildcard: false,
                part: Part::User,
                fresh: false,
                sent_again: false,
                retired_after: &[Route],
            },
            Extension => Row {
                short: "ecds",
                type_url: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
                wildcard: false,
                part: Part::User,
                fresh: false,
                sent_again: false,
                retired_after: &[Listener],
            },
        }
    }
}

impl fmt::Display for ResourceType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().short)
    }
}
