mod endpoints;
mod namespaces;
mod options;
mod sidecar;

use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::Cluster,
            core::v3::{HealthStatus, address, socket_address::PortSpecifier},
            endpoint::v3::{ClusterLoadAssignment, lb_endpoint::HostIdentifier},
            listener::v3::{Listener, filter},
            route::v3::{
                RetryPolicy, RouteConfiguration, header_matcher,
                retry_policy::retry_host_predicate, route, route_action,
            },
        },
        extensions::{
            filters::network::{
                http_connection_manager::v3::{
                    HttpConnectionManager, http_connection_manager, http_filter,
                },
                tcp_proxy::v3::TcpProxy,
            },
            retry::host::previous_hosts::v3::PreviousHostsPredicate,
            upstreams::http::v3::{
                HttpProtocolOptions,
                http_protocol_options::{
                    UpstreamProtocolOptions, explicit_http_config::ProtocolConfig,
                },
            },
        },
        service::discovery::v3::Resource as WireResource,
        r#type::matcher::v3::string_matcher::MatchPattern,
    },
    google::protobuf::{BoolValue, UInt32Value},
};
use prost::{Message, Name};
use proto::quorate::v1::{
    ConfigureService, Health, Locality as WireLocality, RegisterInstance, RemoveService,
    ServiceOptions, registry_command::Command,
};

use super::*;
use crate::{
    registry::{
        may_be_registered,
        tests::{Mesh, instance},
    },
    resource::ResourceType,
    snapshot::Snapshot,
};

#[test]
fn empty_registry_has_what_all_services_share() {
    let told = Told::of(&Mesh::default());
    assert_eq!(told.names(ResourceType::Route), ["ingress", "ingress-kv", "mesh/outbound"]);
    assert_eq!(told.names(ResourceType::Listener), ["mesh/outbound"]);
    assert_eq!(told.names(ResourceType::Cluster), Vec::<String>::new());
    assert_eq!(told.routes("ingress"), []);
    assert_eq!(told.routes("ingress-kv"), [route("*", "", "answer 503")]);
}

#[test]
fn service_yields_its_five_resources_and_its_place_in_the_shared_routes() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let told = Told::of(&mesh);
    assert_eq!(told.names(ResourceType::Cluster), ["orders"]);
    assert_eq!(told.names(ResourceType::Endpoints), ["orders"]);
    assert_eq!(told.names(ResourceType::Listener), ["mesh/outbound", "orders", "sidecar/orders"]);
    assert_eq!(
        told.names(ResourceType::Route),
        ["ingress", "ingress-kv", "mesh/outbound", "orders"]
    );
    let both = |domain| [route(domain, "idempotent", "orders"), route(domain, "", "orders")];
    assert_eq!(told.routes("orders"), both("*"));
    for shared in ["ingress", "mesh/outbound"] {
        assert_eq!(told.routes(shared), [both("orders"), both("orders:*")].concat());
    }
}

#[test]
fn what_is_not_a_services_own_has_a_name_that_no_service_can_have() {
    let mut mesh = three_nodes();
    mesh.decide("extra", &[1, 2, 3]).unwrap();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let told = Told::of(&mesh);
    let mut names: Vec<String> = ResourceType::all().map(|kind| told.names(kind)).concat();
    for route in ["ingress", "ingress-kv", "mesh/outbound", "orders"] {
        let configuration: RouteConfiguration = told.get(ResourceType::Route, route);
        for host in configuration.virtual_hosts {
            // A namespace's route has the namespace's name, but only in `ingress-kv`.
            let own = if route == "ingress-kv" { ["default", "extra"].as_slice() } else { &[] };
            names.extend(
                host.routes.into_iter().map(|it| it.name).filter(|it| !own.contains(&&**it)),
            );
            names.push(host.name);
        }
    }
    names.retain(|name| name != "orders");
    assert!(names.len() > 10, "{names:?}");
    let free: Vec<_> = names.iter().filter(|name| may_be_registered(name)).collect();
    assert_eq!(free, Vec::<&String>::new());
}

#[test]
fn no_route_names_a_cluster_that_is_not_there() {
    let mut mesh = Mesh::default();
    mesh.nodes(3);
    mesh.decide("extra", &[1, 2, 3]).unwrap();
    for told in [Told::of(&Mesh::default()), Told::of(&mesh), Told::of(&three_nodes())] {
        let clusters = told.names(ResourceType::Cluster);
        for (_, _, cluster) in told.routes("ingress-kv") {
            assert!(clusters.contains(&cluster) || cluster == "answer 503", "{cluster}");
        }
    }
}

