//! The two variants of the protocol, as types.

use discovery::{
    lease::Time,
    snapshot::Snapshot,
    stream::{self, Claim, DeltaMessage, Response, SotwMessage, Stream, Violation},
};
use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest},
};
use prost::Message;

/// What differs between the variants: the messages, and which method of the machine takes them.
pub(super) trait ProtocolVariant: Send + 'static {
    /// The variant's name in traces.
    const NAME: &'static str;
    const VARIANT: stream::ProtocolVariant;
    type Request: Message + Default + 'static;
    type Response: Message + Default + 'static;

    fn handle(
        stream: &mut Stream,
        request: Self::Request,
        snapshot: &Snapshot,
        now: Time,
    ) -> Result<Vec<Response>, Violation>;

    fn message(response: &Response) -> Self::Response;

    /// The client's node, which a stream needs to name only once.
    fn node(request: &Self::Request) -> Option<&Node>;

    /// The type that the request is of.
    fn type_url(request: &Self::Request) -> &str;

    /// The id of the client, if the request gives it.
    fn client(request: &Self::Request) -> Option<&str>;

    /// What the client holds from another stream, if the request is the first of its type.
    fn claim(request: &Self::Request, snapshot: &Snapshot) -> Claim;
}

pub(super) enum Delta {}

pub(super) enum Sotw {}

impl ProtocolVariant for Delta {
    const NAME: &'static str = "delta";
    const VARIANT: stream::ProtocolVariant = stream::ProtocolVariant::Delta;
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaMessage;

    fn handle(
        stream: &mut Stream,
        request: DeltaDiscoveryRequest,
        snapshot: &Snapshot,
        now: Time,
    ) -> Result<Vec<Response>, Violation> {
        stream.handle_delta(request, snapshot, now)
    }

    fn message(response: &Response) -> DeltaMessage {
        response.to_delta()
    }

    fn node(request: &DeltaDiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &DeltaDiscoveryRequest) -> &str {
        &request.type_url
    }

    fn client(request: &DeltaDiscoveryRequest) -> Option<&str> {
        request.node.as_ref().map(|it| it.id.as_str())
    }

    fn claim(request: &DeltaDiscoveryRequest, snapshot: &Snapshot) -> Claim {
        Claim::of_delta(request, snapshot)
    }
}

impl ProtocolVariant for Sotw {
    const NAME: &'static str = "sotw";
    const VARIANT: stream::ProtocolVariant = stream::ProtocolVariant::Sotw;
    type Request = DiscoveryRequest;
    type Response = SotwMessage;

    fn handle(
        stream: &mut Stream,
        request: DiscoveryRequest,
        snapshot: &Snapshot,
        now: Time,
    ) -> Result<Vec<Response>, Violation> {
        stream.handle_sotw(request, snapshot, now)
    }

    fn message(response: &Response) -> SotwMessage {
        response.to_sotw()
    }

    fn node(request: &DiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &DiscoveryRequest) -> &str {
        &request.type_url
    }

    fn client(request: &DiscoveryRequest) -> Option<&str> {
        request.node.as_ref().map(|it| it.id.as_str())
    }

    fn claim(request: &DiscoveryRequest, snapshot: &Snapshot) -> Claim {
        Claim::of_sotw(request, snapshot)
    }
}
