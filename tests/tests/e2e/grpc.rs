//! A gRPC client without a proxy: gRPC's own Python library dials `xds:///SERVICE`.

use harness::{
    Mesh, Process, cli, eventually,
    kv::Kv,
    wait::{LATE, SOON},
};
use tokio::process::Command;

#[tokio::test]
async fn a_grpc_client_finds_a_service_without_a_proxy() {
    let mesh = Mesh::start(1, 3).await;
    let mut client = Kv::at(mesh.data[0].kv());
    eventually("the node serves", LATE, async || client.status().await.is_ok()).await;
    let disco = mesh.disco[0].mesh().to_string();
    let kv = mesh.data[0].kv().to_string();
    let service = ["register", "--service", "store", "--protocol", "http2"];
    let place = ["--address", &kv, "--check", "tcp", "--disco", &disco];
    let args: Vec<String> = service.iter().chain(&place).map(|arg| (*arg).to_owned()).collect();
    let _registrar = Process::start("registrar", mesh.path(), cli::binary(), &args);
    let listed = async || cli::quorate(&["endpoints", "store", "--disco", &disco]).await.code == 0;
    eventually("the service is registered", SOON, listed).await;
    let bootstrap = serde_json::json!({
        "xds_servers": [{
            "server_uri": disco,
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }],
        "node": {"id": "proxyless"},
    });
    let mut client = Command::new(cli::python());
    client
        .env("GRPC_XDS_BOOTSTRAP_CONFIG", bootstrap.to_string())
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/e2e/xds_client.py"))
        .args(["store", "3"]);
    let answers = cli::finish(client).await.ok();
    assert_eq!(answers.lines().count(), 3, "{answers}");
    assert!(answers.lines().all(|bytes| bytes != "0"), "{answers}");
}
