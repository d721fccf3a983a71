//! The sorts of clients there are.

use discovery::stream::Variant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behavior {
    /// All clusters and listeners; endpoints and routes as those name them.
    Envoy,
    /// Some listeners by name; the rest as those name it.
    Grpc,
    /// Anything, by chance.
    Wild,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Character {
    pub behavior: Behavior,
    pub variant: Variant,
    /// Rejects responses with bad resources; the good ones among them it keeps.
    pub picky: bool,
    /// Keeps nothing of a difference that it rejects.
    pub strict: bool,
}

impl Character {
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for behavior in [Behavior::Envoy, Behavior::Grpc, Behavior::Wild] {
            for variant in [Variant::Delta, Variant::Sotw] {
                for (picky, strict) in [(false, false), (true, false), (true, true)] {
                    all.push(Self { behavior, variant, picky, strict });
                }
            }
        }
        all
    }
}
