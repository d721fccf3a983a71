//! Which refusals end a session for good.

use tonic::Code;

/// What to do after a server ended or refused a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go to another server, later to the same one again.
    TryAnother,
    /// Stop the node, if the server belongs to the node's own mesh; else go to another one.
    FatalFromOwnMesh,
    /// Stop the node: a person must look.
    Fatal,
}

/// Judges a gRPC status.
///
/// Only what a server says about *this node* is fatal: wrong mesh, wrong store, a copied disk, a
/// malformed introduction. Before any server has accepted this process, that is final. Afterwards
/// the node serves, and a foreign server that took over a known address must not stop it; but its
/// own mesh must be able to, since a copy of its disk that was started elsewhere votes under the
/// same id. All other codes say something about the server or the way to it: `UNIMPLEMENTED` is a
/// data node's mesh port, `UNAVAILABLE` a server without a quorum.
pub(crate) fn judge(code: Code, accepted_before: bool) -> Verdict {
    match code {
        Code::FailedPrecondition | Code::AlreadyExists if accepted_before => {
            Verdict::FatalFromOwnMesh
        }
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated
            if accepted_before =>
        {
            Verdict::TryAnother
        }
        Code::FailedPrecondition
        | Code::AlreadyExists
        | Code::InvalidArgument
        | Code::PermissionDenied
        | Code::Unauthenticated => Verdict::Fatal,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Verdict::TryAnother,
    }
}
