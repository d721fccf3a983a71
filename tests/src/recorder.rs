//! A client of one data server that records what it asks for and what it is told, as a history
//! for [`history::check`](crate::history::check).

use std::{net::SocketAddr, time::Duration};

use proto::{
    etcdserverpb::{
        Compare, PutRequest, RangeRequest, RequestOp, ResponseHeader, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        kv_client::KvClient,
        request_op::Request,
        response_op::Response,
    },
    mvccpb::KeyValue,
};
use tokio::time::{Instant, timeout};
use tonic::{Code, Status, transport::Channel};

use crate::{
    history::{Action, Answer, Expected, Operation, Outcome, Version},
    kv::{channel, timed},
};

/// After this nobody waits for the answer any more. Longer than an election, as a rule.
const DEADLINE: Duration = Duration::from_secs(2);

/// A client with a name of its own in the history.
#[derive(Debug)]
pub struct Recorder {
    client: usize,
    kv: KvClient<Channel>,
    origin: Instant,
}

impl Recorder {
    /// A client whose times count from `origin`, which all clients of a history share.
    pub fn new(client: usize, address: SocketAddr, origin: Instant) -> Self {
        Self { client, kv: KvClient::new(channel(address)), origin }
    }

    pub fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    /// Does one operation and says what is known of it, whatever happens.
    pub async fn perform(&mut self, key: String, action: Action) -> Operation {
        let invoked = self.now();
        let answer = timeout(DEADLINE, self.ask(&key, action)).await;
        let returned = self.now();
        let outcome = match answer {
            Ok(Ok((revision, answer))) => Outcome::Done { returned, revision, answer },
            Ok(Err(status)) if refuses(&status) => Outcome::Failed,
            Ok(Err(_)) | Err(_) => Outcome::Unknown,
        };
        Operation { client: self.client, key, action, invoked, outcome }
    }

    async fn ask(&mut self, key: &str, action: Action) -> Result<(i64, Answer), Status> {
        match action {
            Action::Get => {
                let reply = self.kv.range(timed(get(key))).await?.into_inner();
                Ok((revision(reply.header), Answer::Found(version(&reply.kvs))))
            }
            Action::Put(value) => {
                let reply = self.kv.put(timed(put(key, value))).await?.into_inner();
                Ok((revision(reply.header), Answer::Wrote))
            }
            Action::Swap { expected, value } => {
                let reply = self.kv.txn(timed(swap(key, expected, value))).await?.into_inner();
                let answer = match reply.responses.first().and_then(|it| it.response.as_ref()) {
                    Some(Response::ResponsePut(_)) if reply.succeeded => Answer::Wrote,
                    Some(Response::ResponseRange(range)) if !reply.succeeded => {
                        Answer::Found(version(&range.kvs))
                    }
                    other => panic!("a swap was answered with {other:?}"),
                };
                Ok((revision(reply.header), answer))
            }
        }
    }
}

/// Whether a server has looked at the request and will not do it.
fn refuses(status: &Status) -> bool {
    [Code::InvalidArgument, Code::NotFound, Code::OutOfRange, Code::FailedPrecondition]
        .contains(&status.code())
}

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() }
}

fn put(key: &str, value: u64) -> PutRequest {
    let value = value.to_string().into();
    PutRequest { key: key.to_owned().into(), value, ..PutRequest::default() }
}

fn swap(key: &str, expected: Expected, value: u64) -> TxnRequest {
    let (target, operand) = match expected {
        Expected::Value(value) => {
            (CompareTarget::Value, TargetUnion::Value(value.to_string().into()))
        }
        Expected::Revision(revision) => (CompareTarget::Mod, TargetUnion::ModRevision(revision)),
    };
    let compare = Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.to_owned().into(),
        target_union: Some(operand),
        ..Compare::default()
    };
    TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp { request: Some(Request::RequestPut(put(key, value))) }],
        failure: vec![RequestOp { request: Some(Request::RequestRange(get(key))) }],
    }
}

fn revision(header: Option<ResponseHeader>) -> i64 {
    header.expect("every answer has a header").revision
}

fn version(kvs: &[KeyValue]) -> Option<Version> {
    let pair = kvs.first()?;
    let text = std::str::from_utf8(&pair.value).expect("only digits were written");
    let value = text.parse().expect("only numbers were written");
    Some(Version { value, revision: pair.mod_revision })
}
