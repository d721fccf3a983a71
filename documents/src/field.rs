//! Fields of a message by name, for rules that know what they read.
//!
//! A field that is absent, or that the message does not have, reads as nothing.

use prost_reflect::{DynamicMessage, ReflectMessage, Value};

use crate::walk::unpack;

pub(crate) fn name(message: &DynamicMessage) -> String {
    message.descriptor().full_name().to_owned()
}

pub(crate) fn has(message: &DynamicMessage, field: &str) -> bool {
    message.has_field_by_name(field)
}

pub(crate) fn text(message: &DynamicMessage, field: &str) -> String {
    let value = message.get_field_by_name(field);
    value.and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default()
}

pub(crate) fn flag(message: &DynamicMessage, field: &str) -> bool {
    message.get_field_by_name(field).and_then(|it| it.as_bool()).unwrap_or_default()
}

/// A number, also one in a wrapper such as `UInt32Value`.
pub(crate) fn number(message: &DynamicMessage, field: &str) -> Option<u64> {
    if !has(message, field) {
        return None;
    }
    let value = message.get_field_by_name(field)?;
    match value.as_ref() {
        Value::U32(it) => Some(u64::from(*it)),
        Value::U64(it) => Some(*it),
        Value::Message(wrapper) => number(wrapper, "value").or(Some(0)),
        Value::Bool(_)
        | Value::I32(_)
        | Value::I64(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::EnumNumber(_)
        | Value::List(_)
        | Value::Map(_) => None,
    }
}

/// The name of an enum's value, its default if the field is absent.
pub(crate) fn choice(message: &DynamicMessage, field: &str) -> String {
    let Some(descriptor) = message.descriptor().get_field_by_name(field) else {
        return String::new();
    };
    let value = message.get_field(&descriptor).as_enum_number();
    let kind = descriptor.kind();
    let named = kind.as_enum().and_then(|it| it.get_value(value.unwrap_or_default()));
    named.map(|it| it.name().to_owned()).unwrap_or_default()
}

/// A message, out of its `Any` where it is packed.
pub(crate) fn sub(message: &DynamicMessage, field: &str) -> Option<DynamicMessage> {
    if !has(message, field) {
        return None;
    }
    let value = message.get_field_by_name(field)?;
    let inner = value.as_message()?;
    Some(unpack(inner).unwrap_or_else(|| inner.clone()))
}

pub(crate) fn list(message: &DynamicMessage, field: &str) -> Vec<DynamicMessage> {
    let Some(value) = message.get_field_by_name(field) else { return Vec::new() };
    let items = value.as_list().unwrap_or_default().iter();
    items.filter_map(Value::as_message).cloned().collect()
}

pub(crate) fn texts(message: &DynamicMessage, field: &str) -> Vec<String> {
    let Some(value) = message.get_field_by_name(field) else { return Vec::new() };
    let items = value.as_list().unwrap_or_default().iter();
    items.filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Of a `google.protobuf.Duration`.
pub(crate) fn nanoseconds(duration: &DynamicMessage) -> i128 {
    const IN_A_SECOND: i128 = 1_000_000_000;
    let seconds = duration.get_field_by_name("seconds").and_then(|it| it.as_i64());
    let nanos = duration.get_field_by_name("nanos").and_then(|it| it.as_i32());
    i128::from(seconds.unwrap_or_default()) * IN_A_SECOND + i128::from(nanos.unwrap_or_default())
}

/// Whether it is a message that holds one scalar, so that its absence shows.
pub(crate) fn is_wrapper(full_name: &str) -> bool {
    const WRAPPED: [&str; 9] =
        ["Bool", "Bytes", "Double", "Float", "Int32", "Int64", "String", "UInt32", "UInt64"];
    let name = full_name.strip_prefix("google.protobuf.").and_then(|it| it.strip_suffix("Value"));
    name.is_some_and(|it| WRAPPED.contains(&it))
}
