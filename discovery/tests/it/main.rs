//! Tests of the crate's public interface: text scripts, and random histories from seeds.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests panic to fail, and a simulation says and reads its seed"
)]

mod fixture;
mod scripts;
mod sim;
