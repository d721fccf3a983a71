//! The kinds of clients.

use discovery::stream::ProtocolVariant;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behavior {
    /// All clusters and listeners; endpoints and routes as those name them.
    Envoy,
    /// Some listeners by name, and everything that those lead to.
    Grpc,
    /// Random names of random types.
    Wild,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Character {
    pub behavior: Behavior,
    pub variant: ProtocolVariant,
    /// Rejects responses with bad resources, but keeps the good ones in them.
    pub picky: bool,
    /// Keeps nothing of a response that it rejects.
    pub strict: bool,
    /// Names the rejected resources in its error.
    pub talkative: bool,
    /// Rejects some listeners for a while, as if their port were in use.
    pub busy: bool,
    /// Applies responses, but never answers.
    pub silent: bool,
}

impl Character {
    pub(crate) fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for behavior in [Behavior::Envoy, Behavior::Grpc, Behavior::Wild] {
            for variant in [ProtocolVariant::Delta, ProtocolVariant::Sotw] {
                let plain = Self {
                    behavior,
                    variant,
                    picky: false,
                    strict: false,
                    talkative: false,
                    busy: false,
                    silent: false,
                };
                let picky = Self { picky: true, ..plain };
                all.extend([
                    plain,
                    picky,
                    Self { strict: true, ..picky },
                    Self { strict: true, talkative: true, ..picky },
                    Self { busy: true, talkative: true, ..plain },
                    Self { busy: true, strict: true, ..plain },
                    Self { silent: true, ..plain },
                ]);
            }
        }
        all
    }
}
