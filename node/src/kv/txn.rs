//! Transactions: compares choose a branch, whose operations then run in order.
//!
//! Three steps, as in etcd. *Pick*: every compare, also of nested transactions, is decided on the
//! rows as they were before the first operation. *Check*: what could be refused on the chosen path
//! is refused. *Run*: cannot be refused, so a transaction happens whole or not at all; an operation
//! sees what those before it did.

use std::cmp::Ordering;

use proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest,
    TxnResponse,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op::Request,
    response_op::Response,
};
use raft::rows::{Read, StorageError, Write};

use super::{
    layout::{KeyRecord, Meta},
    read::{header, range_at},
    refusal::{KvError, Refusal},
    span::{Span, SpanSet},
    write::{Writer, admit_ignore, admit_lease},
};

/// Whether nothing in the transaction can write, on either branch.
pub fn is_read_only(request: &TxnRequest) -> bool {
    branches(request).all(|op| match &op.request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(nested)) => is_read_only(nested),
        Some(Request::RequestPut(_) | Request::RequestDeleteRange(_)) | None => false,
    })
}

/// Whether the transaction only reads, and each of its reads is serializable.
pub fn is_serializable(request: &TxnRequest) -> bool {
    branches(request).all(|op| match &op.request {
        Some(Request::RequestRange(range)) => range.serializable,
        Some(Request::RequestTxn(_) | Request::RequestPut(_) | Request::RequestDeleteRange(_))
        | None => false,
    })
}

/// Answers a transaction that [`is_read_only`] from rows that do not change meanwhile. An operation
/// that would write has no response.
pub fn read_txn(rows: &dyn Read, request: &TxnRequest) -> Result<TxnResponse, KvError> {
    let meta = Meta::load(rows)?;
    let path = TxnPath::of(rows, request)?;
    path.check_ranges(&meta)?;
    Ok(path.read(rows, meta.revision)?)
}

/// Applies a transaction.
pub(super) fn apply_txn(
    rows: &mut dyn Write,
    meta: &mut Meta,
    request: &TxnRequest,
) -> Result<TxnResponse, KvError> {
    let path = TxnPath::of(rows, request)?;
    path.check_puts(rows, &mut SpanSet::default())?;
    path.check_ranges(meta)?;
    let mut writer = Writer::new(rows, meta);
    let mut response = path.run(&mut writer)?;
    response.header = Some(header(writer.finish()));
    Ok(response)
}

fn branches(request: &TxnRequest) -> impl Iterator<Item = &RequestOp> {
    request.success.iter().chain(&request.failure)
}

/// The path through a transaction that its compares have chosen.
#[derive(Debug)]
struct TxnPath<'a> {
    succeeded: bool,
    ops: Vec<TxnOp<'a>>,
}

