//! Why a command is refused. Every replica refuses it for the same reason.

use proto::quorate::v1::{RegistryRefusal, registry_refusal::Reason};

use super::name::Unfit;
use crate::options::WrongOption;

/// A refusal depends only on the command and the registry, never on the replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) reason: Reason,
    /// What is wrong, and what would be accepted.
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    pub(super) fn into_proto(self) -> RegistryRefusal {
        RegistryRefusal { reason: self.reason.into(), message: self.message }
    }
}

impl From<Unfit> for Refusal {
    fn from(unfit: Unfit) -> Self {
        malformed(unfit.to_string())
    }
}

impl From<WrongOption> for Refusal {
    fn from(wrong: WrongOption) -> Self {
        malformed(wrong.to_string())
    }
}

pub(super) fn malformed(message: impl Into<String>) -> Refusal {
    Refusal::new(Reason::Malformed, message)
}
