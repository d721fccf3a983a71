//! The two variants of the protocol, as types.

use discovery::{
    snapshot::Snapshot,
    stream::{self, DeltaMessage, Response, SotwMessage, Stream, Violation},
};
use envoy_types::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use prost::Message;

/// What differs between the variants: the messages, and which method of the machine takes them.
pub(super) trait Variant: Send + 'static {
    /// The variant's name in traces.
    const NAME: &'static str;
    const VARIANT: stream::Variant;
    type Request: Message + Default + 'static;
    type Response: Message + Default + 'static;

    fn handle(
        stream: &mut Stream,
        request: Self::Request,
        snapshot: &Snapshot,
    ) -> Result<Vec<Response>, Violation>;

    fn message(response: &Response) -> Self::Response;

    /// Whether the request is the first of its type on the stream, of a client that holds resources
    /// of the type from another stream.
    fn holds_something(request: &Self::Request) -> bool;
}

pub(super) enum Delta {}

pub(super) enum Sotw {}

impl Variant for Delta {
    const NAME: &'static str = "delta";
    const VARIANT: stream::Variant = stream::Variant::Delta;
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaMessage;

    fn handle(
        stream: &mut Stream,
        request: DeltaDiscoveryRequest,
        snapshot: &Snapshot,
    ) -> Result<Vec<Response>, Violation> {
        stream.handle_delta(request, snapshot)
    }

    fn message(response: &Response) -> DeltaMessage {
        response.to_delta()
    }

    fn holds_something(request: &DeltaDiscoveryRequest) -> bool {
        !request.initial_resource_versions.is_empty()
    }
}

impl Variant for Sotw {
    const NAME: &'static str = "sotw";
    const VARIANT: stream::Variant = stream::Variant::Sotw;
    type Request = DiscoveryRequest;
    type Response = SotwMessage;

    fn handle(
        stream: &mut Stream,
        request: DiscoveryRequest,
        snapshot: &Snapshot,
    ) -> Result<Vec<Response>, Violation> {
        stream.handle_sotw(request, snapshot)
    }

    fn message(response: &Response) -> SotwMessage {
        response.to_sotw()
    }

    fn holds_something(request: &DiscoveryRequest) -> bool {
        request.response_nonce.is_empty() && !request.version_info.is_empty()
    }
}