#[test]
fn silent_connections_are_given_up_whatever_the_protocol() {
    let mut mesh = three_nodes();
    for (name, protocol) in [("web", "http1"), ("grpc", "http2"), ("db", "tcp")] {
        let mut command = instance(name, "a", "10.0.0.1:80", 1);
        command.instance.as_mut().unwrap().protocol = protocol.into();
        mesh.run(Command::RegisterInstance(command)).unwrap();
    }
    let told = Told::of(&mesh);
    for name in told.names(ResourceType::Cluster) {
        let cluster: Cluster = told.get(ResourceType::Cluster, &name);
        let keepalive = cluster.upstream_connection_options.unwrap().tcp_keepalive.unwrap();
        let seconds = |value: Option<UInt32Value>| value.unwrap().value;
        let silence = seconds(keepalive.keepalive_time)
            + seconds(keepalive.keepalive_interval) * seconds(keepalive.keepalive_probes);
        assert!(silence <= 15, "{name}: {silence} s");
        let options = cluster.upstream_bind_config.unwrap().socket_options;
        assert_eq!((options[0].level, options[0].name), (6, 18), "{name}: TCP_USER_TIMEOUT");
    }
}

#[test]
fn a_sidecar_shares_its_ports_with_nobody() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let sidecar: Listener = Told::of(&mesh).get(ResourceType::Listener, "sidecar/orders");
    assert_eq!(sidecar.enable_reuse_port, Some(BoolValue { value: false }));
}

#[test]
fn only_what_may_be_carried_out_twice_is_sent_again_after_a_loss() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let configuration: RouteConfiguration = Told::of(&mesh).get(ResourceType::Route, "orders");
    let host = &configuration.virtual_hosts[0];
    let conditions = |policy: &Option<RetryPolicy>| {
        let policy = policy.as_ref().unwrap();
        policy.retry_on.split(',').map(str::to_owned).collect::<Vec<_>>()
    };
    let of_route = |at: usize| {
        let Some(route::Action::Route(action)) = &host.routes[at].action else { panic!() };
        action.retry_policy.clone()
    };
    assert!(conditions(&of_route(0)).contains(&"reset".to_owned()));
    assert_eq!(of_route(1), None);
    assert!(!conditions(&host.retry_policy).contains(&"reset".to_owned()));
}

/// D8: an instance that failed is the likeliest to fail again.
#[test]
fn a_retry_goes_to_an_instance_that_was_not_tried() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let told = Told::of(&mesh);
    for name in ["orders", "ingress", "mesh/outbound"] {
        let configuration: RouteConfiguration = told.get(ResourceType::Route, name);
        let host = &configuration.virtual_hosts[0];
        let of_routes = host.routes.iter().filter_map(|it| {
            let Some(route::Action::Route(action)) = &it.action else { panic!() };
            action.retry_policy.as_ref()
        });
        let policies: Vec<&RetryPolicy> = of_routes.chain(&host.retry_policy).collect();
        assert_eq!(policies.len(), 2, "{name}: idempotent requests, and all others");
        for policy in policies {
            let [predicate] = &*policy.retry_host_predicate else { panic!("{name}: {policy:?}") };
            let Some(retry_host_predicate::ConfigType::TypedConfig(config)) =
                &predicate.config_type
            else {
                panic!()
            };
            decode_any::<PreviousHostsPredicate>(config);
            // Of two instances the wrong one is drawn again and again less than once in a thousand
            // retries.
            assert!(policy.host_selection_retry_max_attempts >= 10, "{name}");
            assert!(policy.num_retries.unwrap().value >= 3, "{name}");
        }
    }
}

#[test]
fn only_listeners_with_an_address_are_for_everybody() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let told = Told::of(&mesh);
    let of_all = |name| told.0.get(ResourceType::Listener, name).unwrap().in_wildcard();
    assert!(of_all("sidecar/orders"));
    assert!(!of_all("orders"));
}

