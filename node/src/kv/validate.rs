//! Checks of a request by itself, before it is proposed. The machine checks again, since a command
//! may come from a replica of another version.

use std::collections::BTreeSet;

use proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    range_request::{SortOrder, SortTarget},
    request_op::Request,
};

use super::{
    refusal::Refusal,
    span::{Span, SpanSet},
};

/// The size of the largest encoded command, as in etcd.
pub const MAX_REQUEST_BYTES: usize = 1536 * 1024;

/// The most compares, or operations of a branch, in one transaction, as in etcd. What an outer
/// transaction has is subtracted from the limit of those nested in it.
const MAX_TXN_OPS: usize = 128;

pub fn check_range(request: &RangeRequest) -> Result<(), Refusal> {
    check_key(&request.key)?;
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(Refusal::InvalidSortOption) }
}

pub fn check_put(request: &PutRequest) -> Result<(), Refusal> {
    check_key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

pub fn check_delete_range(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    check_key(&request.key)
}

pub fn check_txn(request: &TxnRequest) -> Result<(), Refusal> {
    check_operations(request, MAX_TXN_OPS)?;
    Writes::of(&request.success)?;
    Writes::of(&request.failure)?;
    Ok(())
}

fn check_key(key: &[u8]) -> Result<(), Refusal> {
    if key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

fn check_operations(request: &TxnRequest, left: usize) -> Result<(), Refusal> {
    let most = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = left.checked_sub(most).ok_or(Refusal::TooManyOperations)?;
    for compare in &request.compare {
        check_key(&compare.key)?;
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete_range(delete)?,
            Some(Request::RequestTxn(nested)) => check_operations(nested, left)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

/// What a branch may write: a key may not be put twice, nor put and deleted.
///
/// These are etcd's rules, with their two exceptions, since a client may rely on what etcd accepts:
/// a deletion of everything from a key on (`range_end` is one zero byte) overlaps with nothing, and
/// of two nested transactions the first may put what the second deletes.
#[derive(Debug, Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: SpanSet<'a>,
}

impl<'a> Writes<'a> {
    fn of(branch: &'a [RequestOp]) -> Result<Self, Refusal> {
        let mut writes = Self::default();
        for op in branch {
            if let Some(Request::RequestDeleteRange(delete)) = &op.request {
                match Span::new(&delete.key, &delete.range_end) {
                    Span::From(_) => {}
                    span @ (Span::Key(_) | Span::Range(..)) => writes.deletes.insert(span),
                }
            }
        }
        for op in branch {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                writes.add_nested(nested)?;
            }
        }
        for op in branch {
            if let Some(Request::RequestPut(put)) = &op.request {
                writes.add_put(&put.key)?;
            }
        }
        Ok(writes)
    }

    fn add_nested(&mut self, nested: &'a TxnRequest) -> Result<(), Refusal> {
        let success = Self::of(&nested.success)?;
        let failure = Self::of(&nested.failure)?;
        for key in &success.puts {
            self.add_put(key)?;
        }
        for key in failure.puts {
            // Only one of the two branches runs.
            if success.puts.contains(key) {
                continue;
            }
            self.add_put(key)?;
        }
        self.deletes.extend(success.deletes);
        self.deletes.extend(failure.deletes);
        Ok(())
    }

    fn add_put(&mut self, key: &'a [u8]) -> Result<(), Refusal> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(Refusal::DuplicateKey);
        }
        Ok(())
    }
}
