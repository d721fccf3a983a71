use std::path::Path;

use super::*;

#[test]
fn a_sidecar_subscribes_to_listeners_and_takes_calls_for_its_application() {
    let role = Role::Sidecar {
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
fn a_text_cannot_leave_its_place() {
    assert_eq!(quoted("a\"\n: {"), r#""a\"\n: {""#);
}

fn bootstrap(service: &str, variant: Variant, role: Role) -> Bootstrap {
    Bootstrap {
        node_id: format!("{service}-1"),
        service: service.to_owned(),
        region: String::new(),
        zone: "a".to_owned(),
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
