//! Whether this server may answer, and whether it is ready.
//!
//! There are three steps. A server *answers* reads of the registry and holds sessions, if need be
//! from what it knew when it stopped: answers say how old they are, and data nodes must find each
//! other without a quorum. It *serves* streams of discovery once a quorum has confirmed that it has
//! everything from before its start, since a client takes what it is sent for the latest state and
//! drops the rest. These two never become false again. It is *ready* while it serves, has a leader
//! with a quorum, and has no doubt of its own replica.

use mesh::MeshId;
use raft::Doubt;
use tokio::sync::watch;
use tonic::Status;

/// The readiness of the disco service, for health checks and operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// It answers reads of the registry and holds sessions. Once true it stays so.
    pub answering: bool,
    /// It has caught up since its start, and may serve discovery. Once true it stays so.
    pub serving: bool,
    /// What is missing, in words. Empty when the server is ready.
    pub reasons: Vec<String>,
}

impl Readiness {
    pub(crate) fn not_formed() -> Self {
        let reason = "this server belongs to no mesh yet; `quorate init` forms one";
        Self::closed(reason.to_owned())
    }

    pub(crate) fn not_a_member(mesh: &MeshId) -> Self {
        let reason = format!(
            "the servers that this one was told of are mesh {mesh}, and it is not among the DISCO \
             servers that formed it; if it was, start it with the data directory that it had"
        );
        Self::closed(reason)
    }

    /// `lacks` is what the group lacks.
    pub(crate) fn of_group(
        answering: bool,
        serving: bool,
        lacks: Option<&str>,
        doubt: Option<Doubt>,
    ) -> Self {
        let mut reasons = Vec::new();
        if let Some(doubt) = doubt {
            reasons.push(format!("the disco group's replica here {doubt}"));
        }
        if !serving {
            reasons.push("the registry has not caught up since the start".to_owned());
        }
        if let Some(lacks) = lacks {
            reasons.push(format!("the disco group has no {lacks}"));
        }
        Self { answering, serving, reasons }
    }

    fn closed(reason: String) -> Self {
        Self { answering: false, serving: false, reasons: vec![reason] }
    }

    fn refusal(&self) -> Status {
        Status::unavailable(format!("not ready: {}", self.reasons.join("; ")))
    }
}

/// Refuses callers while the server has nothing to answer from.
#[derive(Clone, Debug)]
pub(crate) struct Gate(watch::Receiver<Readiness>);

impl Gate {
    pub(crate) const fn new(readiness: watch::Receiver<Readiness>) -> Self {
        Self(readiness)
    }

    /// For reads of the registry, writes, and sessions.
    pub(crate) fn check(&self) -> Result<(), Status> {
        let readiness = self.0.borrow();
        if readiness.answering { Ok(()) } else { Err(readiness.refusal()) }
    }

    /// For streams of discovery.
    pub(crate) fn check_streams(&self) -> Result<(), Status> {
        let readiness = self.0.borrow();
        if readiness.serving { Ok(()) } else { Err(readiness.refusal()) }
    }
}
