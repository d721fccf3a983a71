//! Who is at the other end of a connection: the only place where a connection gets its identity.
//!
//! Every request carries a [`Peer`] as an extension. Connections are not authenticated yet, so all
//! that is known is the address; certificates will be read here.

use std::net::SocketAddr;

use axum::{
    extract::{ConnectInfo, Request as HttpRequest},
    middleware::Next,
    response::Response as HttpResponse,
};
use mesh::hangup::Line;
use tonic::{Request, Status};

use crate::listener::Caller;

/// The caller of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Nobody that we know, from this address.
    Anonymous(Option<SocketAddr>),
}

/// Gives a gRPC request the identity of its connection.
pub(crate) fn identify(mut request: Request<()>) -> Result<Request<()>, Status> {
    let address = request.extensions().get::<Line>().and_then(|it| it.remote);
    request.extensions_mut().insert(Peer::Anonymous(address));
    Ok(request)
}

/// The same for a request over plain HTTP.
pub(crate) async fn identify_http(
    ConnectInfo(Caller(address)): ConnectInfo<Caller>,
    mut request: HttpRequest,
    next: Next,
) -> HttpResponse {
    request.extensions_mut().insert(Peer::Anonymous(Some(address)));
    next.run(request).await
}
