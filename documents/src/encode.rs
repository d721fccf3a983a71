//! A message into bytes, always the same for the same message.
//!
//! Reflection keeps maps in hash order, and would write them so. Here their entries are sorted.

use prost::Message;
use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, ReflectMessage, Value};

/// The wire type of everything that has a length.
const LENGTH_DELIMITED: usize = 2;

pub(crate) fn encode(message: &DynamicMessage) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (field, value) in message.fields() {
        match value {
            Value::Map(entries) => {
                let mut entries: Vec<(&MapKey, &Value)> = entries.iter().collect();
                entries.sort_by(|one, other| one.0.cmp(other.0));
                for (key, value) in entries {
                    nested(&field, &encode(&entry(&field, key, value)), &mut bytes);
                }
            }
            Value::Message(inner) => nested(&field, &encode(inner), &mut bytes),
            Value::List(items) if matches!(field.kind(), Kind::Message(_)) => {
                for item in items.iter().filter_map(Value::as_message) {
                    nested(&field, &encode(item), &mut bytes);
                }
            }
            Value::List(_)
            | Value::Bool(_)
            | Value::I32(_)
            | Value::I64(_)
            | Value::U32(_)
            | Value::U64(_)
            | Value::F32(_)
            | Value::F64(_)
            | Value::String(_)
            | Value::Bytes(_)
            | Value::EnumNumber(_) => {
                let mut alone = DynamicMessage::new(message.descriptor());
                alone.set_field(&field, value.clone());
                bytes.extend(alone.encode_to_vec());
            }
        }
    }
    bytes
}

/// The message that stands for an entry of a map on the wire.
fn entry(field: &FieldDescriptor, key: &MapKey, value: &Value) -> DynamicMessage {
    let Kind::Message(descriptor) = field.kind() else {
        unreachable!("the entries of a map are messages");
    };
    let mut entry = DynamicMessage::new(descriptor.clone());
    entry.set_field(&descriptor.map_entry_key_field(), key.clone().into());
    entry.set_field(&descriptor.map_entry_value_field(), value.clone());
    entry
}

fn nested(field: &FieldDescriptor, content: &[u8], bytes: &mut Vec<u8>) {
    let key = (field.number() as usize) << 3 | LENGTH_DELIMITED;
    for number in [key, content.len()] {
        let written = prost::encode_length_delimiter(number, bytes);
        debug_assert!(written.is_ok(), "a vector grows");
    }
    bytes.extend_from_slice(content);
}
