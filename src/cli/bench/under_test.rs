//! What is measured: servers that run already or one of the command's own, and the services that it
//! has there.

use std::{net::SocketAddr, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    options::XdsArgs,
    own_server::OwnServer,
    progress::Progress,
    registrar::Registrar,
    report::{Registration, millis},
    usage::Usage,
};
use crate::failure::Failure;

/// How long a server of the command's own may take until it answers.
const STARTED_WITHIN: Duration = Duration::from_secs(30);

/// How often it is asked.
const ASKED_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct UnderTest {
    own: Option<OwnServer>,
    pub(super) registrar: Option<Registrar>,
    pub(super) servers: Vec<SocketAddr>,
    pids: Vec<u32>,
}

impl UnderTest {
    /// Finds or starts the servers.
    pub(super) async fn find(args: &XdsArgs, progress: &mut Progress) -> Result<Self, Failure> {
        // A wrong process id shows before anything is begun.
        Usage::of(&args.pid)?;
        let (services, instances) = (args.clusters, args.endpoints);
        if args.own {
            progress.tell("starting a server");
            let mut own = OwnServer::start()?;
            let address = own.address();
            let deadline = Instant::now() + STARTED_WITHIN;
            let registrar = loop {
                match Registrar::find(&[address], services, instances).await {
                    Ok(registrar) => break registrar,
                    Err(failure) if Instant::now() >= deadline => return Err(failure),
                    Err(_) => own.check()?,
                }
                sleep(ASKED_EVERY).await;
            };
            let pids = vec![own.pid()?];
            return Ok(Self {
                own: Some(own),
                registrar: Some(registrar),
                servers: vec![address],
                pids,
            });
        }
        let registrar = match args.has_registry() {
            true => Some(Registrar::find(&args.registry.0, services, instances).await?),
            false => None,
        };
        Ok(Self { own: None, registrar, servers: args.servers(), pids: args.pid.clone() })
    }

    /// Registers the services of the command, if it has any.
    pub(super) async fn register(
        &self,
        args: &XdsArgs,
        progress: &mut Progress,
    ) -> Result<Option<Registration>, Failure> {
        let Some(registrar) = &self.registrar else { return Ok(None) };
        let instances = args.clusters.saturating_mul(args.endpoints);
        progress.tell(&format!("registering {} services, {instances} instances", args.clusters));
        let (begun, before) = (Instant::now(), self.usage()?);
        let told = |count| progress.show(&format!("registered {count} of {instances} instances"));
        registrar.register_all(told).await?;
        let took = begun.elapsed();
        let cpu =
            self.usage()?.zip(before).map(|(after, before)| after.cpu.saturating_sub(before.cpu));
        Ok(Some(Registration {
            services: args.clusters,
            instances,
            took_ms: millis(took),
            server_cpu_ms: cpu.map(millis),
        }))
    }

    /// What the servers use; none if their processes are not known.
    pub(super) fn usage(&self) -> Result<Option<Usage>, Failure> {
        if self.pids.is_empty() {
            return Ok(None);
        }
        Usage::of(&self.pids).map(Some)
    }

    /// Ends what the command has started, and removes what it has registered elsewhere.
    pub(super) async fn end(self, progress: &mut Progress) -> Result<(), Failure> {
        match (self.own, self.registrar) {
            (Some(own), _) => {
                own.stop().await;
                Ok(())
            }
            (None, Some(registrar)) => {
                progress.tell("removing the services");
                registrar.remove_all(|count| progress.show(&format!("removed {count}"))).await
            }
            (None, None) => Ok(()),
        }
    }

    /// Fails if the server of the command's own has ended.
    pub(super) fn check(&mut self) -> Result<(), Failure> {
        self.own.as_mut().map_or(Ok(()), OwnServer::check)
    }
}
