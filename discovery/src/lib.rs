//! The pure middle of the `disco` service: what exists, and which client is sent what.
//!
//! The first half is about what exists: the registry of instances that DISCO replicates, the
//! [`options`] of its services, and the translation of that registry to xDS resources. The second
//! half is about the clients: the versioned [`snapshot`] of those resources, the [`interest`] that
//! tells which clients a change concerns, and the [`stream`] machine that decides, for one ADS
//! connection, which response is due and when.
//!
//! ```text
//!   registry ──translation──► ResourceChange ──► Snapshot ──► Stream ──► responses
//!                                                               ▲
//!                                                 requests, ACKs and NACKs
//! ```
//!
//! Nothing here waits, reads a clock, does IO or draws a random number. The same inputs give the
//! same outputs, so every replica computes the same snapshot with the same versions, and a test
//! replays any history from a seed.

pub mod interest;
pub mod lease;
pub mod options;
pub mod placement;
pub mod registry;
pub mod resource;
pub mod snapshot;
pub mod stream;
pub mod translation;
