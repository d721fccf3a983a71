//! What the group's leader does, and how every other server reaches it: writes, renewals, the
//! expiry of leases and the placement of groups.

mod lease_keeper;
mod link;
mod placer;
mod proposals;
mod renewals;
mod reports;
mod servers;

pub(crate) use self::{
    lease_keeper::LeaseKeeper,
    link::is_forwarded,
    placer::Placer,
    proposals::{Proposals, ProposeError},
    renewals::{Renewals, not_leader},
    reports::{Reports, leads},
    servers::Servers,
};
