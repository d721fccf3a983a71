//! The first client, alone: learns which clusters there are, and whether the server can be reached at
//! all, before many others come.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use bytes::{Bytes, BytesMut};
use tokio::{
    select,
    time::{Instant, sleep_until},
};

use super::{
    connection::{Broken, Conversation, connect},
    interest::Names,
    wire::{EVERYTHING, Kind, Malformed, Request, Response, Variant},
};
use crate::failure::{Code, Failure, chain};

/// A server that has been silent for so long after a response has said everything.
const SILENCE: Duration = Duration::from_millis(500);

/// Learns the names that a server has.
pub(super) async fn names(
    server: SocketAddr,
    variant: Variant,
    node: &[u8],
    within: Duration,
) -> Result<Names, Failure> {
    let deadline = Instant::now() + within;
    let mut found = Found::default();
    let outcome = select! {
        outcome = learn(server, variant, node, &mut found) => outcome,
        () = sleep_until(deadline) => {
            let message = format!("{server}: no answer from xDS in {} s", within.as_secs());
            return Err(Failure::new(Code::Timeout, message)
                .hint("does the server wait for a node of a certain id? --node-id names it"));
        }
    };
    outcome.map_err(|broken| failure(server, &broken))?;
    if found.0.is_empty() {
        let message = format!("{server} has no cluster whose endpoints come by EDS");
        return Err(Failure::new(Code::NoneFound, message).hint(
            "without clusters there is nothing to measure: register services, or see whether the \
             server has other ones for another node (--node-id, --node-cluster)",
        ));
    }
    Ok(Names::new(found.0))
}

/// Clusters by name, with the names of their assignments.
#[derive(Debug, Default)]
struct Found(BTreeMap<Bytes, Bytes>);

impl Found {
    fn add(&mut self, variant: Variant, message: &[u8]) -> Result<(), Malformed> {
        let response = Response::parse(variant, message)?;
        if response.kind != Some(Kind::Clusters) {
            return Ok(());
        }
        for resource in response.resources() {
            let resource = resource?;
            if let Some(assignment) = resource.assignment_name()? {
                let (cluster, assignment) = (resource.name.to_vec(), assignment.to_vec());
                self.0.insert(cluster.into(), assignment.into());
            }
        }
        Ok(())
    }
}

async fn learn(
    server: SocketAddr,
    variant: Variant,
    node: &[u8],
    found: &mut Found,
) -> Result<(), Broken> {
    let (sender, connection) = connect(server).await?;
    let names = match variant {
        Variant::Delta => EVERYTHING,
        Variant::Sotw => &[],
    };
    let mut first = BytesMut::new();
    Request::first(Kind::Clusters, node, names).write(variant, &mut first);
    let told = async {
        let mut conversation = Conversation::open(sender, server, variant, first.freeze()).await?;
        conversation
            .until_silent(SILENCE, |message, out| {
                let response = Response::parse(variant, message)?;
                if let Some(kind) = response.kind {
                    response.ack(kind, names).write(variant, out);
                }
                found.add(variant, message)
            })
            .await
    };
    select! {
        told = told => told,
        // The stream tells why, unless it never began.
        ended = connection => Err(ended.err().map_or(Broken::NoStatus, Broken::Http2)),
    }
}

fn failure(server: SocketAddr, broken: &Broken) -> Failure {
    let hint = "does an xDS v3 server with ADS, without TLS, listen there?";
    match broken {
        Broken::Status(status) => Failure::from_status(server, status).hint(hint),
        Broken::Connect(_) | Broken::Http2(_) => {
            let message = format!("{server} does not answer: {}", chain(broken));
            Failure::new(Code::Unreachable, message).hint(hint)
        }
        Broken::NotGrpc(_) | Broken::NoStatus | Broken::Malformed(_) => {
            Failure::new(Code::Other, format!("{server}: {}", chain(broken))).hint(hint)
        }
    }
}
