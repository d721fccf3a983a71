//! The level of a group: which commands all its replicas know.
//!
//! A version of this software knows the commands of all levels up to its own. A replica cannot
//! apply a command of a higher level. If it skipped the command, its state would silently differ
//! from that of the others. So two rules hold:
//!
//! - No command above the group's level is proposed. The level is part of the replicated state. It
//!   begins at [`FIRST`], and the leader raises it once every voter has announced a higher one.
//!   During a rolling upgrade it stays as it was until the last voter is upgraded.
//! - A replica that meets a command it does not know stops, and says that it must be upgraded. This
//!   happens to a server that is older than the level of its group.
//!
//! A replica announces its level in its answers to the leader's appends.

/// The level of a group that was never raised.
pub(crate) const FIRST: u32 = 1;

/// The commands of a state machine, as this version knows them.
#[derive(Debug, Clone, Copy)]
pub struct Commands {
    /// The highest level that this version knows.
    pub level: u32,
    /// The level that a group must have for a command; none if this version does not know it.
    pub level_of: fn(&[u8]) -> Option<u32>,
}

/// A member and the level that it has announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Announced {
    pub(crate) voter: bool,
    /// None if it has announced nothing since this server started.
    pub(crate) level: Option<u32>,
}

/// The level to which a leader raises its group, if there is a higher one that every voter has
/// announced. A learner that announced a lower level holds it back too; a learner that announced
/// none does not.
pub(crate) fn next_level(
    current: u32,
    members: impl IntoIterator<Item = Announced>,
) -> Option<u32> {
    let mut lowest: Option<u32> = None;
    for member in members {
        match (member.voter, member.level) {
            (true, None) => return None,
            (false, None) => {}
            (_, Some(level)) => lowest = Some(lowest.map_or(level, |it| it.min(level))),
        }
    }
    lowest.filter(|lowest| *lowest > current)
}

/// The message of a replica that this version is too old for.
pub(crate) fn outdated(what: &str, needs: u32, knows: u32) -> String {
    format!(
        "{what} needs level {needs}, and this version knows levels up to {knows}: upgrade this \
         server to the version of the others"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(level: u32) -> Announced {
        Announced { voter: true, level: Some(level) }
    }

    const SILENT: Announced = Announced { voter: true, level: None };

    #[test]
    fn a_level_is_raised_when_every_voter_knows_it() {
        let learner = |level| Announced { voter: false, level };
        let table: [(&[Announced], Option<u32>); 9] = [
            (&[voter(1), voter(1), voter(1)], None),
            (&[voter(2), voter(2), voter(1)], None),
            (&[voter(2), voter(2), SILENT], None),
            (&[voter(2), voter(2), voter(2)], Some(2)),
            (&[voter(3), voter(2), voter(4)], Some(2)),
            (&[voter(2), learner(Some(1))], None),
            (&[voter(2), learner(None)], Some(2)),
            (&[learner(Some(2)), SILENT], None),
            (&[], None),
        ];
        for (members, expected) in table {
            assert_eq!(next_level(1, members.iter().copied()), expected, "{members:?}");
        }
    }

    #[test]
    fn a_level_is_never_lowered() {
        assert_eq!(next_level(3, [voter(2), voter(2)]), None);
        assert_eq!(next_level(3, [voter(3), voter(3)]), None);
    }
}
