//! Becoming a first member of a mesh: reserve, commit or release, as a pure machine.
//!
//! `quorate init` reserves every listed server for one formation and then commits it on all. A
//! reservation keeps a second `init` out, and it expires. A server that missed the commit adopts
//! the formation from a member's Hello. No server forms a mesh by a timer, and none forms two.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use proto::quorate::v1 as pb;

use crate::{
    identity::{FormationMemberRecord, FormationRecord},
    ids::{MeshId, NodeId},
};

/// How long a server stays reserved for a formation that is neither committed nor released.
pub(crate) const RESERVATION: Duration = Duration::from_secs(10);

/// The state of a server that is asked to form a mesh.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) node_id: NodeId,
    pub(crate) store_id: u64,
    pub(crate) mesh: Option<MeshId>,
    /// The only mesh that it may belong to, if one is configured.
    pub(crate) expected_mesh: Option<MeshId>,
    /// The mesh of the configured seeds, if they answered with one.
    pub(crate) met_mesh: Option<MeshId>,
    pub(crate) formation: Option<pb::Formation>,
    pub(crate) awaits_forming: bool,
}

/// The reservation of a server, if it has one.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    held: Option<(pb::Formation, Instant)>,
}

/// Why a step of forming is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormError {
    #[error("malformed formation: {0}")]
    Malformed(&'static str),
    #[error("the formation does not name this server with its store")]
    NotAMember,
    #[error("this server already belongs to mesh {0}")]
    InMesh(MeshId),
    #[error(
        "this server was told of servers of mesh {0}; if it was a member, start it with the data \
         directory that it had, else with other --peers"
    )]
    Met(MeshId),
    #[error("this server may only be in mesh {0}")]
    NotExpected(MeshId),
    #[error("this server does not wait to be formed")]
    NotAwaited,
    #[error("this server is reserved for another formation")]
    Held,
    #[error("this server is not reserved for this formation, or not any more")]
    NotHeld,
}

/// What a commit asks of the caller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Commit {
    /// Store the record durably, then answer.
    Store(FormationRecord),
    /// The formation is stored already.
    Done,
}

impl Reservations {
    /// Reserves the server for a formation. Repeating it extends the reservation.
    pub(crate) fn reserve(
        &mut self,
        candidate: &Candidate,
        formation: &pb::Formation,
        now: Instant,
    ) -> Result<(), FormError> {
        if check(candidate, formation)? == FormationStatus::Formed {
            return Ok(());
        }
        // This check is not made for `adopt`: a formation that names this server is adopted
        // whatever mesh was met.
        if let Some(met) = &candidate.met_mesh
            && met.as_str() != formation.mesh_id
        {
            return Err(FormError::Met(met.clone()));
        }
        self.check_free_for(formation, now)?;
        self.held = Some((formation.clone(), now + RESERVATION));
        Ok(())
    }

    /// Makes the server a member, if it is reserved for exactly this formation.
    pub(crate) fn commit(
        &mut self,
        candidate: &Candidate,
        formation: &pb::Formation,
        now: Instant,
    ) -> Result<Commit, FormError> {
        if check(candidate, formation)? == FormationStatus::Formed {
            return Ok(Commit::Done);
        }
        if self.current(now) != Some(formation) {
            return Err(FormError::NotHeld);
        }
        Ok(Commit::Store(to_record(formation)))
    }

    /// Ends the reservation for this formation. A reservation for another formation stays.
    pub(crate) fn release(&mut self, formation: &pb::Formation) {
        self.held.take_if(|(held, _)| held == formation);
    }

    /// Adopts a formation that a member reports, if this server missed its commit.
    pub(crate) fn adopt(
        &mut self,
        candidate: &Candidate,
        formation: &pb::Formation,
        now: Instant,
    ) -> Result<Commit, FormError> {
        if check(candidate, formation)? == FormationStatus::Formed {
            return Ok(Commit::Done);
        }
        self.check_free_for(formation, now)?;
        Ok(Commit::Store(to_record(formation)))
    }

    fn check_free_for(&self, formation: &pb::Formation, now: Instant) -> Result<(), FormError> {
        match self.current(now) {
            Some(held) if held != formation => Err(FormError::Held),
            Some(_) | None => Ok(()),
        }
    }

    fn current(&self, now: Instant) -> Option<&pb::Formation> {
        self.held.as_ref().filter(|(_, until)| now < *until).map(|(formation, _)| formation)
    }
}

#[derive(Debug, PartialEq, Eq)]
enum FormationStatus {
    NotFormed,
    /// This formation is committed here.
    Formed,
}

fn check(candidate: &Candidate, formation: &pb::Formation) -> Result<FormationStatus, FormError> {
    let Ok(mesh) = formation.mesh_id.parse::<MeshId>() else {
        return Err(FormError::Malformed("mesh id"));
    };
    let ids: BTreeSet<NodeId> = formation.members.iter().map(|member| member.node_id).collect();
    if ids.len() != formation.members.len() || ids.contains(&0) {
        return Err(FormError::Malformed("members are not distinct servers"));
    }
    let names_us = formation
        .members
        .iter()
        .any(|member| member.node_id == candidate.node_id && member.store_id == candidate.store_id);
    if !names_us {
        return Err(FormError::NotAMember);
    }
    if candidate.formation.as_ref() == Some(formation) {
        return Ok(FormationStatus::Formed);
    }
    if let Some(mesh) = &candidate.mesh {
        return Err(FormError::InMesh(mesh.clone()));
    }
    if let Some(expected) = candidate.expected_mesh.as_ref().filter(|it| **it != mesh) {
        return Err(FormError::NotExpected(expected.clone()));
    }
    if !candidate.awaits_forming {
        return Err(FormError::NotAwaited);
    }
    Ok(FormationStatus::NotFormed)
}

pub(crate) fn to_record(formation: &pb::Formation) -> FormationRecord {
    let members = formation.members.iter().map(|member| FormationMemberRecord {
        node_id: member.node_id,
        store_id: member.store_id,
        address: member.address.clone(),
    });
    FormationRecord { mesh_id: formation.mesh_id.clone(), members: members.collect() }
}

pub(crate) fn from_record(record: &FormationRecord) -> pb::Formation {
    let members = record.members.iter().map(|member| pb::FormationMember {
        node_id: member.node_id,
        store_id: member.store_id,
        address: member.address.clone(),
    });
    pb::Formation { mesh_id: record.mesh_id.clone(), members: members.collect() }
}

#[cfg(test)]
mod tests;
