//! The key-value machine, as stories and against a model.

mod bench;
pub(crate) mod generator;
mod model;
mod property;
mod scripts;
