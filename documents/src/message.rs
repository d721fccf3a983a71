//! Written nodes into a protobuf message, by protobuf's JSON mapping.
//!
//! It reads what Envoy reads, and says more when it cannot: the field, its line, and what was
//! probably meant. Everything that is wrong is told, not only the first. Fields may be written as
//! in the .proto file or in camel case, as protobuf's JSON allows.

mod scalar;
mod well_known;

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage, Value,
};

use crate::{
    descriptors::descriptors,
    encode::encode,
    findings::Findings,
    node::{self, Entry, Node},
    path::{Path, Segment},
    problem::nearest,
    types::PREFIX,
};

/// Reads a resource with its `@type`; none if it is not even known what it is.
pub(crate) fn read(node: &Node, findings: &mut Findings<'_>) -> Option<DynamicMessage> {
    let mut reader = Reader { findings, path: Path::default() };
    reader.typed(node)
}

struct Reader<'a, 'b> {
    findings: &'a mut Findings<'b>,
    path: Path,
}

impl Reader<'_, '_> {
    /// A message that says itself what it is.
    fn typed(&mut self, node: &Node) -> Option<DynamicMessage> {
        let Some(url) = node.get("@type") else {
            self.error("any", "has no @type", "begin it with `\"@type\": type.googleapis.com/…`");
            return None;
        };
        let descriptor = self.type_of(url)?;
        if well_known::has_own_form(descriptor.full_name()) {
            let Some(value) = node.get("value") else {
                let cause = format!("is a {} without a value", descriptor.full_name());
                self.error("any", cause, "write what it is under `value`");
                return None;
            };
            return self.message_at("value", &descriptor, value);
        }
        Some(self.fields(&descriptor, node))
    }

    fn type_of(&mut self, url: &Node) -> Option<MessageDescriptor> {
        let text = url.text().unwrap_or_default();
        let name = text.strip_prefix(PREFIX);
        let found = name.and_then(|it| descriptors().get_message_by_name(it));
        if found.is_none() {
            self.path.push(Segment::Field("@type".to_owned()));
            let cause = format!("{} is no type that Envoy's v3 API has", url.describe());
            self.error("type", cause, fix_for_type(text));
            self.path.pop();
        }
        found
    }

    fn message_at(
        &mut self,
        field: &str,
        descriptor: &MessageDescriptor,
        node: &Node,
    ) -> Option<DynamicMessage> {
        self.path.push(Segment::Field(field.to_owned()));
        let message = self.message(descriptor, node);
        self.path.pop();
        message
    }

    fn message(&mut self, descriptor: &MessageDescriptor, node: &Node) -> Option<DynamicMessage> {
        if descriptor.full_name() == "google.protobuf.Any" {
            return self.any(descriptor, node);
        }
        if well_known::has_own_form(descriptor.full_name()) {
            return self.well_known(descriptor, node);
        }
        Some(self.fields(descriptor, node))
    }

    fn any(&mut self, descriptor: &MessageDescriptor, node: &Node) -> Option<DynamicMessage> {
        let message = self.typed(node)?;
        let mut any = DynamicMessage::new(descriptor.clone());
        let url = format!("{PREFIX}{}", message.descriptor().full_name());
        any.set_field_by_name("type_url", Value::String(url));
        any.set_field_by_name("value", Value::Bytes(encode(&message).into()));
        Some(any)
    }