#[derive(Debug)]
enum TxnOp<'a> {
    Range(&'a RangeRequest),
    Put(&'a PutRequest),
    DeleteRange(&'a DeleteRangeRequest),
    Txn(TxnPath<'a>),
    /// An operation without a request: answered by a response without one.
    Nothing,
}

impl<'a> TxnPath<'a> {
    fn of(rows: &dyn Read, request: &'a TxnRequest) -> Result<Self, StorageError> {
        let mut succeeded = true;
        for compare in &request.compare {
            if !holds(rows, compare)? {
                succeeded = false;
                break;
            }
        }
        let branch = if succeeded { &request.success } else { &request.failure };
        let ops = branch.iter().map(|op| TxnOp::of(rows, op)).collect::<Result<_, _>>()?;
        Ok(Self { succeeded, ops })
    }

    /// `deleted` collects what earlier operations delete. Validation refuses most transactions that
    /// would delete a key and then put it, but not all.
    fn check_puts(&self, rows: &dyn Read, deleted: &mut SpanSet<'a>) -> Result<(), KvError> {
        for op in &self.ops {
            match op {
                TxnOp::Put(put) => {
                    admit_ignore(rows, put, deleted)?;
                    admit_lease(put)?;
                }
                TxnOp::DeleteRange(delete) => {
                    deleted.insert(Span::new(&delete.key, &delete.range_end));
                }
                TxnOp::Txn(path) => path.check_puts(rows, deleted)?,
                TxnOp::Range(_) | TxnOp::Nothing => {}
            }
        }
        Ok(())
    }

    /// The revision that a range names must be readable before the transaction.
    fn check_ranges(&self, meta: &Meta) -> Result<(), Refusal> {
        for op in &self.ops {
            match op {
                TxnOp::Range(RangeRequest { revision: 0, .. }) => {}
                TxnOp::Range(range) if range.revision > meta.revision => {
                    return Err(Refusal::FutureRevision);
                }
                TxnOp::Range(range) if range.revision < meta.compacted => {
                    return Err(Refusal::Compacted);
                }
                TxnOp::Txn(path) => path.check_ranges(meta)?,
                TxnOp::Range(_) | TxnOp::Put(_) | TxnOp::DeleteRange(_) | TxnOp::Nothing => {}
            }
        }
        Ok(())
    }

    fn run(&self, writer: &mut Writer<'_>) -> Result<TxnResponse, StorageError> {
        self.answer(&mut |op| {
            Ok(match op {
                TxnOp::Range(request) => Some(Response::ResponseRange(writer.range(request)?)),
                TxnOp::Put(request) => Some(Response::ResponsePut(writer.put(request)?)),
                TxnOp::DeleteRange(request) => {
                    Some(Response::ResponseDeleteRange(writer.delete_range(request)?))
                }
                TxnOp::Txn(path) => {
                    let mut response = path.run(writer)?;
                    response.header = Some(header(0));
                    Some(Response::ResponseTxn(response.into()))
                }
                TxnOp::Nothing => None,
            })
        })
    }

    fn read(&self, rows: &dyn Read, current: i64) -> Result<TxnResponse, StorageError> {
        let mut response = self.answer(&mut |op| {
            Ok(match op {
                TxnOp::Range(request) => {
                    let at = if request.revision > 0 { request.revision } else { current };
                    Some(Response::ResponseRange(range_at(rows, request, at, current)?))
                }
                TxnOp::Txn(path) => {
                    let mut response = path.read(rows, current)?;
                    response.header = Some(header(0));
                    Some(Response::ResponseTxn(response.into()))
                }
                TxnOp::Put(_) | TxnOp::DeleteRange(_) | TxnOp::Nothing => None,
            })
        })?;
        response.header = Some(header(current));
        Ok(response)
    }

    fn answer(
        &self,
        run_op: &mut dyn FnMut(&TxnOp<'a>) -> Result<Option<Response>, StorageError>,
    ) -> Result<TxnResponse, StorageError> {
        let responses = self
            .ops
            .iter()
            .map(|it| Ok(ResponseOp { response: run_op(it)? }))
            .collect::<Result<_, StorageError>>()?;
        Ok(TxnResponse { header: None, succeeded: self.succeeded, responses })
    }
}

impl<'a> TxnOp<'a> {
    fn of(rows: &dyn Read, op: &'a RequestOp) -> Result<Self, StorageError> {
        Ok(match &op.request {
            Some(Request::RequestRange(request)) => Self::Range(request),
            Some(Request::RequestPut(request)) => Self::Put(request),
            Some(Request::RequestDeleteRange(request)) => Self::DeleteRange(request),
            Some(Request::RequestTxn(request)) => Self::Txn(TxnPath::of(rows, request)?),
            None => Self::Nothing,
        })
    }
}

/// Whether a compare holds for every key that it names. If there is no such key, it is decided on a
/// record of zeros; but a compare of values then never holds.
fn holds(rows: &dyn Read, compare: &Compare) -> Result<bool, StorageError> {
    let mut found = false;
    let mut all = true;
    Span::new(&compare.key, &compare.range_end).each_current(rows, &mut |_, record| {
        found = true;
        all = holds_for(compare, record);
        all
    })?;
    if found {
        return Ok(all);
    }
    Ok(compare.target != CompareTarget::Value as i32 && holds_for(compare, KeyRecord::default()))
}

/// As in etcd, a target without its operand, or with the operand of another target, is compared
/// with zero. A target of a later protocol counts as equal, and a result of a later protocol holds.
fn holds_for(compare: &Compare, record: KeyRecord<'_>) -> bool {
    use TargetUnion::{CreateRevision, Lease, ModRevision, Value, Version};

    let operand = compare.target_union.as_ref();
    let order = match CompareTarget::try_from(compare.target) {
        Ok(CompareTarget::Version) => {
            record.version.cmp(if let Some(Version(it)) = operand { it } else { &0 })
        }
        Ok(CompareTarget::Create) => {
            record.create_revision.cmp(if let Some(CreateRevision(it)) = operand { it } else { &0 })
        }
        Ok(CompareTarget::Mod) => {
            record.mod_revision.cmp(if let Some(ModRevision(it)) = operand { it } else { &0 })
        }
        Ok(CompareTarget::Lease) => {
            record.lease.cmp(if let Some(Lease(it)) = operand { it } else { &0 })
        }
        Ok(CompareTarget::Value) => {
            record.value.cmp(if let Some(Value(it)) = operand { it } else { &[] })
        }
        Err(_) => Ordering::Equal,
    };
    match CompareResult::try_from(compare.result) {
        Ok(CompareResult::Equal) => order.is_eq(),
        Ok(CompareResult::NotEqual) => order.is_ne(),
        Ok(CompareResult::Greater) => order.is_gt(),
        Ok(CompareResult::Less) => order.is_lt(),
        Err(_) => true,
    }
}
