//! Servers that will not come back and services that are not needed are removed by name, and the mesh
//! goes on without them.

use harness::{
    Mesh, cli, eventually,
    wait::{LATE, SOON, eventually_eq},
};
use serde_json::Value;

#[tokio::test]
async fn a_dead_server_is_removed_and_a_live_one_is_not() {
    let mut mesh = Mesh::start_with_front(3, 3).await;
    let disco = harness::address::list(&mesh.disco_addresses());
    let listed = async || names(&cli::quorate(&["members", "--disco", &disco]).await.ok());
    let sorted = ["data-1", "data-2", "data-3", "disco-1", "disco-2", "disco-3"];
    let sorted = sorted.map(str::to_owned).to_vec();
    eventually_eq("members are listed by name", LATE, sorted, listed).await;
    let remove = async |name| cli::quorate(&["member", "remove", name, "--disco", &disco]).await;
    for alive in ["disco-3", "data-3"] {
        let refused = remove(alive).await;
        assert_eq!(refused.code, 7, "{refused:?}");
        assert!(refused.stderr.contains("alive"), "{refused:?}");
    }
    assert_eq!(remove("nobody").await.code, 3);

    mesh.disco[2].kill();
    mesh.data[2].kill();
    for (dead, left) in [("disco-3", false), ("data-3", true)] {
        let removed = async || remove(dead).await.code == 0;
        eventually("the dead server is removed", LATE, removed).await;
        let members =
            cli::quorate(&["members", "--format", "json", "--disco", &disco]).await.json();
        let state = |it: &Value| (it["name"] == dead).then(|| it["state"].clone());
        let state = members["members"].as_array().unwrap().iter().find_map(state);
        // Its group of three has nobody to replace it with, and counts it for the time being.
        assert_eq!(state, left.then(|| Value::from("removed")), "{members}");
    }
    // Two voters are left, and both are needed: DISCO counts no third one any more.
    let shown = cli::quorate(&["status", "--format", "json", "--disco", &disco]).await;
    let status: Value = serde_json::from_str(&shown.stdout).unwrap();
    assert_eq!(status["disco"]["servers"], 2, "{status}");
    mesh.registry().register("late", "127.0.0.1:1".parse().unwrap()).await.unwrap();
}

/// Finding M: what nobody needs any more is forgotten by the registry and by every Envoy.
#[tokio::test]
async fn a_removed_service_is_gone_from_envoy_too() {
    let mut mesh = Mesh::start(1, 0).await;
    mesh.add_front().await;
    let disco = harness::address::list(&mesh.disco_addresses());
    let ask = async |args: &[&str]| cli::quorate(&[args, &["--disco", &disco]].concat()).await;
    for service in ["gone", "kept"] {
        mesh.registry().register(service, "127.0.0.1:1".parse().unwrap()).await.unwrap();
    }
    let known = async || {
        let clusters = mesh.front().clusters().await;
        ["gone", "kept"].map(|name| clusters.contains_key(name))
    };
    eventually_eq("Envoy knows both", SOON, [true, true], known).await;

    let refused = ask(&["service", "remove", "gone"]).await;
    assert_eq!(refused.code, 7, "it has a live instance: {refused:?}");
    assert!(refused.stderr.contains("--force"), "{refused:?}");
    let removed = ask(&["service", "remove", "gone", "--force"]).await.ok();
    assert_eq!(removed, "removed service gone\n");
    eventually_eq("Envoy forgets it", LATE, [false, true], known).await;
    let listed = ask(&["services", "--format", "json"]).await.json();
    let left: Vec<&Value> =
        listed["services"].as_array().unwrap().iter().map(|it| &it["name"]).collect();
    assert_eq!(left, ["kept"]);
    assert_eq!(ask(&["service", "remove", "gone"]).await.code, 3, "it is not there any more");
}

/// The names in a table of members: the second column, below what answered and what the columns are.
fn names(table: &str) -> Vec<String> {
    let rows = table.lines().skip(2);
    rows.filter_map(|row| row.split_whitespace().nth(1)).map(str::to_owned).collect()
}
