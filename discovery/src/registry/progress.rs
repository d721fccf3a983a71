//! The progress of a group as its leader last reported it: the least that its replicas must have.
//!
//! A replica that starts with less runs on a restored disk. Leaders report every few seconds, so
//! acknowledgments between two reports are missing here; the running members remember those.

use std::collections::BTreeMap;

use proto::quorate::v1 as wire;

/// The remembered progress of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The term of the leader that reported.
    pub term: u64,
    /// The last entry in that leader's log.
    pub last_index: u64,
    /// Entries up to here may have been acknowledged to clients.
    pub committed: u64,
    /// What each replica has acknowledged, by node.
    pub replicas: BTreeMap<u64, Acknowledged>,
}

/// What one replica has acknowledged to a leader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// The term of a leader that it followed.
    pub term: u64,
    /// The last committed entry that it stored.
    pub index: u64,
}

impl Progress {
    /// The progress after another report.
    ///
    /// Progress never decreases, with one exception: a leader of a later term whose log ends before
    /// the remembered commit index. Such a leader was elected only because an operator accepted the
    /// loss, so its report replaces what was remembered.
    #[must_use]
    pub fn after(&self, report: Self) -> Self {
        if report.term < self.term {
            return self.clone();
        }
        if report.term > self.term && report.last_index < self.committed {
            return report;
        }
        let replicas = report.replicas.iter().map(|(node_id, told)| {
            let known = self.replicas.get(node_id).copied().unwrap_or_default();
            let term = known.term.max(told.term);
            (*node_id, Acknowledged { term, index: known.index.max(told.index) })
        });
        Self {
            replicas: replicas.collect(),
            committed: self.committed.max(report.committed),
            ..report
        }
    }

    /// The progress that a leader reports of its group.
    pub fn reported(hosted: &wire::HostedGroup) -> Self {
        let replicas = hosted.members.iter().map(|member| {
            let stored = member.lag.map_or(0, |lag| hosted.last_index.saturating_sub(lag));
            // A replica that has stored nothing may not have heard the leader yet. Entries that are
            // not committed may be replaced by a later leader, so they are not counted.
            let acknowledged = match stored {
                0 => Acknowledged::default(),
                _ => Acknowledged { term: hosted.term, index: stored.min(hosted.committed_index) },
            };
            (member.node_id, acknowledged)
        });
        Self {
            term: hosted.term,
            last_index: hosted.last_index,
            committed: hosted.committed_index,
            replicas: replicas.collect(),
        }
    }

    pub fn from_proto(progress: wire::GroupProgress) -> Self {
        let replicas = progress
            .replicas
            .into_iter()
            .map(|it| (it.node_id, Acknowledged { term: it.term, index: it.index }));
        Self {
            term: progress.term,
            last_index: progress.last_index,
            committed: progress.committed_index,
            replicas: replicas.collect(),
        }
    }

    pub fn to_proto(&self) -> wire::GroupProgress {
        let replicas = self.replicas.iter().map(|(node_id, it)| wire::ReplicaProgress {
            node_id: *node_id,
            term: it.term,
            index: it.index,
        });
        wire::GroupProgress {
            term: self.term,
            last_index: self.last_index,
            committed_index: self.committed,
            replicas: replicas.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_a_term_add_up() {
        let known = progress(3, 12, 10, [(1, 3, 10), (2, 3, 8)]);
        let report = progress(3, 14, 13, [(1, 3, 13), (2, 0, 0)]);
        let expected = progress(3, 14, 13, [(1, 3, 13), (2, 3, 8)]);
        assert_eq!(known.after(report), expected);
    }

    #[test]
    fn an_overtaken_leader_is_not_heard() {
        let known = progress(3, 12, 10, [(1, 3, 10)]);
        assert_eq!(known.after(progress(2, 99, 99, [(1, 2, 99)])), known);
    }

    /// A leader that was just elected does not know yet how much is committed.
    #[test]
    fn a_later_leader_takes_nothing_back() {
        let known = progress(3, 12, 10, [(1, 3, 10), (2, 3, 9)]);
        let report = progress(4, 13, 0, [(1, 4, 0), (2, 0, 0)]);
        let expected = progress(4, 13, 10, [(1, 4, 10), (2, 3, 9)]);
        assert_eq!(known.after(report), expected);
    }

    #[test]
    fn who_is_no_member_any_more_is_forgotten() {
        let known = progress(3, 12, 10, [(1, 3, 10), (2, 3, 9)]);
        let report = progress(3, 12, 10, [(1, 3, 10)]);
        assert_eq!(known.after(report.clone()), report);
    }

    /// D2: a leader with less than the remembered progress was allowed to lead by an operator.
    #[test]
    fn an_accepted_loss_is_forgotten() {
        let known = progress(3, 12, 10, [(1, 3, 10), (2, 3, 10)]);
        let report = progress(4, 8, 8, [(1, 4, 8), (2, 0, 0)]);
        assert_eq!(known.after(report.clone()), report);
    }

    #[test]
    fn it_is_kept_as_it_is() {
        let known = progress(3, 12, 10, [(1, 3, 10), (2, 2, 9)]);
        assert_eq!(Progress::from_proto(known.to_proto()), known);
    }

    fn progress<const N: usize>(
        term: u64,
        last_index: u64,
        committed: u64,
        replicas: [(u64, u64, u64); N],
    ) -> Progress {
        let replicas =
            replicas.map(|(node_id, term, index)| (node_id, Acknowledged { term, index }));
        Progress { term, last_index, committed, replicas: replicas.into() }
    }
}
