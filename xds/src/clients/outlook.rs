//! Whether clients of a server without a quorum have somewhere to go.
//!
//! A server that is cut off from the majority serves what was true, and does not know for how long.
//! A client of it is better off at a server with a quorum, if there is one. Whether there is one, a
//! server that is cut off cannot know: who is silent may be dead, or beyond a cut that the client is
//! not behind. So a client is sent to look unless all others are known to be of no use. If it comes
//! back, having found none, it is served what is there, as far as that takes nothing from it.

use std::{collections::BTreeMap, time::Duration};

use discovery::lease::Time;

/// How long a client looks for a quorum elsewhere before it is served here.
const LOOK_AROUND: Duration = Duration::from_secs(5);

/// After so long a client that was sent away has found something, and is sent away again.
const FORGOTTEN: Duration = Duration::from_secs(10 * 60);

/// Clients that are remembered to have been sent away. Beyond this the oldest are forgotten.
const REMEMBERED: usize = 1 << 14;

/// What is known of another DISCO server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Other {
    /// It answers, and hears a quorum.
    HasQuorum,
    /// It answers, and hears none.
    NoQuorum,
    /// Its machine says that nobody listens there.
    Down,
    /// Nothing was heard of it.
    Silent,
}

/// Whether a client may find a quorum at one of these.
fn may_have_quorum(others: &[Other]) -> bool {
    others.iter().any(|it| matches!(it, Other::HasQuorum | Other::Silent))
}

/// Where the clients of this server should be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Here: this server hears a quorum, as far as it knows.
    #[default]
    Quorum,
    /// Here, although there is no quorum, since it is known that no other server has one.
    Nowhere,
    /// This server has no quorum, and another may have one. Who is here may stay for a while.
    Elsewhere,
    /// The same for so long that nobody should stay.
    Leave,
}

impl Outlook {
    pub(crate) fn new(stale_for: Duration, leave_after: Duration, others: &[Other]) -> Self {
        match (stale_for.is_zero(), may_have_quorum(others)) {
            (true, _) => Self::Quorum,
            (false, false) => Self::Nowhere,
            (false, true) if leave_after.is_zero() || stale_for < leave_after => Self::Elsewhere,
            (false, true) => Self::Leave,
        }
    }
}

/// Clients that were sent away, and when.
#[derive(Debug, Default)]
pub(crate) struct SentAway {
    since: BTreeMap<String, Time>,
}

impl SentAway {
    /// Whether a client has looked around since it was first sent away. Otherwise it is noted.
    pub(crate) fn has_looked_around(&mut self, client: &str, now: Time) -> bool {
        if self.since.get(client).is_some_and(|at| now >= *at + FORGOTTEN) {
            self.since.remove(client);
        }
        if let Some(at) = self.since.get(client) {
            return now >= *at + LOOK_AROUND;
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
        use Other::{Down, HasQuorum, NoQuorum, Silent};

        for (others, wanted) in [
            (&[] as &[Other], false),
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
        let (may, none) = (&[Other::Silent], &[Other::Down]);
        for (stale_for, leave_after, others, wanted) in [
            (0, 30, may, Outlook::Quorum),
            (4, 30, may, Outlook::Elsewhere),
            (30, 30, may, Outlook::Leave),
            (99, 30, none, Outlook::Nowhere),
            (99, 0, may, Outlook::Elsewhere),
        ] {
            let outlook = Outlook::new(secs(stale_for), secs(leave_after), others);
            assert_eq!(outlook, wanted, "{stale_for} {leave_after} {others:?}");
        }
    }

    #[test]
    fn a_client_is_sent_away_until_it_has_looked_around() {
        let mut sent_away = SentAway::default();
        let at = |secs| Duration::from_secs(secs);
        assert!(!sent_away.has_looked_around("a", at(100)));
        assert!(!sent_away.has_looked_around("a", at(104)));
        assert!(sent_away.has_looked_around("a", at(105)));
        assert!(!sent_away.has_looked_around("b", at(105)));
        assert!(sent_away.has_looked_around("a", at(600)));
        assert!(!sent_away.has_looked_around("a", at(701)), "that was another time");
    }

    #[test]
    fn a_crowd_is_not_remembered_for_ever() {
        let mut sent_away = SentAway::default();
        for client in 0..REMEMBERED + 10 {
            sent_away.has_looked_around(&client.to_string(), Duration::from_millis(client as u64));
        }
        assert_eq!(sent_away.since.len(), REMEMBERED);
        assert!(!sent_away.since.contains_key("0"));
    }
}
