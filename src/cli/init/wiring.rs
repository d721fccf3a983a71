//! Whether the servers that `init` lists are those that the servers know of.
//!
//! The members of a mesh are decided for good. A list that is too short, because somebody tried it
//! with one server first or forgot one, gives a mesh that bears no failure; one that is too long
//! names a server that nobody will greet. Every server was told of its peers when it was started, so
//! the two are compared, and a difference is refused.
//!
//! A peer that belongs to a mesh already is refused whatever the operator says: the listed server was
//! probably a member of that mesh and has lost its disk, and the mesh still runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

use proto::quorate::v1::ServerIdentity;

use super::Server;
use crate::{cli::listed, failure::Failure};

#[cfg(test)]
mod tests;

/// The addresses that the listed servers were told of, and that are not known to be theirs.
pub(super) fn unlisted(servers: &[Server]) -> BTreeSet<SocketAddr> {
    let known: BTreeSet<SocketAddr> = servers.iter().flat_map(addresses).collect();
    servers.iter().flat_map(seeds).filter(|seed| !known.contains(seed)).collect()
}

/// Compares the list with what the servers were told. `others` says who answers at the addresses that
/// are not listed, if anybody does.
///
/// # Errors
///
/// A mesh is there already, or the lists differ and the operator did not ask for a `subset`.
pub(super) fn check(
    servers: &[Server],
    others: &BTreeMap<SocketAddr, Option<ServerIdentity>>,
    subset: bool,
) -> Result<(), Failure> {
    no_mesh_is_met(servers, others)?;
    if subset {
        return Ok(());
    }
    none_is_left_out(servers, others)?;
    all_know_each_other(servers, others)
}

fn no_mesh_is_met(
    servers: &[Server],
    others: &BTreeMap<SocketAddr, Option<ServerIdentity>>,
) -> Result<(), Failure> {
    let answered = others.iter().filter_map(|(address, identity)| {
        let mesh = &identity.as_ref()?.mesh_id;
        let told = servers.iter().find(|server| seeds(server).any(|seed| seed == *address))?;
        (!mesh.is_empty()).then(|| {
            format!("{} was told of {address}, which belongs to mesh {mesh}", told.address)
        })
    });
    let met = servers.iter().filter(|server| !server.identity.met_mesh_id.is_empty()).map(|it| {
        format!("{} was told of servers of mesh {}", it.address, it.identity.met_mesh_id)
    });
    match answered.chain(met).next() {
        None => Ok(()),
        Some(found) => Err(Failure::refused(format!("{found}; nothing was done")).hint(
            "a listed server that was a member of that mesh must be started with the data directory \
             that it had; to form another mesh of it, start it with other --peers",
        )),
    }
}

fn none_is_left_out(
    servers: &[Server],
    others: &BTreeMap<SocketAddr, Option<ServerIdentity>>,
) -> Result<(), Failure> {
    let ids: BTreeSet<u64> = servers.iter().map(|server| server.identity.node_id).collect();
    let is_listed = |identity: &Option<ServerIdentity>| {
        identity.as_ref().is_some_and(|identity| ids.contains(&identity.node_id))
    };
    let left_out: Vec<SocketAddr> = others
        .iter()
        .filter(|(_, identity)| !is_listed(identity))
        .map(|(address, _)| *address)
        .collect();
    let Some(first) = left_out.first() else { return Ok(()) };
    let told: Vec<SocketAddr> = servers
        .iter()
        .filter(|server| seeds(server).any(|seed| seed == *first))
        .map(|server| server.address)
        .collect();
    let message = format!(
        "{} was told of {} too, and it is not listed; nothing was done",
        listed(&told),
        listed(&left_out)
    );
    Err(Failure::refused(message).hint(
        "list all servers of the group, since a mesh is formed for good; a mesh of the listed ones \
         only is formed with --subset",
    ))
}

fn all_know_each_other(
    servers: &[Server],
    others: &BTreeMap<SocketAddr, Option<ServerIdentity>>,
) -> Result<(), Failure> {
    for server in servers {
        let knows = |other: &Server| {
            let by_id = |seed: &SocketAddr| {
                let identity = others.get(seed).and_then(Option::as_ref);
                identity.is_some_and(|identity| identity.node_id == other.identity.node_id)
            };
            seeds(server).any(|seed| addresses(other).any(|it| it == seed) || by_id(&seed))
        };
        let strangers: Vec<SocketAddr> = servers
            .iter()
            .filter(|other| other.identity.node_id != server.identity.node_id && !knows(other))
            .map(|other| other.address)
            .collect();
        if !strangers.is_empty() {
            let message = format!(
                "{} was not told of {}; nothing was done",
                server.address,
                listed(&strangers)
            );
            return Err(Failure::refused(message).hint(
                "start every server with --peers naming all of them, then run this again; or list \
                 only those that know each other",
            ));
        }
    }
    Ok(())
}

/// Where a listed server is: as it was listed, and as it says itself.
fn addresses(server: &Server) -> impl Iterator<Item = SocketAddr> + '_ {
    [Some(server.address), server.identity.address.parse().ok()].into_iter().flatten()
}

fn seeds(server: &Server) -> impl Iterator<Item = SocketAddr> + '_ {
    server.identity.seeds.iter().filter_map(|seed| seed.parse().ok())
}
