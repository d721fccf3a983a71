//! The crate from outside: the descriptors, the page about documents, and input at random.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests read the files that they compare with"
)]

mod descriptors;
mod page;
mod random;
