//! Messages that JSON writes in a form of their own: durations, wrappers, free-form structs.

use prost_reflect::{DynamicMessage, MessageDescriptor, Value};

use super::{
    Reader,
    scalar::{is_false, is_number, is_true},
};
use crate::{
    field::is_wrapper,
    node::{self, Node},
    path::Segment,
};

/// The longest duration that protobuf allows, about 10,000 years.
const LONGEST_SECONDS: i64 = 315_576_000_000;

/// Whether JSON writes this message otherwise than as a map of its fields.
pub(super) fn has_own_form(full_name: &str) -> bool {
    let special = ["Any", "Duration", "Timestamp", "FieldMask", "Struct", "Value", "ListValue"];
    let name = full_name.strip_prefix("google.protobuf.");
    name.is_some_and(|it| special.contains(&it)) || is_wrapper(full_name)
}

impl Reader<'_, '_> {
    pub(super) fn well_known(
        &mut self,
        descriptor: &MessageDescriptor,
        node: &Node,
    ) -> Option<DynamicMessage> {
        match descriptor.name() {
            "Duration" => self.duration(descriptor, node),
            "Timestamp" => self.timestamp(descriptor, node),
            "FieldMask" => self.field_mask(descriptor, node),
            "Struct" => self.structure(descriptor, node),
            "Value" => self.free_value(descriptor, node),
            "ListValue" => self.free_list(descriptor, node),
            _ => {
                let value = self.value(&descriptor.get_field_by_name("value")?.kind(), node)?;
                Some(single(descriptor, "value", value))
            }
        }
    }

    fn duration(&mut self, descriptor: &MessageDescriptor, node: &Node) -> Option<DynamicMessage> {
        let Some((seconds, nanos)) = node.text().and_then(seconds_and_nanos) else {
            self.wrong(node, "a duration", "write seconds with an s, as in 1.5s");
            return None;
        };
        Some(moment(descriptor, seconds, nanos))
    }

    fn timestamp(&mut self, descriptor: &MessageDescriptor, node: &Node) -> Option<DynamicMessage> {
        let Some((seconds, nanos)) = node.text().and_then(since_epoch) else {
            self.wrong(node, "a time", "write it in UTC, as in 2026-01-31T12:00:00Z");
            return None;
        };
        Some(moment(descriptor, seconds, nanos))
    }

    fn field_mask(
        &mut self,
        descriptor: &MessageDescriptor,
        node: &Node,
    ) -> Option<DynamicMessage> {
        let text = self.word(node)?;
        let paths = text.split(',').filter(|it| !it.is_empty());
        let paths = paths.map(|it| Value::String(snake_case(it))).collect();
        Some(single(descriptor, "paths", Value::List(paths)))
    }

    fn structure(&mut self, descriptor: &MessageDescriptor, node: &Node) -> Option<DynamicMessage> {
        let node::Kind::Map(entries) = &node.kind else {
            self.wrong(node, "a map", "write `key: value` lines");
            return None;
        };
        let fields = descriptor.get_field_by_name("fields")?;
        let entry = fields.kind().as_message()?.map_entry_value_field().kind();
        let mut pairs = Vec::with_capacity(entries.len());
        for it in entries {
            self.path.push(Segment::Key(it.key.clone()));
            let key = Value::String(it.key.clone()).into_map_key();
            pairs.extend(key.zip(self.value(&entry, &it.node)));
            self.path.pop();
        }
        Some(single(descriptor, "fields", Value::Map(pairs.into_iter().collect())))
    }

    fn free_list(&mut self, descriptor: &MessageDescriptor, node: &Node) -> Option<DynamicMessage> {
        let values = self.list(&descriptor.get_field_by_name("values")?, node)?;
        Some(single(descriptor, "values", values))
    }

