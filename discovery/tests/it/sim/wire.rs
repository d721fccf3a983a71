//! The messages between a client and its stream.

use std::collections::BTreeMap;

use discovery::resource::{Resource, ResourceType};
use discovery::stream::Response;

use crate::fixture::{delta_of, read, sotw_of};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    pub text: String,
    pub version: String,
}

#[derive(Debug)]
pub(crate) struct Request {
    pub kind: ResourceType,
    pub names: Vec<String>,
    pub unsubscribe: Vec<String>,
    pub have: BTreeMap<String, String>,
    pub nonce: String,
    /// SotW: the version that the client accepted last.
    pub version: String,
    pub is_answer: bool,
    pub error: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Message {
    pub kind: ResourceType,
    pub nonce: String,
    pub version: String,
    pub puts: BTreeMap<String, Item>,
    pub removed: Vec<String>,
}

impl Message {
    pub(crate) fn from_delta(response: &Response) -> Self {
        let proto = delta_of(response);
        let count = proto.resources.len();
        let puts: BTreeMap<_, _> = proto
            .resources
            .into_iter()
            .map(|it| {
                let text = read(&it.resource.expect("a body")).text;
                (it.name, Item { text, version: it.version })
            })
            .collect();
        assert_eq!(puts.len(), count, "a name comes twice");
        let kind = ResourceType::from_type_url(&proto.type_url).expect("a known type");
        let version = proto.system_version_info;
        Self { kind, nonce: proto.nonce, version, puts, removed: proto.removed_resources }
    }

    pub(crate) fn from_sotw(response: &Response) -> Self {
        let proto = sotw_of(response);
        let items = proto.resources.iter().map(read);
        let puts: BTreeMap<_, _> =
            items.map(|it| (it.name, Item { text: it.text, version: String::new() })).collect();
        assert_eq!(puts.len(), proto.resources.len(), "a name comes twice");
        let kind = ResourceType::from_type_url(&proto.type_url).expect("a known type");
        let version = proto.version_info;
        Self { kind, nonce: proto.nonce, version, puts, removed: Vec::new() }
    }
}

pub(crate) fn text_of(resource: &Resource) -> String {
    let any = prost::Message::decode(resource.any()).expect("an encoded Any");
    read(&any).text
}
