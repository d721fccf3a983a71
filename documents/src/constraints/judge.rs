//! One constraint against one value.

use prost_reflect::{DynamicMessage, FieldDescriptor, Value};

use super::{
    text,
    verdict::{Verdict, refuse},
};
use crate::field;

/// Every constraint that is judged here or in [`text`], or that [`super`] handles by itself. A test
/// compares them with those that Envoy's files use.
#[cfg(test)]
pub(crate) const KNOWN: [&str; 33] = [
    "const",
    "lt",
    "lte",
    "gt",
    "gte",
    "in",
    "not_in",
    "defined_only",
    "required",
    "len",
    "min_len",
    "max_len",
    "min_bytes",
    "max_bytes",
    "prefix",
    "suffix",
    "contains",
    "not_contains",
    "pattern",
    "uri",
    "uri_ref",
    "ip",
    "well_known_regex",
    "strict",
    "ignore_empty",
    "min_items",
    "max_items",
    "unique",
    "items",
    "min_pairs",
    "keys",
    "values",
    "skip",
];

/// Judges `constraint`, which is one field of the rules for `kind` and has `operand` as its value.
pub(super) fn judge(
    (kind, rules): (&str, &DynamicMessage),
    constraint: &str,
    operand: &Value,
    field: &FieldDescriptor,
    value: &Value,
) -> Result<(), Verdict> {
    // The constraints of a number hold for what a wrapper wraps.
    if let Value::Message(message) = value
        && field::is_wrapper(&field::name(message))
    {
        let inner = message.get_field_by_name("value");
        let inner = inner.map_or(Value::U32(0), |it| it.into_owned());
        return judge((kind, rules), constraint, operand, field, &inner);
    }
    match (constraint, value) {
        ("const", _) if operand != value => {
            refuse("const", "has a value that is not allowed", format!("write {}", show(operand)))
        }
        ("defined_only", Value::EnumNumber(number)) => defined(field, *number),
        ("in", Value::Message(any)) => listed(&any_url(any), operand),
        ("in", _) if !contains(operand, value) => {
            let allowed: Vec<String> =
                operand.as_list().unwrap_or_default().iter().map(show).collect();
            refuse("in", format!("is {}", show(value)), format!("one of {}", allowed.join(", ")))
        }
        ("not_in", _) if contains(operand, value) => {
            refuse("not_in", format!("is {}", show_of(field, value)), "write another value")
        }
        ("lt" | "lte" | "gt" | "gte", _) => compare(constraint, operand, value),
        (_, Value::String(it)) => text::judge(rules, constraint, operand, it),
        (_, Value::Bytes(it)) => text::judge_length(constraint, operand, it.len()),
        (_, _) => Ok(()),
    }
}

fn defined(field: &FieldDescriptor, number: i32) -> Result<(), Verdict> {
    let kind = field.kind();
    match kind.as_enum() {
        Some(descriptor) if descriptor.get_value(number).is_none() => {
            let names: Vec<String> = descriptor.values().map(|it| it.name().to_owned()).collect();
            let cause = format!("is {number}, which {} does not have", descriptor.name());
            refuse("defined_only", cause, format!("one of {}", names.join(", ")))
        }
        Some(_) | None => Ok(()),
    }
}

fn any_url(any: &DynamicMessage) -> Value {
    Value::String(field::text(any, "type_url"))
}

fn listed(value: &Value, operand: &Value) -> Result<(), Verdict> {
    if contains(operand, value) {
        return Ok(());
    }
    let allowed: Vec<String> = operand.as_list().unwrap_or_default().iter().map(show).collect();
    refuse("in", format!("is a {}", show(value)), format!("one of {}", allowed.join(", ")))
}

fn contains(operand: &Value, value: &Value) -> bool {
    let number = |it: &Value| it.as_enum_number().map_or_else(|| it.clone(), Value::I32);
    operand.as_list().unwrap_or_default().iter().any(|it| number(it) == number(value))
}

fn compare(constraint: &str, operand: &Value, value: &Value) -> Result<(), Verdict> {
    let (Some(bound), Some(number)) = (as_number(operand), as_number(value)) else { return Ok(()) };
    let (rule, holds, word) = match constraint {
        "lt" => ("lt", number < bound, "below"),
        "lte" => ("lte", number <= bound, "at most"),
        "gt" => ("gt", number > bound, "above"),
        _ => ("gte", number >= bound, "at least"),
    };
    if holds {
        return Ok(());
    }
    refuse(rule, format!("is {}", show(value)), format!("it must be {word} {}", show(operand)))
}

/// Exact for what is compared: bounds are small, and durations nanoseconds within centuries.
#[allow(clippy::cast_precision_loss, reason = "a bound that rounding could miss does not occur")]
fn as_number(value: &Value) -> Option<f64> {
    match value {
        Value::I32(it) => Some(f64::from(*it)),
        Value::I64(it) => Some(*it as f64),
        Value::U32(it) => Some(f64::from(*it)),
        Value::U64(it) => Some(*it as f64),
        Value::F32(it) => Some(f64::from(*it)),
        Value::F64(it) => Some(*it),
        Value::Message(it) if field::name(it) == "google.protobuf.Duration" => {
            Some(field::nanoseconds(it) as f64)
        }
        Value::Bool(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::EnumNumber(_)
        | Value::Message(_)
        | Value::List(_)
        | Value::Map(_) => None,
    }
}

fn show_of(field: &FieldDescriptor, value: &Value) -> String {
    let kind = field.kind();
    let named = kind.as_enum().zip(value.as_enum_number());
    let named = named.and_then(|(descriptor, number)| descriptor.get_value(number));
    named.map_or_else(|| show(value), |it| it.name().to_owned())
}

#[allow(clippy::cast_precision_loss, reason = "for people")]
pub(super) fn show(value: &Value) -> String {
    match value {
        Value::Message(it) if field::name(it) == "google.protobuf.Duration" => {
            format!("{}s", field::nanoseconds(it) as f64 / 1e9)
        }
        Value::String(it) => format!("{it:?}"),
        Value::Bool(it) => it.to_string(),
        Value::I32(it) | Value::EnumNumber(it) => it.to_string(),
        Value::I64(it) => it.to_string(),
        Value::U32(it) => it.to_string(),
        Value::U64(it) => it.to_string(),
        Value::F32(it) => it.to_string(),
        Value::F64(it) => it.to_string(),
        Value::Bytes(it) => format!("{} bytes", it.len()),
        Value::Message(_) => "a message".to_owned(),
        Value::List(_) => "a list".to_owned(),
        Value::Map(_) => "a map".to_owned(),
    }
}
