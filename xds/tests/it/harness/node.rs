//! A data node, as far as DISCO can see one.

use proto::quorate::v1::{
    Directive, HostedGroup, Locality, NodeHello, NodeReport, NodeStatus, NodeStopping,
    node_report::Report,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{PATIENCE, QUIET, Server};

pub(crate) struct NodeClient {
    reports: mpsc::Sender<NodeReport>,
    directives: Streaming<Directive>,
}

impl NodeClient {
    pub(crate) async fn open(server: &Server, hello: NodeHello) -> Result<Self, Status> {
        let (reports, outgoing) = mpsc::channel(16);
        let node = reports.clone();
        node.send(NodeReport { report: Some(Report::Hello(hello)) }).await.unwrap();
        let directives = server.registry().session(ReceiverStream::new(outgoing)).await?;
        Ok(Self { reports, directives: directives.into_inner() })
    }

    pub(crate) async fn report(&self, groups: Vec<HostedGroup>) {
        let status = Report::Status(NodeStatus { groups });
        self.reports.send(NodeReport { report: Some(status) }).await.unwrap();
    }

    pub(crate) async fn stop(&self) {
        let stopping = Report::Stopping(NodeStopping {});
        self.reports.send(NodeReport { report: Some(stopping) }).await.unwrap();
    }

    pub(crate) async fn try_directive(&mut self) -> Result<Directive, Status> {
        let next = timeout(PATIENCE, self.directives.message()).await.expect("no directive");
        Ok(next?.expect("the session ended"))
    }

    /// Waits for a directive that is as wanted.
    pub(crate) async fn directive(
        &mut self,
        what: &str,
        wanted: impl Fn(&Directive) -> bool,
    ) -> Directive {
        loop {
            let directive = self.try_directive().await.unwrap_or_else(|status| {
                panic!("waiting until {what}: {status}");
            });
            if wanted(&directive) {
                return directive;
            }
        }
    }

    pub(crate) async fn assert_quiet(&mut self) {
        if let Ok(directive) = timeout(QUIET, self.directives.message()).await {
            panic!("expected nothing, got {directive:?}");
        }
    }
}

pub(crate) fn hello(node_id: u64) -> NodeHello {
    NodeHello {
        mesh_id: String::new(),
        node_id,
        store_id: node_id + 1_000,
        boot_epoch: 1,
        mesh_address: format!("127.0.0.{node_id}:7400"),
        kv_address: format!("127.0.0.{node_id}:2379"),
        locality: Some(Locality::default()),
        groups_on_disk: Vec::new(),
        name: format!("n{node_id}"),
        start: 0,
        moves: 0,
        version: "node-version".to_owned(),
    }
}
