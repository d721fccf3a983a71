//! What comes from outside, made fit for a log line.

use std::fmt;

/// Bytes shown of a text.
const SHOWN: usize = 256;

/// Names shown of a list.
const FEW: usize = 5;

/// A text that a client sent: cut, and without control characters.
pub(crate) struct Untrusted<'a>(pub(crate) &'a str);

/// Names that a client sent or was sent: the first ones, and how many there are.
pub(crate) struct Few<'a, T>(pub(crate) &'a [T]);

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.floor_char_boundary(self.0.len().min(SHOWN))];
        write!(f, "{}", shown.escape_debug())?;
        if shown.len() < self.0.len() {
            write!(f, "… ({} bytes)", self.0.len())?;
        }
        Ok(())
    }
}

impl<T: AsRef<str>> fmt::Display for Few<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, name) in self.0.iter().take(FEW).enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            write!(f, "{comma}{}", Untrusted(name.as_ref()))?;
        }
        match self.0.len().saturating_sub(FEW) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_text_is_short_and_harmless() {
        assert_eq!(
            Untrusted("bad\u{1b}[31m\n2026 ERROR").to_string(),
            "bad\\u{1b}[31m\\n2026 ERROR"
        );
        let long = Untrusted(&"ü".repeat(4 << 20)).to_string();
        assert!(long.len() < 2 * SHOWN, "{}", long.len());
        assert!(long.ends_with("(8388608 bytes)"), "{long}");
    }

    #[test]
    fn a_list_shows_a_few() {
        assert_eq!(Few::<&str>(&[]).to_string(), "");
        assert_eq!(Few(&["a", "b"]).to_string(), "a, b");
        assert_eq!(Few(&["a"; 9]).to_string(), "a, a, a, a, a and 4 more");
    }
}