#[test]
fn every_listener_has_what_envoy_and_grpc_refuse_to_miss() {
    let mut mesh = Mesh::default();
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let told = Told::of(&mesh);

    let sidecar: Listener = told.get(ResourceType::Listener, "sidecar/orders");
    assert_eq!(socket(sidecar.address.as_ref()), "127.0.0.1:21000");
    let filter::ConfigType::TypedConfig(config) =
        sidecar.filter_chains[0].filters[0].config_type.clone().unwrap()
    else {
        panic!()
    };
    let sidecar_manager = decode_any::<HttpConnectionManager>(&config);

    let api: Listener = told.get(ResourceType::Listener, "orders");
    assert_eq!(api.address, None);
    let config = api.api_listener.unwrap().api_listener.unwrap();
    let api_manager = decode_any::<HttpConnectionManager>(&config);

    for manager in [sidecar_manager, api_manager] {
        assert!(!manager.stat_prefix.is_empty());
        let Some(http_connection_manager::RouteSpecifier::Rds(rds)) = manager.route_specifier
        else {
            panic!()
        };
        assert_eq!(rds.route_config_name, "orders");
        assert!(rds.config_source.unwrap().config_source_specifier.is_some());
        let Some(http_filter::ConfigType::TypedConfig(router)) =
            &manager.http_filters.last().unwrap().config_type
        else {
            panic!()
        };
        assert!(router.type_url.ends_with("router.v3.Router"));
    }
}

#[test]
fn tcp_service_is_proxied_byte_by_byte_and_has_no_route() {
    let mut mesh = Mesh::default();
    mesh.register("db", "a", "10.0.0.1:80", 1).unwrap();
    let mut snapshot = Told::of(&mesh).0;
    let mut tcp = instance("db", "a", "10.0.0.1:80", 1);
    tcp.instance.as_mut().unwrap().protocol = "tcp".into();
    mesh.run(Command::RegisterInstance(tcp)).unwrap();
    snapshot = snapshot.with_changes(2, translated(&mesh));
    let told = Told(snapshot);
    assert_eq!(told.names(ResourceType::Listener), ["mesh/outbound", "sidecar/db"]);
    assert_eq!(told.names(ResourceType::Route), ["ingress", "ingress-kv", "mesh/outbound"]);
    assert_eq!(told.routes("ingress"), []);
    let listener: Listener = told.get(ResourceType::Listener, "sidecar/db");
    let Some(filter::ConfigType::TypedConfig(config)) =
        &listener.filter_chains[0].filters[0].config_type
    else {
        panic!()
    };
    assert!(!decode_any::<TcpProxy>(config).stat_prefix.is_empty());
}

#[test]
fn only_http2_services_are_spoken_to_in_http2() {
    let mut mesh = Mesh::default();
    mesh.register("web", "a", "10.0.0.1:80", 1).unwrap();
    let mut grpc = instance("orders", "a", "10.0.0.1:81", 1);
    grpc.instance.as_mut().unwrap().protocol = "http2".into();
    mesh.run(Command::RegisterInstance(grpc)).unwrap();
    let told = Told::of(&mesh);
    let spoken = |name| {
        let cluster = told.get::<Cluster>(ResourceType::Cluster, name);
        let options = cluster.typed_extension_protocol_options.into_values().next().unwrap();
        let options = decode_any::<HttpProtocolOptions>(&options);
        let idle = options.common_http_protocol_options.and_then(|it| it.idle_timeout);
        let Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) =
            options.upstream_protocol_options
        else {
            panic!()
        };
        let http2 =
            matches!(explicit.protocol_config, Some(ProtocolConfig::Http2ProtocolOptions(_)));
        (http2, idle.is_some())
    };
    assert_eq!((spoken("web"), spoken("orders")), ((false, true), (true, false)));
}

/// U12: a stream may be silent for an hour, unless the service says otherwise.
#[test]
fn a_service_may_say_how_long_its_streams_are_silent() {
    for protocol in ["http1", "http2"] {
        let mut mesh = speaking(protocol);
        let idle = |mesh: &Mesh| {
            let routes: RouteConfiguration = Told::of(mesh).get(ResourceType::Route, "orders");
            let actions = routes.virtual_hosts[0].routes.iter().map(|it| it.action.clone());
            let idle = |action| {
                let Some(route::Action::Route(action)) = action else { panic!() };
                action.idle_timeout.map(|it| it.seconds)
            };
            actions.map(idle).collect::<BTreeSet<_>>()
        };
        assert_eq!(idle(&mesh), BTreeSet::from([Some(3600)]), "{protocol}");
        mesh.run(configure(Some(7_200_000), false)).unwrap();
        assert_eq!(idle(&mesh), BTreeSet::from([Some(7200)]), "{protocol}");
        mesh.run(configure(Some(0), false)).unwrap();
        assert_eq!(idle(&mesh), BTreeSet::from([Some(0)]), "{protocol}: zero is for ever");
    }
}

