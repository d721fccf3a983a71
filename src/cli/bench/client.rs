//! One client, as Envoy asks and answers: clusters first, then the endpoints of those clusters, and an
//! ACK for every response at once. Pure: messages in, requests out.

use std::{collections::BTreeMap, sync::Arc};

use bytes::{Bytes, BytesMut};

use super::{
    interest::{Interest, Names, Positions},
    wire::{EVERYTHING, Kind, Malformed, Request, Response, Variant},
};

#[cfg(test)]
mod tests;

/// What counts as the arrival of a change.
#[derive(Debug)]
pub(super) enum Watched {
    /// Assignments of these names, by position: where each stands in the ledger.
    Names(BTreeMap<u32, u32>),
    /// Any response, since nobody knows what changes: the first place in the ledger.
    Anything,
}

/// What is the same for all clients.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) variant: Variant,
    pub(super) names: Names,
    pub(super) watched: Watched,
}

#[derive(Debug)]
pub(super) struct Client {
    common: Arc<Common>,
    interest: Arc<Interest>,
    stage: Stage,
}

/// What a client waits for.
#[derive(Debug)]
enum Stage {
    Clusters { missing: Positions },
    Endpoints { missing: Positions },
    Synced,
}

/// What a message was to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// With this the client has everything that it asked for.
    Synced,
    /// Anything else.
    Response,
}

impl Client {
    pub(super) fn new(common: Arc<Common>, interest: Arc<Interest>) -> Self {
        let missing = interest.clusters.clone();
        Self { common, interest, stage: Stage::Clusters { missing } }
    }

    /// Where in the ledger the changes stand that the client waits for.
    pub(super) fn changing(&self) -> &[u32] {
        match self.common.watched {
            Watched::Names(_) => &self.interest.changing,
            Watched::Anything => &[0],
        }
    }

    pub(super) fn is_synced(&self) -> bool {
        matches!(self.stage, Stage::Synced)
    }

    pub(super) fn variant(&self) -> Variant {
        self.common.variant
    }

    /// The request that opens the stream.
    pub(super) fn first_request(&self, node: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        let names = self.names(Kind::Clusters);
        Request::first(Kind::Clusters, node, names).write(self.variant(), &mut out);
        out.freeze()
    }

    /// Takes a response. What is to be sent is added to `out`; `touched` is told of each change that
    /// has arrived, by its place in the ledger and the largest weight of its endpoints.
    pub(super) fn receive(
        &mut self,
        message: &[u8],
        out: &mut BytesMut,
        mut touched: impl FnMut(u32, u32),
    ) -> Result<Heard, Malformed> {
        let variant = self.common.variant;
        let response = Response::parse(variant, message)?;
        let Some(kind) = response.kind else { return Ok(Heard::Response) };
        response.ack(kind, self.names(kind)).write(variant, out);
        match &mut self.stage {
            Stage::Synced => {
                self.common.arrivals(kind, &response, &mut touched)?;
                return Ok(Heard::Response);
            }
            Stage::Clusters { missing } if kind == Kind::Clusters => {
                for resource in response.resources() {
                    if let Some(position) = self.common.names.cluster(resource?.name) {
                        missing.remove(position);
                    }
                }
            }
            Stage::Endpoints { missing } if kind == Kind::Endpoints => {
                for resource in response.resources() {
                    if let Some(position) = self.common.names.assignment(resource?.name) {
                        missing.remove(position);
                    }
                }
            }
            Stage::Clusters { .. } | Stage::Endpoints { .. } => {}
        }
        Ok(self.advance(out))
    }

    /// What the client names of a type.
    fn names(&self, kind: Kind) -> &[u8] {
        match (kind, &self.interest.cluster_names, self.common.variant) {
            (Kind::Endpoints, _, _) => &self.interest.assignment_names,
            (Kind::Clusters, Some(names), _) => names,
            (Kind::Clusters, None, Variant::Delta) => EVERYTHING,
            // No name is everything, which older servers know, too.
            (Kind::Clusters, None, Variant::Sotw) => &[],
        }
    }

    /// Goes to the next stage once nothing is missing of this one.
    fn advance(&mut self, out: &mut BytesMut) -> Heard {
        match &self.stage {
            Stage::Clusters { missing } if missing.is_empty() => {
                let names = self.names(Kind::Endpoints);
                Request::first(Kind::Endpoints, &[], names).write(self.variant(), out);
                self.stage = Stage::Endpoints { missing: self.interest.assignments.clone() };
                Heard::Response
            }
            Stage::Endpoints { missing } if missing.is_empty() => {
                self.stage = Stage::Synced;
                Heard::Synced
            }
            Stage::Clusters { .. } | Stage::Endpoints { .. } | Stage::Synced => Heard::Response,
        }
    }
}

impl Common {
    fn arrivals(
        &self,
        kind: Kind,
        response: &Response<'_>,
        touched: &mut impl FnMut(u32, u32),
    ) -> Result<(), Malformed> {
        match &self.watched {
            Watched::Anything => touched(0, 0),
            Watched::Names(changing) if kind == Kind::Endpoints => {
                for resource in response.resources() {
                    let resource = resource?;
                    let position = self.names.assignment(resource.name);
                    if let Some(order) = position.and_then(|it| changing.get(&it)) {
                        touched(*order, resource.largest_weight()?);
                    }
                }
            }
            Watched::Names(_) => {}
        }
        Ok(())
    }
}
