//! How many files and connections the process may have open, and how they are shared out.
//!
//! The system counts both as open files. Without a share for itself a server that has many callers
//! cannot open the next file of its database, and ends.

use std::io;

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

use crate::listener::Limit;

#[cfg(test)]
mod tests;

/// More than this is not asked of the system: some programs go through all numbers up to the limit.
const ENOUGH: rlim_t = 1 << 20;

/// What the server keeps for its databases and for the servers that it dials: this part of all, and
/// at least so many.
const OWN_PART: u64 = 4;
const OWN_LEAST: u64 = 256;

/// Connections to the admin port, which few ask.
const ADMIN: u64 = 64;

/// A port that could have fewer connections than this is given this many all the same.
const LEAST: u64 = 16;

/// How many connections each port may have.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) mesh: Limit,
    pub(crate) kv: Limit,
    pub(crate) admin: Limit,
}

impl Limits {
    /// Shares out what is left of `open_files` once the server has its own.
    pub(crate) fn of(open_files: u64, has_kv: bool) -> Self {
        let own = (open_files / OWN_PART).max(OWN_LEAST);
        let callers = open_files.saturating_sub(own).saturating_sub(ADMIN);
        // Callers of one port never take the place of another's: a crowd of clients must not keep
        // the servers from each other.
        let each = if has_kv { callers / 2 } else { callers };
        let limit = |most: u64| Limit::new(usize::try_from(most.max(LEAST)).unwrap_or(usize::MAX));
        Self { mesh: limit(each), kv: limit(each), admin: limit(ADMIN) }
    }
}

/// Raises the process's limit of open files as far as it may, and returns it.
pub(crate) fn raise_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.min(ENOUGH);
    if soft >= wanted {
        return Ok(soft);
    }
    setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)?;
    Ok(wanted)
}
