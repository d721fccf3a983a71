//! Durations as people write them: `500ms`, `8s`, `2m`, `12h`, `30d`, and `never` for zero.

use std::{fmt, time::Duration};

use serde::{Deserializer, Serializer, de};
use thiserror::Error;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{0}` is no duration: give it like 500ms, 8s, 2m or 12h")]
pub struct NotADuration(pub String);

/// The units, the longest first.
const UNITS: [(&str, u64); 5] =
    [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Parses a duration; a bare number is seconds.
///
/// # Errors
///
/// If the text has no number, an unknown unit, or is too long to count.
pub fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let refused = || NotADuration(text.to_owned());
    let (digits, unit) = text.split_at(split);
    let count: u64 = digits.parse().map_err(|_| refused())?;
    let unit = if unit.is_empty() { "s" } else { unit };
    let (_, scale_ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refused)?;
    count.checked_mul(*scale_ms).map(Duration::from_millis).ok_or_else(refused)
}

/// Parses a duration or `never`, which is zero. A zero that is written as a number is refused,
/// since it may be meant as "at once".
///
/// # Errors
///
/// As [`parse_duration`].
pub fn parse_duration_or_never(text: &str) -> Result<Duration, NotADuration> {
    match text.trim() {
        "never" => Ok(Duration::ZERO),
        other => match parse_duration(other)? {
            Duration::ZERO => Err(NotADuration(text.to_owned())),
            duration => Ok(duration),
        },
    }
}

/// As people write it, in the longest unit that loses nothing.
pub(super) fn written(duration: Duration) -> String {
    let millis = proto::millis(duration);
    match UNITS.iter().find(|(_, scale_ms)| millis.is_multiple_of(*scale_ms)) {
        Some((unit, scale_ms)) if millis > 0 => format!("{}{unit}", millis / scale_ms),
        Some(_) | None => "never".to_owned(),
    }
}

pub(super) fn serialize<S: Serializer>(
    value: &Option<Duration>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(duration) => serializer.serialize_str(&written(*duration)),
        None => serializer.serialize_none(),
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    deserializer.deserialize_any(Written).map(Some)
}

struct Written;

impl de::Visitor<'_> for Written {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration like 500ms, 8s, 2m or 12h")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Duration, E> {
        parse_duration_or_never(text).map_err(E::custom)
    }

    /// A number is seconds, as for a flag.
    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Duration, E> {
        parse_duration_or_never(&seconds.to_string()).map_err(E::custom)
    }
}
