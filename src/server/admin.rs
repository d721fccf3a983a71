//! Admin HTTP: `/healthz` (the process lives), `/ready` (it can work, or why not), `/metrics`
//! (Prometheus) and `/v1/status`.

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use raft::{Group, Quorum, Status};
use serde_json::{Value, json};

use super::{Server, metrics, readiness::Readiness};
use crate::output::{known, node_id};

#[derive(Clone)]
struct Admin {
    server: Server,
    readiness: Readiness,
}

pub(super) fn router(server: Server, readiness: Readiness) -> Router {
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics_text))
        .route("/v1/status", get(status))
        .with_state(Admin { server, readiness })
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    let reasons = admin.readiness.reasons();
    let code = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let groups: Vec<_> =
        admin.server.host.groups().iter().map(|it| quorum_json(&admin, it)).collect();
    let body = json!({ "ready": reasons.is_empty(), "reasons": reasons, "groups": groups });
    (code, Json(body))
}

/// Whether a group has a quorum, and if not, since when and who is silent.
fn quorum_json(admin: &Admin, group: &Group) -> Value {
    let status = group.status();
    let own_id = admin.server.host.identity().node_id;
    let lost = (status.quorum != Quorum::Held).then(|| status.no_quorum(own_id).to_string());
    json!({
        "namespace": group.namespace(),
        "quorum": status.quorum.as_str(),
        "quorum_age_ms": status.quorum_age.map(|age| age.as_millis()),
        "no_quorum": lost,
    })
}

async fn metrics_text(State(admin): State<Admin>) -> impl IntoResponse {
    let text = metrics::render(&admin.server, admin.readiness.reasons().is_empty());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

async fn status(State(admin): State<Admin>) -> Json<Value> {
    let Server { config, host, .. } = &admin.server;
    let identity = host.identity();
    let reasons = admin.readiness.reasons();
    let groups: Vec<_> = host
        .groups()
        .into_iter()
        .map(|group| group_json(group.id(), group.namespace(), &group.status()))
        .collect();
    Json(json!({
        "version": env!("QUORATE_VERSION"),
        "mesh_id": host.mesh().watch_id().borrow().as_ref().map(ToString::to_string),
        "node_id": node_id(identity.node_id),
        "boot_epoch": identity.boot_epoch,
        "name": config.name,
        "services": config.service_names(),
        "region": known(&config.region),
        "zone": known(&config.zone),
        "mesh_address": config.advertise.to_string(),
        "kv_address": config.kv.map(|kv| kv.advertise.to_string()),
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "groups": groups,
    }))
}

fn group_json(id: u32, namespace: &str, status: &Status) -> Value {
    let members: Vec<_> = status
        .members
        .iter()
        .map(|member| {
            json!({
                "node_id": node_id(member.node_id),
                "voter": member.voter,
                "lag": member.lag,
                "heard_ms_ago": member.heard.map(|ago| ago.as_millis()),
            })
        })
        .collect();
    json!({
        "group": id,
        "namespace": namespace,
        "role": status.role.as_str(),
        "term": status.term,
        "leader": status.leader.map(node_id),
        "last_index": status.last_index,
        "committed_index": status.committed,
        "applied_index": status.applied,
        "quorum": status.quorum.as_str(),
        "quorum_age_ms": status.quorum_age.map(|age| age.as_millis()),
        "members": members,
    })
}