/// U12: connections of a database may be idle overnight.
#[test]
fn a_tcp_connection_may_be_silent_for_ever_unless_its_service_says_otherwise() {
    let mut mesh = speaking("tcp");
    let idle = |mesh: &Mesh| {
        let listener: Listener = Told::of(mesh).get(ResourceType::Listener, "sidecar/orders");
        let Some(filter::ConfigType::TypedConfig(config)) =
            &listener.filter_chains[0].filters[0].config_type
        else {
            panic!()
        };
        decode_any::<TcpProxy>(config).idle_timeout.map(|it| it.seconds)
    };
    assert_eq!(idle(&mesh), Some(0), "none would be Envoy's default of an hour");
    mesh.run(configure(Some(7_200_000), false)).unwrap();
    assert_eq!(idle(&mesh), Some(7200));
    mesh.run(configure(None, false)).unwrap();
    assert_eq!(idle(&mesh), Some(0));
}

/// Finding H: the maps of the Envoy types have a random order, and a new one each time, so no map
/// holds more than one entry.
#[test]
fn a_registry_is_translated_to_the_same_bytes_every_time() {
    let mut mesh = three_nodes();
    mesh.lead(2, 1, 7);
    for (lease_id, protocol) in (1..).zip(["http1", "http2", "tcp"]) {
        for (id, zone) in [("a", "z1"), ("b", "z2")] {
            let address = format!("10.0.{lease_id}.1:{}", if id == "a" { 80 } else { 81 });
            let mut command = placed(id, &address, 5, Health::Healthy, zone);
            command.lease_id = lease_id;
            let it = command.instance.as_mut().unwrap();
            protocol.clone_into(&mut it.service);
            protocol.clone_into(&mut it.protocol);
            for key in ["version", "team"] {
                it.metadata.insert(key.to_owned(), "1".to_owned());
            }
            mesh.run(Command::RegisterInstance(command)).unwrap();
        }
    }
    let first = Told::of(&mesh).0;
    for _ in 0..32 {
        let again = Told::of(&mesh).0;
        use ResourceType::{Cluster, Endpoints, Listener, Route};
        for kind in [Cluster, Endpoints, Listener, Route] {
            let expected: Vec<_> = first.resources(kind).collect();
            assert_eq!(again.resources(kind).collect::<Vec<_>>(), expected);
            assert!(expected.len() > 2, "{kind}: {expected:?}");
        }
    }
}

#[test]
fn removed_service_takes_its_resources_along() {
    let mut mesh = Mesh::default();
    let before = Told::of(&mesh);
    let kinds = ResourceType::all();
    let names = |it: &Told| kinds.map(|kind| it.names(kind));
    mesh.register("orders", "a", "10.0.0.1:80", 1).unwrap();
    let mut snapshot = Told::of(&mesh).0;
    let name = "orders".to_owned();
    mesh.run(Command::RemoveService(RemoveService { name, force: true, if_empty: false })).unwrap();
    snapshot = snapshot.with_changes(2, translated(&mesh));
    let after = Told(snapshot);
    assert_eq!(names(&after), names(&before));
    assert_eq!(after.routes("ingress"), []);
}

fn route(domain: &str, header: &str, to: &str) -> (String, String, String) {
    (domain.to_owned(), header.to_owned(), to.to_owned())
}

fn configure(stream_idle_ms: Option<u64>, try_unhealthy: bool) -> Command {
    set(ServiceOptions { stream_idle_ms, try_unhealthy, ..ServiceOptions::default() })
}

fn set(options: ServiceOptions) -> Command {
    Command::ConfigureService(ConfigureService {
        name: "orders".to_owned(),
        options: Some(options),
        ..ConfigureService::default()
    })
}

/// One instance of `orders`.
fn speaking(protocol: &str) -> Mesh {
    let mut mesh = Mesh::default();
    let mut command = instance("orders", "a", "10.0.0.1:80", 1);
    command.instance.as_mut().unwrap().protocol = protocol.to_owned();
    mesh.run(Command::RegisterInstance(command)).unwrap();
    mesh
}

fn three_nodes() -> Mesh {
    let mut mesh = Mesh::default();
    mesh.nodes(3);
    mesh.decide("default", &[1, 2, 3]).unwrap();
    mesh
}

fn placed(id: &str, address: &str, weight: u32, health: Health, zone: &str) -> RegisterInstance {
    let mut command = instance("orders", id, address, 1);
    let it = command.instance.as_mut().unwrap();
    it.weight = weight;
    it.set_health(health);
    it.locality = Some(WireLocality { region: String::new(), zone: zone.to_owned() });
    command
}

/// The resources of a registry, decoded.
struct Told(Snapshot);

impl Told {
    fn of(mesh: &Mesh) -> Self {
        Self(Snapshot::empty().with_changes(1, Translator::default().translate_all(&mesh.registry)))
    }

