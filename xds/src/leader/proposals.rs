//! Commands to the registry. They are proposed to the group, through its leader, and answered once
//! this replica has applied them, so that a caller sees its own write in its next read.

use std::time::Duration;

use prost::Message;
use proto::quorate::v1::{
    RegistryCommand, RegistryDone, RegistryRefusal, RegistryReply, registry_command::Command,
    registry_refusal::Reason, registry_reply::Outcome,
};
use raft::{Group, WriteError};
use thiserror::Error;
use tonic::Status;

use crate::publish::Board;

/// How long a command may look for a leader and then for a quorum.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// How long this replica may take to apply what the group has committed.
const APPLY_PATIENCE: Duration = Duration::from_secs(5);

/// Proposes commands and waits for their effects.
#[derive(Clone, Debug)]
pub(crate) struct Proposals {
    group: Group,
    board: Board,
}

/// Why a command has no effect that its caller could see.
#[derive(Debug, Error)]
pub(crate) enum ProposeError {
    #[error("the registry cannot be written")]
    Write(#[source] WriteError),
    #[error("committed at {index}, but this replica has not applied it yet")]
    NotApplied { index: u64 },
    #[error("the registry's reply cannot be read")]
    Garbled(#[source] prost::DecodeError),
    #[error("{}", refusal.message)]
    Refused { refusal: RegistryRefusal },
}

impl Proposals {
    pub(crate) const fn new(group: Group, board: Board) -> Self {
        Self { group, board }
    }

    pub(crate) async fn propose(&self, command: Command) -> Result<RegistryDone, ProposeError> {
        let command = RegistryCommand { command: Some(command) }.encode_to_vec();
        let applied =
            self.group.write(command.into(), WRITE_PATIENCE).await.map_err(ProposeError::Write)?;
        let reply = RegistryReply::decode(applied.reply).map_err(ProposeError::Garbled)?;
        let done = match reply.outcome {
            Some(Outcome::Done(done)) => done,
            Some(Outcome::Refused(refusal)) => return Err(ProposeError::Refused { refusal }),
            None => RegistryDone::default(),
        };
        if !self.board.wait_applied(applied.index, APPLY_PATIENCE).await {
            return Err(ProposeError::NotApplied { index: applied.index });
        }
        Ok(done)
    }
}

impl ProposeError {
    /// Whether the registry has refused the command, so that it makes no sense to try again.
    pub(crate) const fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }

    /// The status that a caller gets.
    pub(crate) fn to_status(&self) -> Status {
        match self {
            Self::Write(error) => status_of_write(error),
            Self::NotApplied { .. } => Status::unavailable(self.to_string()),
            Self::Garbled(source) => Status::internal(format!("{self}: {source}")),
            Self::Refused { refusal } => status_of_refusal(refusal),
        }
    }
}

fn status_of_write(error: &WriteError) -> Status {
    let message = format!("the registry cannot be written: {error}");
    match error {
        WriteError::NoLeader
        | WriteError::QuorumLost
        | WriteError::NoQuorum(_)
        | WriteError::Unconfirmed(_)
        | WriteError::Busy
        | WriteError::Stopped
        // It passes once every voter is upgraded.
        | WriteError::TooNew { .. } => Status::unavailable(message),
        WriteError::DeadlineExceeded | WriteError::OutcomeUnknown => {
            Status::deadline_exceeded(message)
        }
        WriteError::TooLarge { .. } => Status::invalid_argument(message),
    }
}

fn status_of_refusal(refusal: &RegistryRefusal) -> Status {
    let message = refusal.message.as_str();
    match refusal.reason() {
        Reason::Malformed => Status::invalid_argument(message),
        Reason::LeaseUnknown
        | Reason::InstanceUnknown
        | Reason::NodeUnknown
        | Reason::GroupUnknown => Status::not_found(message),
        Reason::GroupExists | Reason::HeldByAnother => Status::already_exists(message),
        Reason::StoreMismatch | Reason::Superseded => Status::failed_precondition(message),
        Reason::Alive => Status::aborted(message),
        Reason::Exhausted => Status::resource_exhausted(message),
        Reason::Unspecified => Status::internal(message),
    }
}
