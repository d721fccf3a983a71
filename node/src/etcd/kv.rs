//! The etcd KV service: writes go to the leader; reads are linearizable unless a request says
//! otherwise.

use proto::{
    etcdserverpb::{
        CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest,
        PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, kv_server::Kv,
    },
    quorate::v1::{kv_command::Command, kv_reply::Outcome},
};
use raft::Group;
use tonic::{Request, Response, Status, async_trait};

use super::{
    backend::{Backend, Breadth, Freshness, unexpected_reply},
    refusal::of_refusal,
};
use crate::kv;

/// Reading and writing keys.
#[derive(Debug)]
pub struct KvService {
    backend: Backend,
}

impl KvService {
    pub(super) fn new(backend: Backend) -> Self {
        Self { backend }
    }

    async fn read_txn(&self, group: &Group, request: TxnRequest) -> Result<TxnResponse, Status> {
        let freshness = freshness(kv::is_serializable(&request));
        self.backend
            .read(group, freshness, Breadth::Many, move |rows| kv::read_txn(rows, &request))
            .await
    }
}

#[async_trait]
impl Kv for KvService {
    async fn range(
        &self,
        request: Request<RangeRequest>,
    ) -> Result<Response<RangeResponse>, Status> {
        let group = self.backend.hosted(request.metadata()).await?.group;
        let request = request.into_inner();
        kv::check_range(&request).map_err(of_refusal)?;
        let freshness = freshness(request.serializable);
        let breadth = breadth(&request);
        let mut response = self
            .backend
            .read(&group, freshness, breadth, move |rows| kv::range(rows, &request))
            .await?;
        response.header = self.backend.full_header(&group, response.header);
        Ok(Response::new(response))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let group = self.backend.hosted(request.metadata()).await?.group;
        let request = request.into_inner();
        kv::check_put(&request).map_err(of_refusal)?;
        let outcome = self.backend.write(&group, Command::Put(request)).await?;
        let Outcome::Put(mut response) = outcome else { return Err(unexpected_reply()) };
        response.header = self.backend.full_header(&group, response.header);
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let group = self.backend.hosted(request.metadata()).await?.group;
        let request = request.into_inner();
        kv::check_delete_range(&request).map_err(of_refusal)?;
        let outcome = self.backend.write(&group, Command::DeleteRange(request)).await?;
        let Outcome::DeleteRange(mut response) = outcome else { return Err(unexpected_reply()) };
        response.header = self.backend.full_header(&group, response.header);
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let group = self.backend.hosted(request.metadata()).await?.group;
        let request = request.into_inner();
        kv::check_txn(&request).map_err(of_refusal)?;
        let mut response = if kv::is_read_only(&request) {
            self.read_txn(&group, request).await?
        } else {
            match self.backend.write(&group, Command::Txn(request)).await? {
                Outcome::Txn(response) => response,
                Outcome::Put(_)
                | Outcome::DeleteRange(_)
                | Outcome::Compact(_)
                | Outcome::Refused(_) => return Err(unexpected_reply()),
            }
        };
        response.header = self.backend.full_header(&group, response.header);
        Ok(Response::new(response))
    }

    async fn compact(
        &self,
        request: Request<CompactionRequest>,
    ) -> Result<Response<CompactionResponse>, Status> {
        let group = self.backend.hosted(request.metadata()).await?.group;
        let outcome = self.backend.write(&group, Command::Compact(request.into_inner())).await?;
        let Outcome::Compact(mut response) = outcome else { return Err(unexpected_reply()) };
        response.header = self.backend.full_header(&group, response.header);
        Ok(Response::new(response))
    }
}

fn freshness(serializable: bool) -> Freshness {
    if serializable { Freshness::Serializable } else { Freshness::Linearizable }
}

/// How much a range may look at. Only a read of one key at the latest revision is surely one row.
fn breadth(request: &RangeRequest) -> Breadth {
    if request.range_end.is_empty() && request.revision <= 0 { Breadth::Few } else { Breadth::Many }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_present_of_one_key_is_read_on_an_async_thread() {
        let present = RangeRequest { key: "key".into(), ..RangeRequest::default() };
        assert_eq!(breadth(&present), Breadth::Few);
        let past = RangeRequest { revision: 1, ..present.clone() };
        assert_eq!(breadth(&past), Breadth::Many);
        let several = RangeRequest { range_end: "kez".into(), ..present };
        assert_eq!(breadth(&several), Breadth::Many);
    }
}
