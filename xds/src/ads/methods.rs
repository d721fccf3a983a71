//! The gRPC services of discovery, and their methods.
//!
//! Beside the aggregated service (ADS) there is one for each type of resources. Its streams are of
//! that type alone, and their requests need not name it. LEDS and VHDS know the delta variant only.
//! The unary methods (`Fetch…`) are for REST and are not served.

use std::{
    convert::Infallible,
    future::Ready,
    marker::PhantomData,
    task::{Context, Poll},
};

use discovery::{resource::ResourceType, stream::ProtocolVariant};
use tonic::{
    Status,
    body::Body,
    codegen::{Body as HttpBody, Service, StdError, http},
    server::NamedService,
    service::RoutesBuilder,
};

use super::{
    AdsServer,
    variant::{Delta, Sotw},
};

/// What a method serves: the variant of its streams, and the type if it is one alone.
type Method = (ProtocolVariant, Option<ResourceType>);

/// One gRPC service. The name is a type, because the router wants a constant.
struct Served<N> {
    server: AdsServer,
    name: PhantomData<fn() -> N>,
}

trait Name: 'static {
    const NAME: &'static str;
    const TYPE: Option<ResourceType>;
    /// The names of the streaming methods.
    const SOTW: Option<&'static str>;
    const DELTA: &'static str;
}

macro_rules! services {
    ($($service:ident: $name:literal, $kind:expr, $sotw:expr, $delta:literal;)*) => {
        $(enum $service {}

        impl Name for $service {
            const NAME: &'static str = $name;
            const TYPE: Option<ResourceType> = $kind;
            const SOTW: Option<&'static str> = $sotw;
            const DELTA: &'static str = $delta;
        })*

        /// Adds every service of discovery.
        pub(super) fn add_services(server: &AdsServer, routes: &mut RoutesBuilder) {
            $(routes.add_service(Served::<$service>::new(server));)*
        }

        #[cfg(test)]
        const METHODS: &[(&str, Option<&str>, &str)] =
            &[$(($name, <$service as Name>::SOTW, $delta)),*];
    };
}

services! {
    Ads: "envoy.service.discovery.v3.AggregatedDiscoveryService", None,
        Some("StreamAggregatedResources"), "DeltaAggregatedResources";
    Cds: "envoy.service.cluster.v3.ClusterDiscoveryService", Some(ResourceType::Cluster),
        Some("StreamClusters"), "DeltaClusters";
    Eds: "envoy.service.endpoint.v3.EndpointDiscoveryService", Some(ResourceType::Endpoints),
        Some("StreamEndpoints"), "DeltaEndpoints";
    Leds: "envoy.service.endpoint.v3.LocalityEndpointDiscoveryService",
        Some(ResourceType::LocalityEndpoints), None, "DeltaLocalityEndpoints";
    Sds: "envoy.service.secret.v3.SecretDiscoveryService", Some(ResourceType::Secret),
        Some("StreamSecrets"), "DeltaSecrets";
    Rtds: "envoy.service.runtime.v3.RuntimeDiscoveryService", Some(ResourceType::Runtime),
        Some("StreamRuntime"), "DeltaRuntime";
    Lds: "envoy.service.listener.v3.ListenerDiscoveryService", Some(ResourceType::Listener),
        Some("StreamListeners"), "DeltaListeners";
    Srds: "envoy.service.route.v3.ScopedRoutesDiscoveryService", Some(ResourceType::ScopedRoute),
        Some("StreamScopedRoutes"), "DeltaScopedRoutes";
    Rds: "envoy.service.route.v3.RouteDiscoveryService", Some(ResourceType::Route),
        Some("StreamRoutes"), "DeltaRoutes";
    Vhds: "envoy.service.route.v3.VirtualHostDiscoveryService", Some(ResourceType::VirtualHost),
        None, "DeltaVirtualHosts";
    Ecds: "envoy.service.extension.v3.ExtensionConfigDiscoveryService",
        Some(ResourceType::Extension), Some("StreamExtensionConfigs"), "DeltaExtensionConfigs";
}

impl<N: Name> Served<N> {
    fn new(server: &AdsServer) -> Self {
        Self { server: server.clone(), name: PhantomData }
    }

    fn method(path: &str) -> Option<Method> {
        let name = path.strip_prefix('/')?.strip_prefix(N::NAME)?.strip_prefix('/')?;
        if name == N::DELTA {
            return Some((ProtocolVariant::Delta, N::TYPE));
        }
        (Some(name) == N::SOTW).then_some((ProtocolVariant::Sotw, N::TYPE))
    }
}

impl<N> Clone for Served<N> {
    fn clone(&self) -> Self {
        Self { server: self.server.clone(), name: PhantomData }
    }
}

impl<N: Name> NamedService for Served<N> {
    const NAME: &'static str = N::NAME;
}

impl<N, B> Service<http::Request<B>> for Served<N>
where
    N: Name,
    B: HttpBody<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let request = request.map(Body::new);
        let path = request.uri().path();
        let response = match Self::method(path) {
            Some((ProtocolVariant::Sotw, only)) => self.server.answer::<Sotw>(only, request),
            Some((ProtocolVariant::Delta, only)) => self.server.answer::<Delta>(only, request),
            None => {
                let text =
                    format!("{path} is not served; the streaming methods of the service are");
                Status::unimplemented(text).into_http()
            }
        };
        std::future::ready(Ok(response))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_type_has_a_service() {
        let types = [
            Cds::TYPE,
            Eds::TYPE,
            Leds::TYPE,
            Sds::TYPE,
            Rtds::TYPE,
            Lds::TYPE,
            Srds::TYPE,
            Rds::TYPE,
            Vhds::TYPE,
            Ecds::TYPE,
        ];
        assert_eq!(types, ResourceType::all().map(Some));
        let names: BTreeSet<&str> = METHODS.iter().map(|it| it.0).collect();
        assert_eq!(names.len(), METHODS.len());
    }

    #[test]
    fn a_method_is_found_by_its_path() {
        let cds = "/envoy.service.cluster.v3.ClusterDiscoveryService";
        let found = |method: &str| Served::<Cds>::method(&format!("{cds}/{method}"));
        let only = Some(ResourceType::Cluster);
        assert_eq!(found("StreamClusters"), Some((ProtocolVariant::Sotw, only)));
        assert_eq!(found("DeltaClusters"), Some((ProtocolVariant::Delta, only)));
        assert_eq!(found("FetchClusters"), None);
        let vhds = "/envoy.service.route.v3.VirtualHostDiscoveryService/StreamVirtualHosts";
        assert_eq!(Served::<Vhds>::method(vhds), None);
    }
}
