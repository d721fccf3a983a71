//! The key-value machine: what a put, a delete, a transaction and a compaction do to the rows of a
//! namespace, exactly as in etcd v3.
//!
//! A namespace has one *revision*, which starts at 1. A command that changes something raises it by
//! one, however many keys it changes; a command that changes nothing leaves it. Within a revision
//! the changes are counted by a *sub-revision* from 0. Every version of a key is kept until a
//! compaction, so that a read may name an older revision.
//!
//! ```text
//!              ┌────────────────────────────────────────────────────────────┐
//!   KvCommand ─► machine ─► put / delete / txn (pick, check, run) / compact │─► KvReply
//!              │                │ Write                                     │
//!              │                ▼                                           │
//!              │   rows:  m  c:key  h:key+revision  r:revision              │
//!              │                ▲                                           │
//!              │                │ Read                                      │
//!   RangeRequest ───────────► range, read_txn, hash                         │─► RangeResponse
//!              └────────────────────────────────────────────────────────────┘
//! ```
//!
//! The rows are the store; only the machine's counters are kept in memory. The module `layout` says
//! what the rows are. All of this is pure, without clock, IO or async: the same commands give the
//! same rows and the same replies on every replica.
//!
//! A refusal depends only on the command and the rows, and is a reply. It is given before the first
//! row is written, so a refused command changes nothing.
//!
//! Left out: leases (a put that names one is refused), watches (the change rows are there for
//! them), and permissions.

mod compact;
mod hash;
mod layout;
mod machine;
mod read;
mod refusal;
mod span;
mod txn;
mod validate;
mod write;

pub use hash::{Hash, hash};
pub use layout::Meta;
pub use machine::KvMachine;
pub use read::range;
pub use refusal::{KvError, Refusal};
pub use txn::{is_read_only, is_serializable, read_txn};
pub use validate::{MAX_REQUEST_BYTES, check_delete_range, check_put, check_range, check_txn};

#[cfg(test)]
mod tests;