    /// The ordinary form of a message: a map of its fields.
    fn fields(&mut self, descriptor: &MessageDescriptor, node: &Node) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let node::Kind::Map(entries) = &node.kind else {
            let cause = format!("is {} where a {} belongs", node.describe(), descriptor.name());
            self.error("type-of-value", cause, "write a map of its fields");
            return message;
        };
        for entry in entries.iter().filter(|it| it.key != "@type") {
            let by_name = descriptor.get_field_by_name(&entry.key);
            match by_name.or_else(|| descriptor.get_field_by_json_name(&entry.key)) {
                Some(field) => {
                    self.path.push(Segment::Field(field.name().to_owned()));
                    self.field(&mut message, &field, &entry.node);
                    self.path.pop();
                }
                None => self.unknown_field(descriptor, entry),
            }
        }
        message
    }

    fn field(&mut self, message: &mut DynamicMessage, field: &FieldDescriptor, node: &Node) {
        let is_value = field.kind().as_message().map(|it| it.full_name().to_owned());
        // Null is a value of `Value`, and absence everywhere else.
        if node.kind == node::Kind::Null && is_value.as_deref() != Some("google.protobuf.Value") {
            return;
        }
        if message.has_field(field) {
            let cause = "is written twice, by its two names";
            return self.error("duplicate-key", cause, format!("keep {}", field.name()));
        }
        if let Some(other) = rival(message, field) {
            let cause = format!("excludes {other}, which is written too");
            return self.error("oneof", cause, "leave one of them");
        }
        let value = if field.is_map() {
            self.map(field, node)
        } else if field.is_list() {
            self.list(field, node)
        } else {
            self.value(&field.kind(), node)
        };
        if let Some(value) = value {
            message.set_field(field, value);
        }
    }

    fn list(&mut self, field: &FieldDescriptor, node: &Node) -> Option<Value> {
        let node::Kind::List(items) = &node.kind else {
            let cause = format!("is {} where a list belongs", node.describe());
            self.error(
                "type-of-value",
                cause,
                "put `- ` before each item, or brackets around them",
            );
            return None;
        };
        let kind = field.kind();
        let mut values = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            self.path.push(Segment::Index(index));
            values.extend(self.value(&kind, item));
            self.path.pop();
        }
        Some(Value::List(values))
    }

    fn map(&mut self, field: &FieldDescriptor, node: &Node) -> Option<Value> {
        let (node::Kind::Map(entries), Kind::Message(entry)) = (&node.kind, field.kind()) else {
            let cause = format!("is {} where a map belongs", node.describe());
            self.error("type-of-value", cause, "write `key: value` lines");
            return None;
        };
        let (key_kind, kind) =
            (entry.map_entry_key_field().kind(), entry.map_entry_value_field().kind());
        let mut pairs = Vec::with_capacity(entries.len());
        for Entry { key, node, line } in entries {
            self.path.push(Segment::Key(key.clone()));
            let text = Node { line: *line, kind: node::Kind::Quoted(key.clone()) };
            let key = self.key(&key_kind, &text).and_then(Value::into_map_key);
            let value = self.value(&kind, node);
            pairs.extend(key.zip(value));
            self.path.pop();
        }
        Some(Value::Map(pairs.into_iter().collect()))
    }

    fn value(&mut self, kind: &Kind, node: &Node) -> Option<Value> {
        match kind {
            Kind::Message(descriptor) => self.message(descriptor, node).map(Value::Message),
            Kind::Enum(_)
            | Kind::Double
            | Kind::Float
            | Kind::Int32
            | Kind::Int64
            | Kind::Uint32
            | Kind::Uint64
            | Kind::Sint32
            | Kind::Sint64
            | Kind::Fixed32
            | Kind::Fixed64
            | Kind::Sfixed32
            | Kind::Sfixed64
            | Kind::Bool
            | Kind::String
            | Kind::Bytes => self.scalar(kind, node),
        }
    }

    fn unknown_field(&mut self, descriptor: &MessageDescriptor, entry: &Entry) {
        let names: Vec<String> = descriptor.fields().map(|it| it.name().to_owned()).collect();
        let fix = match nearest(&entry.key, names.iter().map(String::as_str)) {
            Some(close) => format!("write {close}"),
            None if names.is_empty() => format!("{} has no fields", descriptor.name()),
            None => format!("fields of {} are {}", descriptor.name(), some_of(&names)),
        };
        self.path.push(Segment::Field(entry.key.clone()));
        let cause = format!("{} has no field {}", descriptor.name(), entry.key);
        self.error("unknown-field", cause, fix);
        self.path.pop();
    }

    fn error(&mut self, rule: &'static str, cause: impl Into<String>, fix: impl Into<String>) {
        self.findings.error(&self.path, rule, cause, fix);
    }
}

/// The member of the same oneof that is set already.
fn rival(message: &DynamicMessage, field: &FieldDescriptor) -> Option<String> {
    let oneof = field.containing_oneof()?;
    let set = oneof.fields().find(|it| it != field && message.has_field(it))?;
    Some(set.name().to_owned())
}

/// Lists that fill screens help nobody.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, …") } else { shown }
}

fn fix_for_type(url: &str) -> String {
    let name = url.rsplit('/').next().unwrap_or(url);
    if descriptors().get_message_by_name(name).is_some() {
        return format!("write {PREFIX}{name}");
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    let messages = descriptors().all_messages().filter(|it| it.name() == last);
    let mut candidates: Vec<String> = messages.map(|it| it.full_name().to_owned()).collect();
    candidates.sort();
    match nearest(name, candidates.iter().map(String::as_str)).or_else(|| single(&candidates)) {
        Some(close) => format!("write {PREFIX}{close}"),
        None if candidates.is_empty() => {
            "wrap extensions that Envoy does not bring in an xds.type.v3.TypedStruct".to_owned()
        }
        None => format!("one of {}", some_of(&candidates)),
    }
}

fn single(candidates: &[String]) -> Option<&str> {
    match candidates {
        [only] => Some(only),
        [] | [_, ..] => None,
    }
}
