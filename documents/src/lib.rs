//! What people write into xDS resources, and a refusal of what clients would refuse.
//!
//! ```text
//! files ──parse──► documents ──compile──► resources ──► checks of the whole set
//!       syntax,               protobuf's JSON,        duplicates, clashes, dangling
//!       envelopes,            constraints, rules      references, sizes, removals
//!       selectors             by client kind
//! ```
//!
//! Everything here is a function of its arguments: no clock, no IO, no order but that of the input.
//! The same document gives the same bytes each time. Errors name file, document, line, field and
//! rule, and say what to do (docs/resources.md lists the rules).
//!
//! Clients refuse more than can be known from outside; what is accepted here may still be rejected.

mod constraints;
mod descriptors;
mod document;
mod encode;
mod field;
mod findings;
mod message;
mod node;
mod path;
mod problem;
mod references;
mod resource;
mod rules;
mod selector;
mod set;
mod sockets;
mod types;
mod walk;

#[cfg(test)]
mod tests;

pub use descriptors::descriptors;
pub use document::{Document, Draft, File, LARGEST_FILE, parse};
pub use problem::{Errors, MOST_PROBLEMS, Origin, Place, Problem, Severity};
pub use references::Reference;
pub use resource::{Resource, compile};
pub use selector::{Client, ClientKind, Selector};
pub use set::{Guard, Held, SIZE_WARNING, clashes, dangling, duplicates, overrides, oversized};
pub use sockets::Socket;
pub use types::{type_url, urls as type_urls};
