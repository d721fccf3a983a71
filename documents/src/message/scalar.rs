//! Numbers, words, booleans, bytes and enums.
//!
//! YAML is read by what the field is: a word that looks like a number stays a mistake in a field of
//! words, since the next tool would read it as the number.

use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use prost_reflect::{EnumDescriptor, Kind, Value};

use super::Reader;
use crate::{
    node::{self, Node},
    problem::nearest,
};

impl Reader<'_, '_> {
    pub(super) fn scalar(&mut self, kind: &Kind, node: &Node) -> Option<Value> {
        match kind {
            Kind::Bool => self.boolean(node).map(Value::Bool),
            Kind::String => self.word(node).map(Value::String),
            Kind::Bytes => self.bytes(node),
            Kind::Enum(descriptor) => self.choice(descriptor, node),
            Kind::Float => {
                let number = self.float(node, f64::from(f32::MAX))?;
                // The mapping rounds, as every reader of JSON does.
                #[allow(clippy::cast_possible_truncation, reason = "checked to be in range")]
                let rounded = number as f32;
                Some(Value::F32(rounded))
            }
            Kind::Double => self.float(node, f64::MAX).map(Value::F64),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => self.integer(node).map(Value::I32),
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => self.integer(node).map(Value::I64),
            Kind::Uint32 | Kind::Fixed32 => self.integer(node).map(Value::U32),
            Kind::Uint64 | Kind::Fixed64 => self.integer(node).map(Value::U64),
            Kind::Message(_) => None,
        }
    }

    /// The key of a map, which is quoted in JSON whatever it is.
    pub(super) fn key(&mut self, kind: &Kind, node: &Node) -> Option<Value> {
        match (kind, node.text()) {
            (Kind::Bool, Some("true")) => Some(Value::Bool(true)),
            (Kind::Bool, Some("false")) => Some(Value::Bool(false)),
            (_, _) => self.scalar(kind, node),
        }
    }

    pub(super) fn boolean(&mut self, node: &Node) -> Option<bool> {
        match &node.kind {
            node::Kind::Plain(text) if is_true(text) => Some(true),
            node::Kind::Plain(text) if is_false(text) => Some(false),
            node::Kind::Null
            | node::Kind::Plain(_)
            | node::Kind::Quoted(_)
            | node::Kind::List(_)
            | node::Kind::Map(_) => {
                self.wrong(node, "true or false", "write true or false, without quotes");
                None
            }
        }
    }

    pub(super) fn word(&mut self, node: &Node) -> Option<String> {
        match &node.kind {
            node::Kind::Quoted(text) => Some(text.clone()),
            node::Kind::Plain(text) if !is_true(text) && !is_false(text) && !is_number(text) => {
                Some(text.clone())
            }
            node::Kind::Plain(text) => {
                self.wrong(node, "a string", format!("write \"{text}\", in quotes"));
                None
            }
            node::Kind::Null | node::Kind::List(_) | node::Kind::Map(_) => {
                self.wrong(node, "a string", "write a string");
                None
            }
        }
    }

    fn bytes(&mut self, node: &Node) -> Option<Value> {
        let text = node.text().unwrap_or_default().trim_end();
        let config =
            GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        let is_url_safe = text.contains(['-', '_']);
        let alphabet = if is_url_safe { &URL_SAFE } else { &STANDARD };
        match GeneralPurpose::new(alphabet, config).decode(text) {
            Ok(bytes) if node.text().is_some() => Some(Value::Bytes(bytes.into())),
            Ok(_) | Err(_) => {
                self.wrong(node, "base64", "encode the bytes with base64");
                None
            }
        }
    }

    fn choice(&mut self, descriptor: &EnumDescriptor, node: &Node) -> Option<Value> {
        let text = node.text().unwrap_or_default();
        let by_name = descriptor.get_value_by_name(text).map(|it| it.number());
        let is_plain = matches!(node.kind, node::Kind::Plain(_));
        let by_number = text.parse::<i32>().ok().filter(|_| is_plain);
        if let Some(number) = by_name.or(by_number) {
            return Some(Value::EnumNumber(number));
        }
        let names: Vec<String> = descriptor.values().map(|it| it.name().to_owned()).collect();
        let fix = match nearest(text, names.iter().map(String::as_str)) {
            Some(close) => format!("write {close}"),
            None => format!("one of {}", super::some_of(&names)),
        };
        self.wrong(node, &format!("a {}", descriptor.name()), fix);
        None
    }

    /// A whole number; as in JSON, `2.0` and `"2"` are two.
    pub(super) fn integer<T: TryFrom<i128>>(&mut self, node: &Node) -> Option<T> {
        let number = node.text().filter(|it| is_number(it)).and_then(whole);
        match number.map(T::try_from) {
            Some(Ok(number)) => Some(number),
            Some(Err(_)) => {
                let cause = format!("{} is out of range", node.describe());
                let most = size_of::<T>() * 8;
                self.error("type-of-value", cause, format!("the field has {most} bits"));
                None
            }
            None => {
                self.wrong(node, "a whole number", "write decimal digits");
                None
            }
        }
    }

    pub(super) fn float(&mut self, node: &Node, most: f64) -> Option<f64> {
        let text = node.text().unwrap_or_default();
        let number = match text {
            "NaN" | ".nan" => Some(f64::NAN),
            "Infinity" | ".inf" => Some(f64::INFINITY),
            "-Infinity" | "-.inf" => Some(f64::NEG_INFINITY),
            _ => text.parse().ok().filter(|it: &f64| is_number(text) && it.abs() <= most),
        };
        if number.is_none() {
            self.wrong(node, "a number", "write a number");
        }
        number
    }

    pub(super) fn wrong(&mut self, node: &Node, expected: &str, fix: impl Into<String>) {
        let cause = format!("is {} where {expected} belongs", node.describe());
        self.error("type-of-value", cause, fix);
    }
}

/// As YAML 1.2 has it. What YAML 1.1 took for booleans, as `on` and `no`, are words.
pub(super) fn is_true(text: &str) -> bool {
    matches!(text, "true" | "True" | "TRUE")
}

pub(super) fn is_false(text: &str) -> bool {
    matches!(text, "false" | "False" | "FALSE")
}

/// Decimal, without the leading zeros that older readers take for octal.
pub(super) fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let is_padded = digits.len() > 1
        && digits.starts_with('0')
        && digits.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    let begins = digits.starts_with(|it: char| it.is_ascii_digit() || it == '.');
    begins && !is_padded && digits.parse::<f64>().is_ok_and(f64::is_finite)
}

fn whole(text: &str) -> Option<i128> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let number: f64 = text.parse().ok()?;
    // Larger ones have no exact neighbors, so it is not known which was meant.
    let is_exact = number.fract() == 0.0 && number.abs() < 9_007_199_254_740_992.0;
    #[allow(clippy::cast_possible_truncation, reason = "whole, and below 2^53")]
    is_exact.then_some(number as i128)
}
