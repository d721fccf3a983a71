//! What a server without a quorum does with its clients.
//!
//! A server that is cut off from the majority serves a state that may be out of date. Its clients
//! are better off at a server with a quorum, if there is one. The server cannot know that: a silent
//! server may be dead, or it may be unreachable from here and reachable for the client. So a client
//! is redirected unless it is known that no other server has a quorum. A client that comes back has
//! found none; it is served what there is here, if it loses nothing by that.

use std::{collections::BTreeMap, time::Duration};

use discovery::lease::Time;

/// How long a client must have been redirected before it is served here without a quorum.
const TRY_OTHERS_FOR: Duration = Duration::from_secs(5);

/// How long a redirected client is remembered. One that comes back later is redirected again.
const FORGET_AFTER: Duration = Duration::from_secs(10 * 60);

/// How many redirected clients are remembered. Beyond this the oldest are forgotten.
const REMEMBERED: usize = 1 << 14;

/// What is known of another DISCO server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServerQuorum {
    /// It answers, and hears a quorum.
    HasQuorum,
    /// It answers, and hears none.
    NoQuorum,
    /// Its machine refuses the connection: no process listens there.
    Down,
    /// It does not answer.
    Silent,
}

/// Whether one of these servers may have a quorum.
fn may_have_quorum(others: &[ServerQuorum]) -> bool {
    others.iter().any(|it| matches!(it, ServerQuorum::HasQuorum | ServerQuorum::Silent))
}

/// What this server does with streams, by whether it and other servers have a quorum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum StreamPolicy {
    /// Serve them: this server has a quorum, as far as it knows.
    #[default]
    Serve,
    /// Serve them although there is no quorum, since it is known that no other server has one.
    ServeStale,
    /// Redirect clients that open a stream: this server has no quorum, and another may have one.
    /// Open streams go on for a while.
    Redirect,
    /// The same, for so long that open streams are ended too.
    Drain,
}

impl StreamPolicy {
    pub(crate) fn new(stale_for: Duration, drain_after: Duration, others: &[ServerQuorum]) -> Self {
        match (stale_for.is_zero(), may_have_quorum(others)) {
            (true, _) => Self::Serve,
            (false, false) => Self::ServeStale,
            (false, true) if drain_after.is_zero() || stale_for < drain_after => Self::Redirect,
            (false, true) => Self::Drain,
        }
    }
}

/// Clients that were redirected, and when.
#[derive(Debug, Default)]
pub(crate) struct Redirected {
    since: BTreeMap<String, Time>,
}

impl Redirected {
    /// Whether a client has had the time to try other servers since it was first redirected. A
    /// client that is not remembered is noted as redirected now.
    pub(crate) fn has_tried_others(&mut self, client: &str, now: Time) -> bool {
        if self.since.get(client).is_some_and(|at| now >= *at + FORGET_AFTER) {
            self.since.remove(client);
        }
        if let Some(at) = self.since.get(client) {
            return now >= *at + TRY_OTHERS_FOR;
        }
        if self.since.len() >= REMEMBERED
            && let Some(oldest) =
                self.since.iter().min_by_key(|it| it.1).map(|(name, _)| name.clone())
        {
            self.since.remove(&oldest);
        }
        self.since.insert(client.to_owned(), now);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_go_where_a_quorum_may_be() {
        use ServerQuorum::{Down, HasQuorum, NoQuorum, Silent};

        for (others, wanted) in [
            (&[] as &[ServerQuorum], false),
            (&[Down, Down], false),
            (&[NoQuorum, Down], false),
            (&[Silent, Down], true),
            (&[HasQuorum, NoQuorum], true),
        ] {
            assert_eq!(may_have_quorum(others), wanted, "{others:?}");
        }
    }

    #[test]
    fn nobody_leaves_a_quorum_or_before_the_time() {
        let secs = Duration::from_secs;
        let (may, none) = (&[ServerQuorum::Silent], &[ServerQuorum::Down]);
        for (stale_for, drain_after, others, wanted) in [
            (0, 30, may, StreamPolicy::Serve),
            (4, 30, may, StreamPolicy::Redirect),
            (30, 30, may, StreamPolicy::Drain),
            (99, 30, none, StreamPolicy::ServeStale),
            (99, 0, may, StreamPolicy::Redirect),
        ] {
            let policy = StreamPolicy::new(secs(stale_for), secs(drain_after), others);
            assert_eq!(policy, wanted, "{stale_for} {drain_after} {others:?}");
        }
    }

    #[test]
    fn a_client_is_sent_away_until_it_has_looked_around() {
        let mut redirected = Redirected::default();
        let at = |secs| Duration::from_secs(secs);
        assert!(!redirected.has_tried_others("a", at(100)));
        assert!(!redirected.has_tried_others("a", at(104)));
        assert!(redirected.has_tried_others("a", at(105)));
        assert!(!redirected.has_tried_others("b", at(105)));
        assert!(redirected.has_tried_others("a", at(600)));
        assert!(!redirected.has_tried_others("a", at(701)), "that was another time");
    }

    #[test]
    fn a_crowd_is_not_remembered_for_ever() {
        let mut redirected = Redirected::default();
        for client in 0..REMEMBERED + 10 {
            redirected.has_tried_others(&client.to_string(), Duration::from_millis(client as u64));
        }
        assert_eq!(redirected.since.len(), REMEMBERED);
        assert!(!redirected.since.contains_key("0"));
    }
}
