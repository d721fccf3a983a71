//! Why the service ended.

use mesh::FormAloneError;
use raft::{InitializeError, StartGroupError, StorageError, start::StartRefusal};
use thiserror::Error;

/// Why the service ended before its shutdown.
#[derive(Debug, Error)]
pub enum DiscoError {
    #[error("the service runs already")]
    Running,
    #[error("the server cannot form a mesh alone")]
    FormAlone(#[source] FormAloneError),
    #[error("the formation of the mesh cannot be followed any more")]
    FormationLost,
    #[error("the disco group must not run on this disk")]
    Unfit(#[source] StartRefusal),
    #[error("what this disk holds of the disco group cannot be read")]
    Storage(#[from] StorageError),
    #[error("the disco group cannot be started")]
    StartGroup(#[source] StartGroupError),
    #[error("the disco group cannot be given its first voters")]
    Initialize(#[source] InitializeError),
    #[error("the mesh refuses this server: {0}")]
    Refused(String),
    #[error("a task of the service ended: {0}")]
    Task(&'static str),
    #[error("a task of the service panicked")]
    Panic(#[source] tokio::task::JoinError),
}

impl DiscoError {
    /// Whether a safety rule refused this server, so that a person must look.
    pub const fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused(_)
                | Self::Unfit(_)
                | Self::FormAlone(FormAloneError::Expected(_))
                | Self::StartGroup(StartGroupError::Outdated(_))
        )
    }
}
