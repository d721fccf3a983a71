//! A lost quorum is seen wherever one looks, and asked-for things fail soon, with the reason.

use std::time::Duration;

use harness::{
    Server, cli, eventually, eventually_some, http,
    kv::channel,
    wait::{LATE, SOON},
};
use proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use tempfile::TempDir;
use tonic::{Code, Request, Status};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

use crate::modes::{all_are_ready, leader, started};

/// Far longer than anybody is to wait: who fails for want of a quorum does not use it up.
const CALLERS_DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_last_follower_says_that_there_is_no_quorum() {
    a_lost_quorum_shows(false).await;
}

#[tokio::test]
async fn the_last_leader_says_that_there_is_no_quorum() {
    a_lost_quorum_shows(true).await;
}

async fn a_lost_quorum_shows(leads: bool) {
    let directory = TempDir::new().unwrap();
    let mut servers = started(directory.path(), "all");
    harness::mesh::form(&crate::modes::addresses(&servers)).await;
    all_are_ready(&servers).await;
    let found = async || leader(&servers).await;
    let led = eventually_some("one of them leads", LATE, found).await;
    let left = if leads { led } else { (led + 1) % servers.len() };
    for position in (0..servers.len()).filter(|it| *it != left) {
        servers[position].kill();
    }
    let last = &servers[left];

    let reasons = [
        "namespace default has no quorum",
        "the disco group has no quorum",
        "no quorum: last heard from a majority",
    ];
    let tells = async || {
        let ready = http::get(last.admin(), "admin", "/ready").await.unwrap();
        ready.status == 503 && reasons.iter().all(|it| ready.body.contains(it))
    };
    eventually("it is not ready and says why", LATE, tells).await;
    for namespace in ["default", "disco"] {
        let label = format!("{{namespace=\"{namespace}\"}}");
        let has_leader = metric(last, &format!("quorate_raft_has_leader{label}")).await;
        assert!(has_leader.abs() < f64::EPSILON, "{namespace}: {has_leader}");
        let age = metric(last, &format!("quorate_raft_quorum_age_seconds{label}")).await;
        assert!(age > 1.0, "{namespace}: {age}");
    }
    the_kv_port_says_so(last).await;
    let disco = last.mesh().to_string();
    let shows = async || {
        let shown = cli::quorate(&["group", "show", "default", "--disco", &disco]).await;
        let is_down = shown.stdout.lines().filter(|line| line.contains("down")).count();
        (shown.code == 5 && is_down == 2).then_some(shown)
    };
    let shown = eventually_some("the group is shown to be ill", LATE, shows).await;
    assert!(shown.stderr.contains("no quorum: last heard from a majority"), "{shown:?}");

    let are_down = async || {
        let told = cli::quorate(&["members", "--disco", &disco, "--format", "json"]).await.json();
        let members = told["members"].as_array().unwrap();
        members.iter().filter(|it| it["state"] == "down").count() == 2
    };
    eventually("the dead servers are listed as down", LATE, are_down).await;

    let register = ["register", "--service", "late", "--address", "127.0.0.1:1", "--timeout", "6s"];
    let registered = cli::quorate(&[&register[..], &["--disco", &disco]].concat()).await;
    assert_eq!(registered.code, 4, "{registered:?}");
    assert!(registered.stderr.contains("quorum"), "{registered:?}");

    for server in servers.iter_mut().filter(|it| !it.is_running()) {
        server.start();
    }
    all_are_ready(&servers).await;
    let reads = async || get(&servers[left]).await.is_ok();
    eventually("what was refused is done again", SOON, reads).await;
    let serves = async || health(&servers[left]).await == ServingStatus::Serving;
    eventually("the KV port is healthy", SOON, serves).await;
    let well =
        async || cli::quorate(&["group", "show", "default", "--disco", &disco]).await.code == 0;
    eventually("the group is shown to be well", LATE, well).await;
}

/// U1: whoever asks the KV port is told, in the words that each of them knows.
async fn the_kv_port_says_so(last: &Server) {
    for failure in [get(last).await.unwrap_err(), put(last).await.unwrap_err()] {
        assert_eq!(failure.code(), Code::Unavailable, "{failure}");
        assert!(failure.message().contains("no quorum: last heard from a majority"), "{failure}");
        assert!(failure.message().contains("voters: "), "{failure}");
    }
    assert_eq!(health(last).await, ServingStatus::NotServing);
    let over_http = http::get(last.kv(), "kv", "/health").await.unwrap();
    assert_eq!(over_http.status, 503, "{over_http:?}");
    assert!(over_http.body.contains("namespace default has no quorum"), "{over_http:?}");
    let told = cli::etcdctl(last.kv(), &["endpoint", "status", "--write-out", "json"]).await.json();
    let status = &told[0]["Status"];
    assert_eq!(status["leader"].as_u64().unwrap_or_default(), 0, "{told}");
    assert_eq!(status["errors"][0], "etcdserver: no leader", "{told}");
}

/// As gRPC's own health checks ask the KV port.
async fn health(server: &Server) -> ServingStatus {
    let request = patient(HealthCheckRequest::default());
    let reply = HealthClient::new(channel(server.kv())).check(request).await.unwrap();
    reply.into_inner().status()
}

async fn get(server: &Server) -> Result<(), Status> {
    let request = RangeRequest { key: "a".into(), ..RangeRequest::default() };
    KvClient::new(channel(server.kv())).range(patient(request)).await.map(drop)
}

async fn put(server: &Server) -> Result<(), Status> {
    let request = PutRequest { key: "a".into(), ..PutRequest::default() };
    KvClient::new(channel(server.kv())).put(patient(request)).await.map(drop)
}

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(CALLERS_DEADLINE);
    request
}

async fn metric(server: &Server, name: &str) -> f64 {
    let text = http::get(server.admin(), "admin", "/metrics").await.unwrap().body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}
