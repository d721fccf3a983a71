//! The bounds of options, and how a value outside of them is told.

use std::{ops::RangeInclusive, time::Duration};

use thiserror::Error;

use super::duration::written;

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An option with a value that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("option {option} is {value}: {allowed}")]
pub struct WrongOption {
    /// Its path, as in a document.
    pub option: &'static str,
    pub value: String,
    /// What would be allowed.
    pub allowed: String,
}

impl WrongOption {
    pub(super) fn new(
        option: &'static str,
        value: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self { option, value: value.into(), allowed: allowed.into() }
    }
}

/// A time to be checked; zero is "never".
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    option: &'static str,
    value: Option<Duration>,
    least: Duration,
    most: Duration,
}

pub(super) const fn times(
    option: &'static str,
    value: Option<Duration>,
    least: Duration,
    most: Duration,
) -> Times {
    Times { option, value, least, most }
}

impl Times {
    /// Within the bounds.
    pub(super) fn bounded(self) -> Result<(), WrongOption> {
        self.check(false)
    }

    /// Within the bounds, or "never".
    pub(super) fn or_never(self) -> Result<(), WrongOption> {
        self.check(true)
    }

    fn check(self, never: bool) -> Result<(), WrongOption> {
        let Self { option, value, least, most } = self;
        let Some(value) = value else { return Ok(()) };
        if (least..=most).contains(&value) || never && value.is_zero() {
            return Ok(());
        }
        let or_never = if never { ", or never" } else { "" };
        let allowed = format!("it is {} to {}{or_never}", written(least), written(most));
        Err(WrongOption::new(option, written(value), allowed))
    }
}

pub(super) fn count(
    option: &'static str,
    value: Option<u32>,
    allowed: RangeInclusive<u32>,
) -> Result<(), WrongOption> {
    match value {
        Some(value) if !allowed.contains(&value) => {
            let bounds = format!("it is {} to {}", allowed.start(), allowed.end());
            Err(WrongOption::new(option, value.to_string(), bounds))
        }
        Some(_) | None => Ok(()),
    }
}

/// A text that ends up in a header or a path: short, printable, and not empty.
pub(super) fn text(
    option: &'static str,
    value: &str,
    is_fine: impl Fn(u8) -> bool,
    allowed: &str,
) -> Result<(), WrongOption> {
    const LONGEST: usize = 255;
    if (1..=LONGEST).contains(&value.len()) && value.bytes().all(is_fine) {
        return Ok(());
    }
    let allowed = format!("it is 1 to {LONGEST} bytes, {allowed}");
    Err(WrongOption::new(option, format!("{value:?}"), allowed))
}

/// A byte of a token (RFC 9110, 5.6.2), as the names of headers and cookies are.
pub(super) const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.')
        || matches!(byte, b'^' | b'_' | b'`' | b'|' | b'~')
}

pub(super) const fn is_visible(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~')
}

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A message, or none if all is by default.
pub(super) fn unless_default<T: Default + PartialEq, M>(
    value: &T,
    to_proto: impl Fn(&T) -> M,
) -> Option<M> {
    (!is_default(value)).then(|| to_proto(value))
}
