//! The key-value machine, as stories and against a model.

mod bench;
mod generator;
mod model;
mod property;
mod scripts;
