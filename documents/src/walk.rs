//! Visits every message within a resource, those behind `Any` included.

use prost_reflect::{DynamicMessage, MapKey, ReflectMessage, Value};

use crate::{
    descriptors::descriptors,
    path::{Path, Segment},
};

/// Calls `visit` for the message, then for all within it, with the way to each.
pub(crate) fn walk(message: &DynamicMessage, visit: &mut impl FnMut(&Path, &DynamicMessage)) {
    step(message, &mut Path::default(), visit);
}

fn step(message: &DynamicMessage, path: &mut Path, visit: &mut impl FnMut(&Path, &DynamicMessage)) {
    if let Some(inner) = unpack(message) {
        // What is packed stands where the `Any` stands: `@type` is no field of it.
        return step(&inner, path, visit);
    }
    visit(path, message);
    for (field, value) in message.fields() {
        path.push(Segment::Field(field.name().to_owned()));
        within(value, path, visit);
        path.pop();
    }
}

fn within(value: &Value, path: &mut Path, visit: &mut impl FnMut(&Path, &DynamicMessage)) {
    match value {
        Value::Message(message) => step(message, path, visit),
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push(Segment::Index(index));
                within(item, path, visit);
                path.pop();
            }
        }
        Value::Map(entries) => {
            let mut entries: Vec<(&MapKey, &Value)> = entries.iter().collect();
            entries.sort_by(|one, other| one.0.cmp(other.0));
            for (key, value) in entries {
                path.push(Segment::Key(key_text(key)));
                within(value, path, visit);
                path.pop();
            }
        }
        Value::Bool(_)
        | Value::I32(_)
        | Value::I64(_)
        | Value::U32(_)
        | Value::U64(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::EnumNumber(_) => {}
    }
}

/// A map's key as it is written in JSON.
pub(crate) fn key_text(key: &MapKey) -> String {
    match key {
        MapKey::Bool(it) => it.to_string(),
        MapKey::I32(it) => it.to_string(),
        MapKey::I64(it) => it.to_string(),
        MapKey::U32(it) => it.to_string(),
        MapKey::U64(it) => it.to_string(),
        MapKey::String(it) => it.clone(),
    }
}

/// What an `Any` holds; none for other messages, and for types that are not known.
pub(crate) fn unpack(message: &DynamicMessage) -> Option<DynamicMessage> {
    if message.descriptor().full_name() != "google.protobuf.Any" {
        return None;
    }
    let url = message.get_field_by_name("type_url")?;
    let value = message.get_field_by_name("value")?;
    decode(url.as_str()?, value.as_bytes()?)
}

pub(crate) fn decode(type_url: &str, bytes: &[u8]) -> Option<DynamicMessage> {
    let name = type_url.rsplit('/').next()?;
    let descriptor = descriptors().get_message_by_name(name)?;
    DynamicMessage::decode(descriptor, bytes).ok()
}
