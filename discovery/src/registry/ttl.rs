//! The time of a lease: the default, and the bounds of what an owner may ask for.

use std::time::Duration;

/// How long a lease lasts if its owner does not ask for another time.
pub const DEFAULT_TTL: Duration = Duration::from_secs(10);

/// The shortest time that an owner may ask for.
pub const MIN_TTL: Duration = Duration::from_secs(3);

/// The longest time that an owner may ask for.
pub const MAX_TTL: Duration = Duration::from_secs(5 * 60);

/// The time granted to an owner that asks for `ttl_ms` milliseconds. Zero asks for the default.
pub(super) fn allowed_ttl(ttl_ms: u64) -> Duration {
    if ttl_ms == 0 {
        return DEFAULT_TTL;
    }
    Duration::from_millis(ttl_ms).clamp(MIN_TTL, MAX_TTL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_gets_what_it_asks_for_within_bounds() {
        assert_eq!(allowed_ttl(0), DEFAULT_TTL);
        assert_eq!(allowed_ttl(1), MIN_TTL);
        assert_eq!(allowed_ttl(60_000), Duration::from_secs(60));
        assert_eq!(allowed_ttl(u64::MAX), MAX_TTL);
    }
}
