use std::path::Path;

use super::*;

#[test]
fn a_sidecar_subscribes_to_listeners_and_takes_calls_for_its_application() {
    let role = Role::Sidecar {
        outbound: true,
        inbound: Some(Inbound {
            listen: SocketAddr::from(([0, 0, 0, 0], 8080)),
            application: SocketAddr::from(([127, 0, 0, 1], 3000)),
        }),
    };
    compare("sidecar.yaml", &bootstrap("web", Variant::Delta, role));
}

#[test]
fn a_front_proxy_has_the_two_ports_at_which_callers_enter() {
    let role = Role::Front {
        http: SocketAddr::from(([0, 0, 0, 0], 8080)),
        kv: SocketAddr::from(([0, 0, 0, 0], 2379)),
    };
    compare("front.yaml", &bootstrap("front", Variant::Sotw, role));
}

#[test]
fn a_sidecar_without_local_ports_subscribes_to_no_listeners() {
    let role = |outbound| Role::Sidecar { inbound: None, outbound };
    let text = |outbound| bootstrap("web", Variant::Delta, role(outbound)).to_string();
    assert!(text(true).contains("lds_config"));
    assert!(!text(false).contains("lds_config"));
}

/// The other half of the rule is checked where DISCO's own resources are made.
#[test]
fn no_service_can_have_the_name_of_what_is_static() {
    let ip = SocketAddr::from(([127, 0, 0, 1], 1));
    let inbound = Some(Inbound { listen: ip, application: ip });
    let mut names = Vec::new();
    for role in [Role::Sidecar { inbound, outbound: true }, Role::Front { http: ip, kv: ip }] {
        // Neither is a resource: the node's own `cluster`, and filters, whose names have dots.
        let text = bootstrap("orders", Variant::Delta, role).to_string();
        for line in text.lines().filter(|line| !line.starts_with("  cluster:")) {
            let line = line.trim_start_matches([' ', '-']);
            for key in ["name: ", "cluster: ", "cluster_name: ", "route_config_name: "] {
                names.extend(line.strip_prefix(key).map(str::to_owned));
            }
        }
    }
    assert!(names.len() > 10, "{names:?}");
    let free: Vec<_> =
        names.iter().filter(|name| discovery::registry::may_be_registered(name)).collect();
    assert_eq!(free, Vec::<&String>::new());
}

#[test]
fn a_text_cannot_leave_its_place() {
    assert_eq!(quoted("a\"\n: {"), r#""a\"\n: {""#);
}

/// D12: an Envoy whose DISCO addresses went to another mesh keeps what it has.
#[test]
fn the_mesh_stands_in_the_nodes_metadata_if_it_is_known() {
    let role = Role::Sidecar { inbound: None, outbound: false };
    let unknown = bootstrap("web", Variant::Delta, role);
    assert!(!unknown.to_string().contains("metadata"));
    let known = Bootstrap { mesh: "0190".to_owned(), ..unknown };
    let text = known.to_string();
    assert!(text.contains("  metadata:\n    quorate: {mesh: \"0190\"}\nadmin:"), "{text}");
}

fn bootstrap(service: &str, variant: Variant, role: Role) -> Bootstrap {
    Bootstrap {
        node_id: format!("{service}-1"),
        service: service.to_owned(),
        region: String::new(),
        zone: "a".to_owned(),
        mesh: String::new(),
        disco: vec![
            SocketAddr::from(([10, 0, 0, 1], 7400)),
            SocketAddr::from(([10, 0, 0, 2], 7400)),
        ],
        admin: SocketAddr::from(([127, 0, 0, 1], 9901)),
        variant,
        role,
    }
}

/// Compares with the file of that name; `UPDATE_GOLDENFILES=1` writes it.
fn compare(name: &str, bootstrap: &Bootstrap) {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cli/envoy/bootstrap/golden").join(name);
    let text = bootstrap.to_string();
    if std::env::var_os("UPDATE_GOLDENFILES").is_some() {
        std::fs::create_dir_all(path.parent().expect("the path has a parent")).expect("writable");
        std::fs::write(&path, &text).expect("writable");
    }
    let golden = std::fs::read_to_string(&path).expect("the golden file is there");
    assert_eq!(text, golden, "differs from {}", path.display());
}
