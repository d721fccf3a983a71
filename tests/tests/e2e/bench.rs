//! `quorate bench xds`: that its figures are there and count right. How large they are is no test's
//! matter.

use harness::{Mesh, address::list, cli::quorate};
use serde_json::Value;

#[tokio::test]
async fn a_server_of_its_own_is_measured_in_both_variants() {
    for variant in ["delta", "sotw"] {
        let load = ["--clients", "9", "--connections", "4", "--clusters", "6", "--endpoints", "2"];
        let changes = ["--changes", "4", "--changing", "2", "--watch", "200ms"];
        let report =
            bench(&[&["--self", "--variant", variant], &load[..], &changes].concat()).await;
        assert_eq!(text(&report, "/variant"), variant);
        let counted = ["/clients", "/connections", "/clusters", "/registration/instances"];
        assert_eq!(counted.map(|it| number(&report, it)), [9.0, 4.0, 6.0, 12.0], "{report}");
        let whole = ["/first_sync/synced", "/changes/made", "/changes/arrivals"];
        // Every client has every change.
        assert_eq!(whole.map(|it| number(&report, it)), [9.0, 4.0, 36.0], "{report}");
        let missed = ["/changes/failed", "/changes/incomplete", "/lost/streams", "/lost/late"];
        assert_eq!(missed.map(|it| number(&report, it)), [0.0; 4], "{report}");
        for measured in [
            "/registration/took_ms",
            "/first_sync/took_ms",
            "/first_sync/client_ms/p99",
            "/first_sync/bytes_a_client",
            "/first_sync/server_cpu_ms",
            "/first_sync/server_resident_kib",
            "/watch/took_ms",
            "/changes/to_last_client_ms/p50",
            "/changes/to_a_client_ms/max",
            "/changes/bytes_a_client_and_change",
            "/changes/server_cpu_ms_a_change",
            "/bare_writes/took_ms",
        ] {
            assert!(number(&report, measured) > 0.0, "{measured}: {report}");
        }
        assert!(number(&report, "/watch/server_cpu_percent") >= 0.0, "{report}");
    }
}

#[tokio::test]
async fn only_the_interested_get_the_changes() {
    let load =
        ["--self", "--clients", "8", "--clusters", "6", "--endpoints", "1", "--changes", "3"];
    let report = bench(&[&load[..], &["--interested", "2"]].concat()).await;
    assert_eq!(number(&report, "/changes/arrivals"), 6.0, "{report}");
    assert_eq!(number(&report, "/changes/responses"), 6.0, "{report}");
    // At a rate, with a part of the names for each: 8 clients of 3 among 6 names are 4 a name.
    let paced = ["--subscribe", "3", "--rate", "200", "--changes", "60"];
    let report = bench(&[&load[..7], &paced].concat()).await;
    assert_eq!(number(&report, "/changes/made"), 60.0, "{report}");
    assert_eq!(number(&report, "/changes/arrivals"), 240.0, "{report}");
}

#[tokio::test]
async fn running_servers_are_measured_and_left_as_they_were() {
    let mesh = Mesh::start(1, 0).await;
    let mut registry = mesh.registry();
    for port in 1..=3 {
        registry.register("orders", format!("10.0.0.1:{port}").parse().unwrap()).await.unwrap();
    }
    let (server, pid) = (list(&mesh.disco_addresses()), mesh.disco[0].id().unwrap().to_string());
    let load = ["--clients", "4", "--clusters", "3", "--changes", "2", "--pid", &pid];
    let report = bench(&[&["--registry", &server], &load[..]].concat()).await;
    assert_eq!(number(&report, "/changes/arrivals"), 8.0, "{report}");
    assert_eq!(number(&report, "/clusters"), 4.0, "beside those that were there: {report}");
    assert!(number(&report, "/first_sync/server_cpu_ms") > 0.0, "{report}");
    let left = registry.services().await.unwrap();
    assert_eq!(left.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["orders"]);

    // As a control plane that only its own program can change.
    let binary = harness::cli::binary();
    let command = format!(
        "{} deregister --disco {server} --service orders --id 10.0.0.1:$BENCH_CHANGE",
        binary.display()
    );
    let load = ["--clients", "4", "--changes", "2", "--change-command", &command];
    let report =
        bench(&[&["--server", &server, "--change-names", "orders"], &load[..]].concat()).await;
    assert_eq!(number(&report, "/changes/arrivals"), 8.0, "{report}");
    assert!(report["registration"].is_null() && report["first_sync"]["server_cpu_ms"].is_null());
}

#[tokio::test]
async fn what_cannot_be_measured_is_told_with_the_reason() {
    let nobody = quorate(&["bench", "xds", "--server", "127.0.0.1:1"]).await;
    assert_eq!(nobody.code, 4, "{nobody:#?}");
    assert!(nobody.stderr.contains("127.0.0.1:1 does not answer"), "{nobody:#?}");
    let nothing = quorate(&["bench", "xds"]).await;
    assert_eq!(nothing.code, 2, "{nothing:#?}");
    assert!(nothing.stderr.contains("--self"), "{nothing:#?}");
    // One connection may not have so many streams, so some of the clients are refused.
    let load = ["--clients", "300", "--connections", "1", "--clusters", "1", "--changes", "0"];
    let args = [&["bench", "xds", "--self", "--format", "json"], &load[..]].concat();
    let output = quorate(&args).await;
    assert_eq!(output.code, 5, "{output:#?}");
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let (synced, lost) = (number(&report, "/first_sync/synced"), number(&report, "/lost/streams"));
    assert_eq!(synced + lost, 300.0, "{report}");
    let reasons = report["lost"]["reasons"].as_object().unwrap();
    assert!(reasons.keys().any(|it| it.contains("which is the limit")), "{report}");
}

/// The report of a measurement at which nobody was lost.
async fn bench(args: &[&str]) -> Value {
    quorate(&[&["bench", "xds", "--format", "json"], args].concat()).await.json()
}

#[track_caller]
fn number(report: &Value, pointer: &str) -> f64 {
    let value = report.pointer(pointer).and_then(Value::as_f64);
    value.unwrap_or_else(|| panic!("no number at {pointer}: {report}"))
}

fn text<'a>(report: &'a Value, pointer: &str) -> &'a str {
    report.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}