    fn names(&self, kind: ResourceType) -> Vec<String> {
        self.0.resources(kind).map(|it| it.name().to_string()).collect()
    }

    fn get<M: Message + Name + Default>(&self, kind: ResourceType, name: &str) -> M {
        let resource = self.0.get(kind, name).unwrap();
        let wrapped = WireResource::decode(resource.wrapped()).unwrap();
        decode_any(&wrapped.resource.unwrap())
    }

    /// Each locality as `priority zone weight: address health weight, …`.
    fn endpoints(&self, name: &str) -> Vec<String> {
        let assignment: ClusterLoadAssignment = self.get(ResourceType::Endpoints, name);
        assert_eq!(assignment.cluster_name, name);
        assignment.endpoints.iter().map(describe_locality).collect()
    }

    /// For each route: its domain, the header value that it requires, and its target.
    fn routes(&self, name: &str) -> Vec<(String, String, String)> {
        let configuration: RouteConfiguration = self.get(ResourceType::Route, name);
        let mut routes = Vec::new();
        for host in &configuration.virtual_hosts {
            assert!(!host.name.is_empty());
            for (domain, route) in
                host.domains.iter().flat_map(|it| host.routes.iter().map(move |route| (it, route)))
            {
                let to = route.action.as_ref().map(target).unwrap();
                let matched = route.r#match.as_ref().unwrap();
                assert!(matched.path_specifier.is_some());
                let header = matched.headers.first().map(header_value).unwrap_or_default();
                routes.push((domain.clone(), header, to));
            }
        }
        routes
    }
}

fn describe_locality(
    it: &envoy_types::pb::envoy::config::endpoint::v3::LocalityLbEndpoints,
) -> String {
    let endpoints: Vec<_> = it
        .lb_endpoints
        .iter()
        .map(|endpoint| {
            let health = HealthStatus::try_from(endpoint.health_status).unwrap();
            let Some(HostIdentifier::Endpoint(host)) = &endpoint.host_identifier else { panic!() };
            let weight = endpoint.load_balancing_weight.unwrap().value;
            format!("{} {health:?} {weight}", socket(host.address.as_ref()))
        })
        .collect();
    let zone = &it.locality.as_ref().unwrap().zone;
    let weight = it.load_balancing_weight.unwrap().value;
    format!("{} {zone} {weight}: {}", it.priority, endpoints.join(", "))
}

fn target(action: &route::Action) -> String {
    if let route::Action::DirectResponse(it) = action {
        return format!("answer {}", it.status);
    }
    let route::Action::Route(action) = action else { panic!() };
    let Some(route_action::ClusterSpecifier::Cluster(cluster)) = &action.cluster_specifier else {
        panic!()
    };
    cluster.clone()
}

/// The value that a namespace's header must have; `idempotent` if the method must be that.
fn header_value(matcher: &envoy_types::pb::envoy::config::route::v3::HeaderMatcher) -> String {
    let Some(header_matcher::HeaderMatchSpecifier::StringMatch(string)) =
        &matcher.header_match_specifier
    else {
        panic!()
    };
    match (&*matcher.name, &string.match_pattern) {
        ("quorate-namespace", Some(MatchPattern::Exact(value))) => value.clone(),
        (":method", Some(MatchPattern::SafeRegex(it))) if it.regex == IDEMPOTENT_METHODS => {
            "idempotent".to_owned()
        }
        other => panic!("{other:?}"),
    }
}

fn socket(address: Option<&envoy_types::pb::envoy::config::core::v3::Address>) -> String {
    let Some(address::Address::SocketAddress(socket)) = &address.unwrap().address else { panic!() };
    let Some(PortSpecifier::PortValue(port)) = socket.port_specifier else { panic!() };
    format!("{}:{port}", socket.address)
}

fn decode_any<M: Message + Name + Default>(any: &envoy_types::pb::google::protobuf::Any) -> M {
    assert_eq!(any.type_url, M::type_url());
    M::decode(any.value.as_slice()).unwrap()
}

fn describe(change: &ResourceChange) -> String {
    match change {
        ResourceChange::Put(it) => format!("put {} {}", it.kind(), it.name()),
        ResourceChange::Remove(kind, name) => format!("remove {kind} {name}"),
    }
}

/// The changes of the last command, from a translator that has translated everything before.
fn translated(mesh: &Mesh) -> Vec<ResourceChange> {
    let mut translator = Translator::default();
    translator.translate_all(&mesh.registry);
    translator.translate(&mesh.registry, &mesh.touched)
}
