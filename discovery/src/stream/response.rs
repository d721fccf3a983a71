//! Responses, and their form on the wire.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use envoy_types::pb::envoy::config::core::v3::ControlPlane;
use envoy_types::pb::envoy::service::discovery::v3 as proto;
use prost::Message;

use crate::resource::{Resource, Version};

/// One response, independent of the protocol variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub type_url: Cow<'static, str>,
    /// Version of the whole type. For SotW an opaque label; for delta only information for
    /// debugging.
    pub version: Version,
    pub nonce: String,
    pub control_plane: Arc<str>,
    pub resources: Vec<Resource>,
    /// Names that the client is to drop. In SotW they are missing from the full set; for types
    /// without a full set SotW cannot drop names.
    pub removed: Vec<Arc<str>>,
}

/// `envoy.service.discovery.v3.DeltaDiscoveryResponse`, to be encoded only: its resources are
/// encoded already and shared with every other response that holds them.
#[derive(Clone, PartialEq, Message)]
pub struct DeltaMessage {
    #[prost(string, tag = "1")]
    pub system_version_info: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    #[prost(string, tag = "4")]
    pub type_url: String,
    #[prost(string, tag = "5")]
    pub nonce: String,
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    #[prost(message, optional, tag = "7")]
    pub control_plane: Option<ControlPlane>,
}

/// `envoy.service.discovery.v3.DiscoveryResponse`, to be encoded only: its resources are encoded
/// already and shared with every other response that holds them.
#[derive(Clone, PartialEq, Message)]
pub struct SotwMessage {
    #[prost(string, tag = "1")]
    pub version_info: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub resources: Vec<Bytes>,
    #[prost(string, tag = "4")]
    pub type_url: String,
    #[prost(string, tag = "5")]
    pub nonce: String,
    #[prost(message, optional, tag = "6")]
    pub control_plane: Option<ControlPlane>,
}

impl Response {
    /// The response of the delta variant.
    pub fn to_delta(&self) -> DeltaMessage {
        DeltaMessage {
            system_version_info: self.version.to_string(),
            resources: self.resources.iter().map(Resource::wrapped).collect(),
            type_url: self.type_url.clone().into_owned(),
            nonce: self.nonce.clone(),
            removed_resources: self.removed.iter().map(ToString::to_string).collect(),
            control_plane: Some(self.control_plane_proto()),
        }
    }

    /// The response of the state-of-the-world variant.
    pub fn to_sotw(&self) -> SotwMessage {
        SotwMessage {
            version_info: self.version.to_string(),
            resources: self.resources.iter().map(Resource::any).collect(),
            type_url: self.type_url.clone().into_owned(),
            nonce: self.nonce.clone(),
            control_plane: Some(self.control_plane_proto()),
        }
    }

    /// The response of the delta variant as the generated type, for services that need it. It
    /// copies every resource; [`Response::to_delta`] does not.
    pub fn to_delta_proto(&self) -> proto::DeltaDiscoveryResponse {
        decode(&self.to_delta())
    }

    /// The response of the state-of-the-world variant as the generated type, for services that
    /// need it. It copies every resource; [`Response::to_sotw`] does not.
    pub fn to_sotw_proto(&self) -> proto::DiscoveryResponse {
        decode(&self.to_sotw())
    }

    fn control_plane_proto(&self) -> ControlPlane {
        ControlPlane { identifier: self.control_plane.to_string() }
    }
}

fn decode<T: Message + Default>(message: &impl Message) -> T {
    T::decode(&*message.encode_to_vec()).expect("the fields are those of the generated type")
}
