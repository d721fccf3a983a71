//! What etcd answers over plain HTTP on its client port: `/health` and `/version`, which load
//! balancers and people with curl ask.

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use node::etcd::ETCD_VERSION;
use serde_json::{Value, json};

use super::readiness::Readiness;

/// The version of the API that all members have in common, in etcd's words.
const CLUSTER_VERSION: &str = "3.5.0";

pub(super) fn router(readiness: &Readiness) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/version", get(version))
        .with_state(readiness.clone())
}

/// etcd's form: the verdict is a text.
async fn health(State(readiness): State<Readiness>) -> impl IntoResponse {
    let reasons = readiness.kv_reasons();
    if reasons.is_empty() {
        return (StatusCode::OK, Json(json!({ "health": "true" })));
    }
    let body = json!({ "health": "false", "reason": reasons.join("; ") });
    (StatusCode::SERVICE_UNAVAILABLE, Json(body))
}

async fn version() -> Json<Value> {
    Json(json!({ "etcdserver": ETCD_VERSION, "etcdcluster": CLUSTER_VERSION }))
}
