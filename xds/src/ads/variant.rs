//! The two variants of the protocol, as types.

use bytes::Bytes;
use discovery::{
    lease::Time,
    snapshot::Snapshot,
    stream::{self, Claim, Latest, Response, SotwRequest, Stream, Violation},
};
use envoy_types::pb::envoy::{
    config::core::v3::Node, service::discovery::v3::DeltaDiscoveryRequest,
};
use prost::Message;
use tonic::Status;

/// What differs between the variants: the messages, and which method of the machine takes them.
pub(super) trait ProtocolVariant: Send + 'static {
    /// The variant's name in traces.
    const NAME: &'static str;
    const VARIANT: stream::ProtocolVariant;
    type Request: Send + Sync + 'static;

    /// Reads a request.
    fn decode(message: Bytes) -> Result<Self::Request, Status>;

    fn handle(
        stream: &mut Stream,
        request: Self::Request,
        latest: &Latest,
        now: Time,
    ) -> Result<Vec<Response>, Violation>;

    /// The client's node, which a stream needs to name only once.
    fn node(request: &Self::Request) -> Option<&Node>;

    /// The type that the request is of.
    fn type_url(request: &Self::Request) -> &str;

    fn type_url_mut(request: &mut Self::Request) -> &mut String;

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

    fn decode(message: Bytes) -> Result<DeltaDiscoveryRequest, Status> {
        DeltaDiscoveryRequest::decode(message).map_err(|error| malformed(&error))
    }

    fn handle(
        stream: &mut Stream,
        request: DeltaDiscoveryRequest,
        latest: &Latest,
        now: Time,
    ) -> Result<Vec<Response>, Violation> {
        stream.handle_delta(request, latest, now)
    }

    fn node(request: &DeltaDiscoveryRequest) -> Option<&Node> {
        request.node.as_ref()
    }

    fn type_url(request: &DeltaDiscoveryRequest) -> &str {
        &request.type_url
    }

    fn type_url_mut(request: &mut DeltaDiscoveryRequest) -> &mut String {
        &mut request.type_url
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
    type Request = SotwRequest;

    fn decode(message: Bytes) -> Result<SotwRequest, Status> {
        SotwRequest::decode(message).map_err(|error| malformed(&error))
    }

    fn handle(
        stream: &mut Stream,
        request: SotwRequest,
        latest: &Latest,
        now: Time,
    ) -> Result<Vec<Response>, Violation> {
        stream.handle_sotw(request, latest, now)
    }

    fn node(request: &SotwRequest) -> Option<&Node> {
        request.head.node.as_ref()
    }

    fn type_url(request: &SotwRequest) -> &str {
        &request.head.type_url
    }

    fn type_url_mut(request: &mut SotwRequest) -> &mut String {
        &mut request.head.type_url
    }

    fn client(request: &SotwRequest) -> Option<&str> {
        request.head.node.as_ref().map(|it| it.id.as_str())
    }

    fn claim(request: &SotwRequest, snapshot: &Snapshot) -> Claim {
        Claim::of_sotw(request, snapshot)
    }
}

fn malformed(error: &dyn std::error::Error) -> Status {
    Status::invalid_argument(format!("the request cannot be read: {error}"))
}