    /// Here alone a scalar decides by its looks, as YAML 1.2 has it.
    fn free_value(
        &mut self,
        descriptor: &MessageDescriptor,
        node: &Node,
    ) -> Option<DynamicMessage> {
        let nested = |field: &str| {
            let kind = descriptor.get_field_by_name(field)?.kind();
            kind.as_message().cloned()
        };
        let (field, value) = match &node.kind {
            node::Kind::Null => ("null_value", Value::EnumNumber(0)),
            node::Kind::Plain(text) if is_true(text) => ("bool_value", Value::Bool(true)),
            node::Kind::Plain(text) if is_false(text) => ("bool_value", Value::Bool(false)),
            node::Kind::Plain(text) if is_number(text) => {
                ("number_value", Value::F64(self.float(node, f64::MAX)?))
            }
            node::Kind::Plain(text) | node::Kind::Quoted(text) => {
                ("string_value", Value::String(text.clone()))
            }
            node::Kind::Map(_) => {
                let inner = self.structure(&nested("struct_value")?, node)?;
                ("struct_value", Value::Message(inner))
            }
            node::Kind::List(_) => {
                let inner = self.free_list(&nested("list_value")?, node)?;
                ("list_value", Value::Message(inner))
            }
        };
        Some(single(descriptor, field, value))
    }
}

fn single(descriptor: &MessageDescriptor, field: &str, value: Value) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field_by_name(field, value);
    message
}

fn moment(descriptor: &MessageDescriptor, seconds: i64, nanos: i32) -> DynamicMessage {
    let mut message = single(descriptor, "seconds", Value::I64(seconds));
    message.set_field_by_name("nanos", Value::I32(nanos));
    message
}

/// Of `-1.5s`; both have the sign.
fn seconds_and_nanos(text: &str) -> Option<(i64, i32)> {
    let (is_negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let (seconds, nanos) = decimal(digits.strip_suffix('s')?)?;
    let is_long = seconds > LONGEST_SECONDS;
    let signed = if is_negative { (-seconds, -nanos) } else { (seconds, nanos) };
    (!is_long).then_some(signed)
}

/// Whole part and billionths of an unsigned decimal.
fn decimal(text: &str) -> Option<(i64, i32)> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let all_digits = |it: &str| it.bytes().all(|it| it.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 9 || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    Some((whole.parse().ok()?, format!("{fraction:0<9}").parse().ok()?))
}

/// Of an RFC 3339 time with a Z or an offset.
fn since_epoch(text: &str) -> Option<(i64, i32)> {
    let (date, time) = text.split_once(['T', 't'])?;
    let mut parts = date.split('-');
    let year = within(parts.next()?, 1, 9999)?;
    let month = within(parts.next()?, 1, 12)?;
    let day = within(parts.next()?, 1, 31)?;
    let (clock, offset) = split_offset(time)?;
    let mut parts = clock.splitn(3, ':');
    let hour = within(parts.next()?, 0, 23)?;
    let minute = within(parts.next()?, 0, 59)?;
    let (second, nanos) = decimal(parts.next()?).filter(|(second, _)| *second < 60)?;
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    Some((seconds, nanos))
}

/// The time of day, and the seconds that it is ahead of UTC.
fn split_offset(time: &str) -> Option<(&str, i64)> {
    if let Some(clock) = time.strip_suffix(['Z', 'z']) {
        return Some((clock, 0));
    }
    let at = time.rfind(['+', '-'])?;
    let (hours, minutes) = time[at + 1..].split_once(':')?;
    let offset = within(hours, 0, 23)? * 3_600 + within(minutes, 0, 59)? * 60;
    Some((&time[..at], if time[at..].starts_with('-') { -offset } else { offset }))
}

fn within(digits: &str, least: i64, most: i64) -> Option<i64> {
    digits.parse().ok().filter(|it| (least..=most).contains(it))
}

/// Days from 1970-01-01, in the Gregorian calendar. Years begin in March, so that the leap day is
/// the last of its year.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year / 4 - year / 100 + year / 400;
    year * 365 + leap_days + day_of_year - 719_468
}

fn snake_case(path: &str) -> String {
    let mut snake = String::with_capacity(path.len());
    for letter in path.chars() {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
