//! How a server becomes a member of a mesh: it forms, adopts or joins one. The membership is
//! durable before it is published.

use std::{io, time::Instant};

use proto::quorate::v1 as pb;

use crate::{
    book::Hint,
    formation::{Candidate, Commit, FormError, Reservations, from_record, to_record},
    ids::MeshId,
    part::Mesh,
};

/// This server belongs to another mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("this server belongs to mesh {ours}, not {theirs}")]
pub struct MeshMismatch {
    /// The mesh that this server belongs to, or the only one that it may belong to.
    pub ours: MeshId,
    pub theirs: MeshId,
}

/// A mesh could not be adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    #[error(transparent)]
    Mismatch(#[from] MeshMismatch),
    #[error("cannot write the identity file")]
    Io(#[source] io::Error),
}

/// A server could not form a mesh by itself.
#[derive(Debug, thiserror::Error)]
pub enum FormAloneError {
    #[error("this server joined mesh {0}, it was not formed alone")]
    InMesh(MeshId),
    #[error("this server may only be in mesh {0}, and alone it would form another")]
    Expected(MeshId),
    #[error("cannot write the identity file")]
    Io(#[source] io::Error),
}

/// A step of forming was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FormStepError {
    #[error(transparent)]
    Refused(#[from] FormError),
    #[error("cannot write the identity file")]
    Io(#[source] io::Error),
}

impl Mesh {
    /// Makes this server a member of an existing mesh, durably.
    pub fn adopt_mesh(&self, theirs: &MeshId) -> Result<(), AdoptError> {
        let mut dir = self.lock_dir();
        let ours = self.id();
        match ours.clone().or_else(|| self.inner.expected_mesh.clone()) {
            Some(ours) if ours != *theirs => {
                return Err(MeshMismatch { ours, theirs: theirs.clone() }.into());
            }
            _ if ours.is_some() => return Ok(()),
            _ => {}
        }
        dir.set_mesh(theirs).map_err(AdoptError::Io)?;
        // Published under the lock, so that the next holder of the lock sees the mesh that is on
        // disk.
        self.inner.mesh.send_replace(Some(theirs.clone()));
        drop(dir);
        Ok(())
    }

    /// Forms a mesh of this server alone, durably. Returns the existing formation if there is one.
    pub fn form_alone(&self) -> Result<pb::Formation, FormAloneError> {
        // Locked until the formation is published, so that no other formation or mesh comes in
        // between.
        let mut dir = self.lock_dir();
        if let Some(formation) = self.inner.formation.borrow().clone() {
            return Ok(formation);
        }
        if let Some(ours) = self.id() {
            return Err(FormAloneError::InMesh(ours));
        }
        if let Some(expected) = self.inner.expected_mesh.clone() {
            return Err(FormAloneError::Expected(expected));
        }
        let formation = pb::Formation {
            mesh_id: MeshId::generate().to_string(),
            members: vec![pb::FormationMember {
                node_id: self.inner.identity.node_id,
                store_id: self.inner.identity.store_id,
                address: self.inner.config.advertise.to_string(),
            }],
        };
        dir.set_formation(to_record(&formation)).map_err(FormAloneError::Io)?;
        self.publish_formation(formation.clone());
        drop(dir);
        Ok(formation)
    }

    pub(crate) fn reserve(&self, formation: &pb::Formation) -> Result<(), FormStepError> {
        let candidate = self.candidate();
        self.lock_reservations().reserve(&candidate, formation, Instant::now())?;
        Ok(())
    }

    pub(crate) fn release(&self, formation: &pb::Formation) {
        self.lock_reservations().release(formation);
    }

    /// Blocks while the disk syncs.
    pub(crate) fn commit(&self, formation: &pb::Formation) -> Result<(), FormStepError> {
        self.become_member(|reservations, candidate| {
            reservations.commit(candidate, formation, Instant::now())
        })
    }

    /// Adopts a formation that a member reported. Blocks while the disk syncs.
    pub(crate) fn adopt_formation(&self, formation: &pb::Formation) -> Result<(), FormStepError> {
        self.become_member(|reservations, candidate| {
            reservations.adopt(candidate, formation, Instant::now())
        })
    }

    /// Publishes a formation that is durable, with its members' addresses as first hints.
    pub(crate) fn publish_formation(&self, formation: pb::Formation) {
        let ours = self.inner.identity.node_id;
        for member in formation.members.iter().filter(|member| member.node_id != ours) {
            if let Ok(address) = member.address.parse() {
                // Epoch 0, so that any hint of the server itself is newer.
                self.inner.book.learn(Hint {
                    node_id: member.node_id,
                    boot_epoch: 0,
                    start: 0,
                    moves: 0,
                    address,
                    services: Vec::new(),
                });
            }
        }
        if let Ok(mesh) = formation.mesh_id.parse::<MeshId>() {
            self.inner.mesh.send_replace(Some(mesh));
        }
        self.inner.formation.send_replace(Some(formation));
    }

    fn become_member(
        &self,
        decide: impl FnOnce(&mut Reservations, &Candidate) -> Result<Commit, FormError>,
    ) -> Result<(), FormStepError> {
        // Locked throughout, so that no other formation or mesh comes in between.
        let mut dir = self.lock_dir();
        let candidate = self.candidate();
        let decided = decide(&mut self.lock_reservations(), &candidate)?;
        let record = match decided {
            Commit::Done => return Ok(()),
            Commit::Store(record) => record,
        };
        let formation = from_record(&record);
        dir.set_formation(record).map_err(FormStepError::Io)?;
        self.publish_formation(formation);
        Ok(())
    }

    fn candidate(&self) -> Candidate {
        Candidate {
            node_id: self.inner.identity.node_id,
            store_id: self.inner.identity.store_id,
            mesh: self.id(),
            expected_mesh: self.inner.expected_mesh.clone(),
            met_mesh: self.met_mesh().borrow().clone(),
            formation: self.inner.formation.borrow().clone(),
            awaits_forming: self.inner.config.awaits_forming,
        }
    }
}
