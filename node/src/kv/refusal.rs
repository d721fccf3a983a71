//! Refusals, with etcd's own codes and texts, since its clients compare them.

use proto::quorate::v1::KvRefusal;
use raft::rows::StorageError;
use tonic::Code;

/// Why a request is not done, in etcd's words and with its gRPC codes: clients match on both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("etcdserver: key is not provided")]
    EmptyKey,
    #[error("etcdserver: key not found")]
    KeyNotFound,
    #[error("etcdserver: value is provided")]
    ValueProvided,
    #[error("etcdserver: lease is provided")]
    LeaseProvided,
    #[error("etcdserver: requested lease not found")]
    LeaseNotFound,
    #[error("etcdserver: too many operations in txn request")]
    TooManyOperations,
    #[error("etcdserver: duplicate key given in txn request")]
    DuplicateKey,
    #[error("etcdserver: invalid sort option")]
    InvalidSortOption,
    #[error("etcdserver: request is too large")]
    RequestTooLarge,
    #[error("etcdserver: mvcc: required revision has been compacted")]
    Compacted,
    #[error("etcdserver: mvcc: required revision is a future revision")]
    FutureRevision,
}

impl Refusal {
    pub fn code(self) -> Code {
        match self {
            Self::EmptyKey
            | Self::KeyNotFound
            | Self::ValueProvided
            | Self::LeaseProvided
            | Self::TooManyOperations
            | Self::DuplicateKey
            | Self::InvalidSortOption
            | Self::RequestTooLarge => Code::InvalidArgument,
            Self::LeaseNotFound => Code::NotFound,
            Self::Compacted | Self::FutureRevision => Code::OutOfRange,
        }
    }

    pub(super) fn to_proto(self) -> KvRefusal {
        KvRefusal { code: i32::from(self.code()), message: self.to_string() }
    }
}

/// A request was refused, or the rows could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the rows could not be read")]
    Storage(#[from] StorageError),
}
