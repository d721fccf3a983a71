//! Answers a Hello. Anybody can call, so no claim of a caller is believed. A call costs a bounded
//! amount of memory, and causes dials only for servers that are known.

use proto::quorate::v1 as pb;

use super::to_proto;
use crate::{
    part::Mesh,
    proof,
    starts::{Start, StartOrder, compare},
};

/// Bytes of a proof.
const PROOF_BYTES: usize = 32;

pub(crate) fn answer(mesh: &Mesh, request: &pb::HelloRequest) -> pb::HelloReply {
    let server = mesh.server_identity();
    let same_mesh = !server.mesh_id.is_empty() && server.mesh_id == request.mesh_id;
    let (mut known, mut other_starts) = (Vec::new(), Vec::new());
    if same_mesh {
        if let Some(sender) = &request.sender {
            other_starts = record_claims(mesh, sender, request);
        }
        known = mesh.book().hints().iter().map(to_proto).collect();
        known.push(to_proto(&mesh.own_hint()));
    }
    let formation = mesh.formation().borrow().clone().filter(|formation| {
        let sender = request.sender.as_ref().map(|sender| sender.node_id);
        request.mesh_id.is_empty()
            && formation.members.iter().any(|member| Some(member.node_id) == sender)
    });
    pb::HelloReply { server: Some(server), known, formation, other_starts }
}

/// Notes the claims that are to be checked. Returns the proofs that other starts of the sender left
/// for it.
fn record_claims(
    mesh: &Mesh,
    sender: &pb::AddressHint,
    request: &pb::HelloRequest,
) -> Vec<pb::OtherStart> {
    let identity = &mesh.inner.identity;
    let rumors = &mesh.inner.rumors;
    if sender.node_id == identity.node_id {
        return answer_own_id(mesh, sender, request);
    }
    let Some(counted) = mesh.book().hint(sender.node_id) else { return Vec::new() };
    let told = Start { epoch: sender.boot_epoch, number: sender.start };
    let has_moved = sender.address != counted.address.to_string();
    let is_newer = match compare(Some(counted.start()), told) {
        StartOrder::Counted => has_moved && sender.moves > counted.moves,
        StartOrder::Later => true,
        StartOrder::Earlier | StartOrder::Copy | StartOrder::Implausible => false,
    };
    if is_newer && has_moved {
        if let Ok(address) = sender.address.parse() {
            rumors.claim(sender.node_id, address);
        }
    } else if is_newer {
        rumors.request_lookup(sender.node_id);
    }
    // If the sender counts another start of this server, it is asked, to learn which one.
    let of_us = request.known.iter().filter(|hint| hint.node_id == identity.node_id);
    let of_us = of_us.map(|hint| Start { epoch: hint.boot_epoch, number: hint.start });
    let differs = |start| {
        matches!(compare(Some(identity.start()), start), StartOrder::Later | StartOrder::Copy)
    };
    if of_us.into_iter().any(differs) {
        rumors.request_lookup(sender.node_id);
    }
    if let Some(other_start) =
        request.other_start.as_ref().filter(|it| it.proof.len() == PROOF_BYTES)
    {
        rumors.keep_proof(sender.node_id, other_start.clone());
    }
    rumors.proofs_for(sender.node_id, sender.start)
}

/// Answers a caller with this server's own id. Its proof is checked, and the answer proves to it
/// that this start runs.
fn answer_own_id(
    mesh: &Mesh,
    sender: &pb::AddressHint,
    request: &pb::HelloRequest,
) -> Vec<pb::OtherStart> {
    let start = mesh.inner.identity.start;
    if sender.start == start {
        return Vec::new();
    }
    let dir = mesh.lock_dir();
    if let Some(other_start) = &request.other_start
        && proof::verify(dir.secret(), other_start, start)
    {
        mesh.inner.copy_proven.cancel();
    }
    vec![proof::make(dir.secret(), start, sender.start)]
}

#[cfg(test)]
mod tests;
