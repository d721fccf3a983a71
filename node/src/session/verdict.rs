//! Which statuses of a DISCO server are final.

use tonic::Code;

/// What to do after a server ended or refused a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Go to another server, later to the same one again.
    TryAnother,
    /// The server will say the same again. If it belongs to the node's own mesh the node stops, since
    /// a person must look; else another server may be of the node's own mesh.
    Final,
}

/// Judges a gRPC status.
///
/// Only what a server says about *this node* is final: wrong mesh, wrong store, a copied disk, a
/// malformed introduction. Once a server has accepted this process, its introduction was not
/// malformed; then only a copy of its disk that was started elsewhere is final, since the copy
/// votes under the same id. All other codes say something about the server or the way to it:
/// `UNIMPLEMENTED` is a data node's mesh port, `UNAVAILABLE` a server without a quorum.
pub(crate) fn verdict_of(code: Code, accepted_before: bool) -> Verdict {
    match code {
        Code::FailedPrecondition | Code::AlreadyExists => Verdict::Final,
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated
            if accepted_before =>
        {
            Verdict::TryAnother
        }
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated => Verdict::Final,
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
