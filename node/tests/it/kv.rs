//! The key-value machine, by scripts and against a model.

pub(crate) mod generator;
mod model;
mod property;
mod scripts;
mod test_machine;
