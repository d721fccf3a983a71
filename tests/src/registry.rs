//! The registry as one DISCO server answers, and the programs that register with it.

use std::{net::SocketAddr, path::Path, time::Duration};

use proto::quorate::v1::{
    GroupSummary, Instance, ListGroupsRequest, ListInstancesRequest, ListMembersRequest,
    ListServicesRequest, MemberSummary, RegisterReply, RegisterRequest, ServiceSummary,
    registry_client::RegistryClient,
};
use tonic::{Status, transport::Channel};

use crate::{
    Process, address, cli,
    kv::{channel, timed},
};

/// A client of one DISCO server.
#[derive(Clone, Debug)]
pub struct Registry(RegistryClient<Channel>);

impl Registry {
    pub fn at(address: SocketAddr) -> Self {
        Self(RegistryClient::new(channel(address)))
    }

    /// # Errors
    ///
    /// As the server answers.
    pub async fn services(&mut self) -> Result<Vec<ServiceSummary>, Status> {
        let reply = self.0.list_services(timed(ListServicesRequest {})).await?;
        Ok(reply.into_inner().services)
    }

    /// # Errors
    ///
    /// As the server answers.
    pub async fn instances(&mut self, service: &str) -> Result<Vec<Instance>, Status> {
        let request = ListInstancesRequest { service: service.to_owned() };
        Ok(self.0.list_instances(timed(request)).await?.into_inner().instances)
    }

    /// # Errors
    ///
    /// As the server answers.
    pub async fn members(&mut self) -> Result<Vec<MemberSummary>, Status> {
        Ok(self.0.list_members(timed(ListMembersRequest {})).await?.into_inner().members)
    }

    /// # Errors
    ///
    /// As the server answers.
    pub async fn groups(&mut self) -> Result<Vec<GroupSummary>, Status> {
        Ok(self.0.list_groups(timed(ListGroupsRequest {})).await?.into_inner().groups)
    }

    /// DISCO's leader, as this server knows it.
    pub async fn leader(&mut self) -> Option<u64> {
        let reply = self.0.list_members(timed(ListMembersRequest {})).await.ok()?.into_inner();
        reply.meta.map(|meta| meta.leader_id).filter(|id| *id != 0)
    }

    /// Registers an instance that nobody renews; it lives for five minutes.
    ///
    /// # Errors
    ///
    /// As the server answers.
    pub async fn register(
        &mut self,
        service: &str,
        address: SocketAddr,
    ) -> Result<RegisterReply, Status> {
        let instance = Instance {
            service: service.to_owned(),
            id: address.to_string(),
            address: address.to_string(),
            ..Instance::default()
        };
        self.register_instance(instance).await
    }

    /// The same with more to say of it.
    ///
    /// # Errors
    ///
    /// As the server answers.
    pub async fn register_instance(&mut self, instance: Instance) -> Result<RegisterReply, Status> {
        let request = RegisterRequest {
            instance: Some(instance),
            ttl_ms: 300_000,
            ..RegisterRequest::default()
        };
        Ok(self.0.register(timed(request)).await?.into_inner())
    }
}

/// A small real application, run and registered by `quorate register … -- COMMAND`.
#[derive(Debug)]
pub struct Replica {
    pub address: SocketAddr,
    process: Process,
}

impl Replica {
    /// Starts an instance of `service` on an address of its own.
    pub fn start(directory: &Path, service: &str, disco: &[SocketAddr]) -> Self {
        let address = address::free(address::next_ip(), 8000);
        let text = address.to_string();
        let disco = address::list(disco);
        let app = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/compose/web.py");
        let args = [
            "register",
            "--disco",
            &disco,
            "--service",
            service,
            "--address",
            &text,
            "--check",
            &format!("http://{text}/healthz"),
            "--",
            "python3",
            app,
            "--listen",
            &text,
        ];
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let name = format!("{service}-{}", address.ip());
        let process = Process::start(&name, directory, cli::binary(), &args);
        Self { address, process }
    }

    /// Ends it as the program's own crash would, and its registrar's.
    pub fn kill(self) {
        self.process.kill();
    }

    /// Asks it to drain and stop, and awaits the end.
    pub async fn terminate(self) -> Option<i32> {
        self.process.terminate().await.code()
    }

    /// How long an instance stays listed as healthy after its registrar was killed, at most: the
    /// default lease, what the leader waits beyond it, and room for a busy machine.
    pub const LEASE: Duration = Duration::from_secs(60);
}
