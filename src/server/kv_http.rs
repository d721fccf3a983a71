//! What etcd answers over plain HTTP on its client port: `/health` and `/version`, which load
//! balancers and people with curl ask.

use axum::{
    Json, Router,
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::get,
};
use node::etcd::ETCD_VERSION;
use serde_json::{Value, json};
use tonic::Status;

use super::readiness::Readiness;

/// The version of the API that all members have in common, in etcd's words.
const CLUSTER_VERSION: &str = "3.5.0";

pub(super) fn router(readiness: &Readiness) -> Router {
    Router::new()
        .route("/health", get(health))
        .route("/version", get(version))
        .with_state(readiness.clone())
}

/// What is neither a path nor a gRPC method here, in the words of whoever asked.
pub(super) async fn unknown(request: Request) -> Response {
    let kind = request.headers().get(CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc")) {
        return Status::unimplemented("").into_http::<Body>();
    }
    (StatusCode::NOT_FOUND, "there are /health and /version, and gRPC\n").into_response()
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
