//! A DISCO server's own record: its address, and the start that it is of.
//!
//! The server writes it itself, and writes it again whenever it differs. If the mesh knows a later
//! start of the same server, this process runs on a disk that was copied or restored. It must end,
//! since the disk lacks votes that the server has given.

use std::time::Duration;

use proto::quorate::v1::{
    AddressHint, Locality, RecordServer, RegistryRefusal, registry_command::Command,
    registry_refusal::Reason,
};
use tokio::time::sleep;

use crate::{
    config::DiscoConfig,
    error::DiscoError,
    leader::ProposeError,
    shared::{Formed, Shared},
};

/// Pause after an attempt that failed.
const RETRY: Duration = Duration::from_secs(1);

/// Keeps the record of this server up to date, for ever.
///
/// # Errors
///
/// If the mesh knows a later start of this server.
pub(crate) async fn run(shared: &Shared, formed: &Formed) -> Result<(), DiscoError> {
    let mut topology = shared.board.topology();
    loop {
        topology.mark_unchanged();
        let wanted = own_record(shared);
        if !is_recorded(shared, &wanted) {
            let Err(error) = formed.proposals.propose(Command::RecordServer(wanted)).await else {
                continue;
            };
            match error {
                ProposeError::Refused { refusal } if is_superseded(&refusal) => {
                    return Err(DiscoError::Refused(refusal.message));
                }
                ProposeError::Refused { refusal } => {
                    tracing::error!(refusal.message, "this server's record is refused");
                    return std::future::pending().await;
                }
                ProposeError::Write(_)
                | ProposeError::NotApplied { .. }
                | ProposeError::Garbled(_) => {}
            }
            tracing::debug!(%error, "this server is not recorded yet");
            sleep(RETRY).await;
            continue;
        }
        if topology.changed().await.is_err() {
            return Ok(());
        }
    }
}

fn is_superseded(refusal: &RegistryRefusal) -> bool {
    refusal.reason() == Reason::Superseded
}

fn own_record(shared: &Shared) -> RecordServer {
    let identity = shared.host.identity();
    let DiscoConfig { name, region, zone, version, .. } = &shared.config;
    RecordServer {
        hint: Some(AddressHint {
            node_id: identity.node_id,
            boot_epoch: identity.boot_epoch,
            start: identity.start,
            moves: 0,
            address: shared.host.mesh().advertise().to_string(),
            services: identity.services.into_iter().collect(),
        }),
        name: name.clone(),
        locality: Some(Locality { region: region.clone(), zone: zone.clone() }),
        version: version.clone(),
    }
}

fn is_recorded(shared: &Shared, wanted: &RecordServer) -> bool {
    let Some(hint) = &wanted.hint else { return true };
    let locality = wanted.locality.clone().unwrap_or_default();
    shared.board.read(|registry| {
        registry.server(hint.node_id).is_some_and(|it| {
            it.boot_epoch == hint.boot_epoch
                && it.address == shared.host.mesh().advertise()
                && it.services == hint.services
                && it.name == wanted.name
                && it.version == wanted.version
                && it.locality.region == locality.region
                && it.locality.zone == locality.zone
        })
    })
}
