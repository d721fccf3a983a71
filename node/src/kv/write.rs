//! Puts and deletes within one revision.

use proto::{
    etcdserverpb::{
        DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest,
        RangeResponse,
    },
    mvccpb::KeyValue,
};
use raft::rows::{Read, StorageError, Write};

use super::{
    layout::{
        ChangeKind, KeyRecord, Meta, Revision, change_row, change_value, corrupt, current_row,
        history_row,
    },
    read::{header, range_at},
    refusal::{KvError, Refusal},
    span::{Span, SpanSet},
};

/// Changes rows for one command, which is one revision.
///
/// The first change uses the next revision; without a change the revision stays.
pub(super) struct Writer<'a> {
    rows: &'a mut dyn Write,
    meta: &'a mut Meta,
    begin: i64,
    changes: u32,
}

impl<'a> Writer<'a> {
    pub(super) fn new(rows: &'a mut dyn Write, meta: &'a mut Meta) -> Self {
        let begin = meta.revision;
        Self { rows, meta, begin, changes: 0 }
    }

    pub(super) fn put(&mut self, request: &PutRequest) -> Result<PutResponse, StorageError> {
        let row = current_row(&request.key);
        let old_bytes = self.rows.get(&row)?;
        let old = match &old_bytes {
            Some(bytes) => Some(KeyRecord::decode(bytes).ok_or_else(|| corrupt("current", &row))?),
            None => None,
        };
        let at = self.next_revision();
        let mut record = KeyRecord {
            create_revision: old.map_or(at.main, |old| old.create_revision),
            mod_revision: at.main,
            version: old.map_or(0, |old| old.version) + 1,
            lease: request.lease,
            value: &request.value,
        };
        if request.ignore_value {
            record.value = old.map_or(&[], |old| old.value);
        }
        if request.ignore_lease {
            record.lease = old.map_or(0, |old| old.lease);
        }
        let prev_kv = old.filter(|_| request.prev_kv).map(|old| old.to_proto(&request.key));
        let bytes = record.encode();
        let kind = if old.is_some() { ChangeKind::Update } else { ChangeKind::Create };
        if let Some(old) = old_bytes {
            self.end_record(&request.key, at, row.len(), old);
        }
        self.meta.grow(row.len() + bytes.len());
        self.rows.put(row, bytes);
        self.note_change(kind, &request.key, at);
        Ok(PutResponse { header: Some(header(at.main)), prev_kv })
    }

    pub(super) fn delete_range(
        &mut self,
        request: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, StorageError> {
        let mut ending: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut prev_kvs: Vec<KeyValue> = Vec::new();
        Span::new(&request.key, &request.range_end).each_current(
            self.rows,
            &mut |key, record| {
                if request.prev_kv {
                    prev_kvs.push(record.to_proto(key));
                }
                ending.push((key.to_vec(), record.encode()));
                true
            },
        )?;
        let deleted = ending.len();
        for (key, bytes) in ending {
            let at = self.next_revision();
            let row = current_row(&key);
            self.end_record(&key, at, row.len(), bytes);
            self.rows.delete(row);
            self.note_change(ChangeKind::Delete, &key, at);
        }
        Ok(DeleteRangeResponse {
            header: Some(header(self.revision())),
            deleted: i64::try_from(deleted).unwrap_or(i64::MAX),
            prev_kvs,
        })
    }

    /// Answers a range at the latest revision, with what this command has changed so far, or at an
    /// older one, which was checked to be readable.
    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, StorageError> {
        let current = self.revision();
        let at = if request.revision > 0 { request.revision } else { current };
        range_at(self.rows, request, at, current)
    }

    /// The revision as this command sees it.
    pub(super) fn revision(&self) -> i64 {
        self.begin + i64::from(self.changes > 0)
    }

    /// Makes the revision as this command sees it the namespace's, and returns it.
    pub(super) fn finish(self) -> i64 {
        self.meta.revision = self.revision();
        self.meta.revision
    }

    fn next_revision(&mut self) -> Revision {
        let at = Revision { main: self.begin + 1, sub: self.changes };
        self.changes += 1;
        at
    }

    /// Moves a record into history. The caller replaces or deletes its current row.
    fn end_record(&mut self, key: &[u8], at: Revision, current_row_len: usize, bytes: Vec<u8>) {
        let row = history_row(key, at);
        self.meta.shrink(current_row_len + bytes.len());
        self.meta.grow(row.len() + bytes.len());
        self.rows.put(row, bytes);
    }

    fn note_change(&mut self, kind: ChangeKind, key: &[u8], at: Revision) {
        let (row, value) = (change_row(at), change_value(kind, key));
        self.meta.grow(row.len() + value.len());
        self.rows.put(row, value);
    }
}

/// Refuses a put outside a transaction that the rows do not allow.
pub(super) fn admit_put(rows: &dyn Read, request: &PutRequest) -> Result<(), KvError> {
    admit_lease(request)?;
    admit_ignore(rows, request, &SpanSet::default())
}

/// Refuses a put with a lease, since there are no leases.
pub(super) fn admit_lease(request: &PutRequest) -> Result<(), Refusal> {
    if request.lease == 0 { Ok(()) } else { Err(Refusal::LeaseNotFound) }
}

/// Refuses to keep the value or lease of a key that is not there, or that an earlier operation of
/// the same transaction has `deleted`.
pub(super) fn admit_ignore(
    rows: &dyn Read,
    request: &PutRequest,
    deleted: &SpanSet<'_>,
) -> Result<(), KvError> {
    if !request.ignore_value && !request.ignore_lease {
        return Ok(());
    }
    if deleted.contains(&request.key) || rows.get(&current_row(&request.key))?.is_none() {
        return Err(Refusal::KeyNotFound.into());
    }
    Ok(())
}
