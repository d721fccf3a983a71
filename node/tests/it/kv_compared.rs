//! The key-value API beside a real etcd: the same random requests get the same answers, revisions
//! and refusals included.

use std::env;

use harness::{etcd::Etcd, kv::channel};
use proto::etcdserverpb::{
    ResponseHeader, ResponseOp, TxnResponse, kv_client::KvClient, response_op::Response as Done,
};
use tonic::{Code, Status, transport::Channel};

use crate::{
    kv::generator::{Generator, Operation},
    kv_etcd::Node,
};

const SEEDS: u64 = 4;
const STEPS: usize = 1_000;

/// An answer, without what differs from server to server.
#[derive(Debug, PartialEq)]
enum Answer {
    Range(proto::etcdserverpb::RangeResponse),
    Put(proto::etcdserverpb::PutResponse),
    DeleteRange(proto::etcdserverpb::DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(proto::etcdserverpb::CompactionResponse),
    Refused(Code, String),
}

/// One seed is replayed with `SEED=`.
#[tokio::test]
async fn random_requests_are_answered_as_by_etcd() {
    match env::var("SEED") {
        Ok(seed) => compare_with_etcd(seed.parse().unwrap()).await,
        Err(_) => {
            for seed in 1000..1000 + SEEDS {
                compare_with_etcd(seed).await;
            }
        }
    }
}

async fn compare_with_etcd(seed: u64) {
    let etcd = Etcd::start().await;
    let node = Node::start(&["default"]).await;
    let (mut theirs, mut ours) = (KvClient::new(channel(etcd.address)), node.kv().await);
    let mut generator = Generator::new(seed);
    let mut latest = 1;
    for step in 0..STEPS {
        let operation = generator.next(latest);
        let expected = ask(&mut theirs, &operation).await;
        let answer = ask(&mut ours, &operation).await;
        assert_eq!(answer, expected, "SEED={seed} step {step}: {operation:?}");
        latest = latest.max(revision(&answer));
    }
    node.stop().await;
}

async fn ask(kv: &mut KvClient<Channel>, operation: &Operation) -> Answer {
    let answer = match operation.clone() {
        Operation::Range(it) => kv.range(it).await.map(|it| Answer::Range(it.into_inner())),
        Operation::Put(it) => kv.put(it).await.map(|it| Answer::Put(it.into_inner())),
        Operation::DeleteRange(it) => {
            kv.delete_range(it).await.map(|it| Answer::DeleteRange(it.into_inner()))
        }
        Operation::Txn(it) => kv.txn(it).await.map(|it| Answer::Txn(it.into_inner())),
        Operation::Compact(it) => kv.compact(it).await.map(|it| Answer::Compact(it.into_inner())),
    };
    answer.map_or_else(refused, anonymous)
}

fn refused(status: Status) -> Answer {
    Answer::Refused(status.code(), status.message().to_owned())
}

/// Keeps only the revision of every header.
fn anonymous(mut answer: Answer) -> Answer {
    match &mut answer {
        Answer::Range(it) => strip(&mut it.header),
        Answer::Put(it) => strip(&mut it.header),
        Answer::DeleteRange(it) => strip(&mut it.header),
        Answer::Txn(it) => strip_txn(it),
        Answer::Compact(it) => strip(&mut it.header),
        Answer::Refused(..) => {}
    }
    answer
}

fn strip_txn(txn: &mut TxnResponse) {
    strip(&mut txn.header);
    for ResponseOp { response } in &mut txn.responses {
        match response {
            Some(Done::ResponseRange(it)) => strip(&mut it.header),
            Some(Done::ResponsePut(it)) => strip(&mut it.header),
            Some(Done::ResponseDeleteRange(it)) => strip(&mut it.header),
            Some(Done::ResponseTxn(it)) => strip_txn(it),
            None => {}
        }
    }
}

fn strip(header: &mut Option<ResponseHeader>) {
    if let Some(header) = header {
        *header = ResponseHeader { revision: header.revision, ..ResponseHeader::default() };
    }
}

fn revision(answer: &Answer) -> i64 {
    let header = match answer {
        Answer::Range(it) => &it.header,
        Answer::Put(it) => &it.header,
        Answer::DeleteRange(it) => &it.header,
        Answer::Txn(it) => &it.header,
        Answer::Compact(it) => &it.header,
        Answer::Refused(..) => return 0,
    };
    header.as_ref().map_or(0, |header| header.revision)
}
