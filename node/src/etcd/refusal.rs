//! Errors as gRPC statuses with etcd's codes and texts.

use std::error::Error;

use raft::{ChangeError, ReadError, WriteError};
use tonic::Status;
use tracing::error;

use crate::kv::{KvError, Refusal};

pub(super) fn of_refusal(refusal: Refusal) -> Status {
    Status::new(refusal.code(), refusal.to_string())
}

pub(super) fn of_kv(error: KvError) -> Status {
    match error {
        KvError::Refused(refusal) => of_refusal(refusal),
        KvError::Storage(error) => {
            error!(%error, cause = error.source(), "a read failed");
            Status::data_loss("etcdserver: the rows could not be read")
        }
    }
}

/// When the outcome is not known, the text is one after which no client of etcd repeats a write by
/// itself.
pub(super) fn of_write(error: &WriteError) -> Status {
    match error {
        WriteError::NoLeader | WriteError::QuorumLost => no_leader(),
        WriteError::NoQuorum(_) | WriteError::Unconfirmed(_) => no_quorum(error),
        WriteError::DeadlineExceeded => timed_out(),
        WriteError::OutcomeUnknown => Status::unavailable(
            "etcdserver: request timed out, possibly due to previous leader failure",
        ),
        WriteError::TooLarge { .. } => of_refusal(Refusal::RequestTooLarge),
        WriteError::Busy => Status::resource_exhausted("etcdserver: too many requests"),
        WriteError::TooNew { .. } => Status::unavailable(format!("etcdserver: {error}")),
        WriteError::Stopped => stopped(),
    }
}

pub(super) fn of_read(error: &ReadError) -> Status {
    match error {
        ReadError::NoLeader => no_leader(),
        ReadError::NoQuorum(_) => no_quorum(error),
        ReadError::NotLeader { .. } => Status::unavailable("etcdserver: leader changed"),
        ReadError::DeadlineExceeded => timed_out(),
        ReadError::Stopped => stopped(),
    }
}

pub(super) fn of_change(error: &ChangeError) -> Status {
    match error {
        ChangeError::NotLeader { .. } => not_leader(),
        ChangeError::MembershipChanged | ChangeError::Refused(_) => bad_transferee(),
        ChangeError::OutcomeUnknown => timed_out(),
        ChangeError::Stopped => stopped(),
    }
}

pub(super) fn not_leader() -> Status {
    Status::failed_precondition("etcdserver: not leader")
}

pub(super) fn bad_transferee() -> Status {
    Status::failed_precondition("etcdserver: bad leader transferee")
}

fn no_leader() -> Status {
    Status::unavailable("etcdserver: no leader")
}

/// Says at once that there is no quorum; etcd would let the caller wait for its whole deadline.
fn no_quorum(reason: &impl Error) -> Status {
    Status::unavailable(format!("etcdserver: {reason}"))
}

fn timed_out() -> Status {
    Status::unavailable("etcdserver: request timed out")
}

fn stopped() -> Status {
    Status::unavailable("etcdserver: server stopped")
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    /// S12: the text by which etcd's clients know this error.
    #[test]
    fn a_command_beyond_the_limit_is_told_so_in_etcds_words() {
        let told = of_write(&WriteError::Busy);
        assert_eq!(told.code(), Code::ResourceExhausted);
        assert_eq!(told.message(), "etcdserver: too many requests");
    }
}
