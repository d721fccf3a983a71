//! Servers that will not come back are removed by name, and the mesh goes on without them.

use harness::{Mesh, cli, eventually, wait::LATE};
use serde_json::Value;

#[tokio::test]
async fn a_dead_server_is_removed_and_a_live_one_is_not() {
    let mut mesh = Mesh::start_with_front(3, 3).await;
    let disco = harness::address::list(&mesh.disco_addresses());
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
