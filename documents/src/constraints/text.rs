//! Constraints of strings and bytes.

use std::net::IpAddr;

use prost_reflect::{DynamicMessage, Value};
use regex::Regex;

use super::verdict::{Verdict, refuse};
use crate::field;

/// `validate.KnownRegex`.
const HEADER_NAME: &str = "HTTP_HEADER_NAME";
const HEADER_VALUE: &str = "HTTP_HEADER_VALUE";

pub(super) fn judge(
    rules: &DynamicMessage,
    constraint: &str,
    operand: &Value,
    text: &str,
) -> Result<(), Verdict> {
    let word = operand.as_str().unwrap_or_default();
    match constraint {
        "min_len" | "max_len" | "len" => judge_length(constraint, operand, text.chars().count()),
        "min_bytes" | "max_bytes" => judge_length(constraint, operand, text.len()),
        "prefix" if !text.starts_with(word) => {
            refuse("prefix", format!("is {text:?}"), format!("it must begin with {word:?}"))
        }
        "suffix" if !text.ends_with(word) => {
            refuse("suffix", format!("is {text:?}"), format!("it must end with {word:?}"))
        }
        "contains" if !text.contains(word) => {
            refuse("contains", format!("is {text:?}"), format!("it must contain {word:?}"))
        }
        "not_contains" if text.contains(word) => {
            refuse("not_contains", format!("is {text:?}"), format!("leave {word:?} out"))
        }
        "pattern" if !Regex::new(word).is_ok_and(|it| it.is_match(text)) => {
            refuse("pattern", format!("is {text:?}"), format!("it must match {word}"))
        }
        "uri" | "uri_ref" if !is_uri(text, constraint == "uri") => {
            refuse("uri", format!("is {text:?}"), "write a URI, with what is special escaped by %")
        }
        "ip" if text.parse::<IpAddr>().is_err() => {
            refuse("ip", format!("is {text:?}"), "write an IP address")
        }
        "well_known_regex" => judge_header(rules, text),
        _ => Ok(()),
    }
}

pub(super) fn judge_length(
    constraint: &str,
    operand: &Value,
    length: usize,
) -> Result<(), Verdict> {
    let Some(bound) = operand.as_u64() else { return Ok(()) };
    let length = length as u64;
    let is = if length == 0 { "is empty".to_owned() } else { format!("has a length of {length}") };
    match constraint {
        "min_len" | "min_bytes" if length < bound && bound == 1 => {
            refuse("min_len", is, "give it a value")
        }
        "min_len" | "min_bytes" if length < bound => {
            refuse("min_len", is, format!("it must be {bound} or longer"))
        }
        "max_len" | "max_bytes" if length > bound => {
            refuse("max_len", is, format!("it must be {bound} or shorter"))
        }
        "len" if length != bound => refuse("len", is, format!("it must be {bound} long")),
        _ => Ok(()),
    }
}

fn judge_header(rules: &DynamicMessage, text: &str) -> Result<(), Verdict> {
    // Strict unless it says otherwise, by its default in proto2.
    let is_strict = !field::has(rules, "strict") || field::flag(rules, "strict");
    match field::choice(rules, "well_known_regex").as_str() {
        HEADER_NAME if !is_header_name(text, is_strict) => refuse(
            "header-name",
            format!("is {text:?}"),
            "write the name of a header: letters, digits and dashes",
        ),
        HEADER_VALUE if !is_header_value(text, is_strict) => refuse(
            "header-value",
            format!("is {text:?}"),
            "leave out line breaks and control characters",
        ),
        _ => Ok(()),
    }
}

fn is_header_name(text: &str, is_strict: bool) -> bool {
    if !is_strict {
        return has_no_break(text);
    }
    let name = text.strip_prefix(':').unwrap_or(text);
    let is_token = |it: char| it.is_ascii_alphanumeric() || "!#$%&'*+-.^_|~`".contains(it);
    !name.is_empty() && name.chars().all(is_token)
}

fn is_header_value(text: &str, is_strict: bool) -> bool {
    let is_control = |it: char| it == '\u{7f}' || (it < ' ' && it != '\t');
    if is_strict { !text.contains(is_control) } else { has_no_break(text) }
}

fn has_no_break(text: &str) -> bool {
    !text.contains(['\0', '\n', '\r'])
}

/// As far as a mistake can be told from an unusual URI.
fn is_uri(text: &str, is_absolute: bool) -> bool {
    let has_scheme = text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|it: char| it.is_ascii_alphabetic())
            && scheme.chars().all(|it| it.is_ascii_alphanumeric() || "+-.".contains(it))
    });
    let is_odd = |it: char| it.is_control() || it.is_whitespace() || "<>\"{}|\\^`".contains(it);
    let escapes = text.split('%').skip(1);
    let mut escapes = escapes.map(|it| it.as_bytes().get(..2));
    let are_escaped = escapes.all(|it| it.is_some_and(|it| it.iter().all(u8::is_ascii_hexdigit)));
    !text.contains(is_odd) && are_escaped && (has_scheme || !is_absolute)
}
