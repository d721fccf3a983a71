//! The sorts of clients there are.

use discovery::stream::ProtocolVariant;

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
    pub variant: ProtocolVariant,
    /// Rejects responses with bad resources; the good ones among them it keeps.
    pub picky: bool,
    /// Keeps nothing of a response that it rejects.
    pub strict: bool,
    /// Says in its error which resources it rejects.
    pub talkative: bool,
    /// Has no port for some listeners, for a while.
    pub busy: bool,
    /// Takes what it is sent, and never answers.
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
