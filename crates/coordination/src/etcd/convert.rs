//! Our values as etcd's and back.

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, KeyValue, PutOptions, ResponseHeader, TxnOp};

use crate::{Entry, Error, LeaseId, Revision, Txn};

/// A key and its value, without the system's prefix.
pub(super) fn entry(prefix: &str, found: &KeyValue) -> Result<Entry, Error> {
    Ok(Entry {
        key: key(prefix, found)?,
        value: Bytes::copy_from_slice(found.value()),
        created: revision_of(found.create_revision()),
        modified: revision_of(found.mod_revision()),
        lease: Some(found.lease()).filter(|id| *id != 0).map(lease),
    })
}

/// A key without the system's prefix.
pub(super) fn key(prefix: &str, found: &KeyValue) -> Result<String, Error> {
    let malformed = |problem: &str| Error::Malformed {
        key: String::from_utf8_lossy(found.key()).into_owned(),
        problem: problem.to_owned(),
    };
    let text = std::str::from_utf8(found.key()).map_err(|_| malformed("the key is not text"))?;
    let key = text.strip_prefix(prefix).ok_or_else(|| malformed("the key belongs to another system"))?;
    Ok(key.to_owned())
}

pub(super) fn revision_of(revision: i64) -> Revision {
    Revision(u64::try_from(revision).unwrap_or(0))
}

/// The store's revision when it answered.
pub(super) fn revision(header: Option<&ResponseHeader>) -> Revision {
    revision_of(header.map_or(0, ResponseHeader::revision))
}

/// etcd numbers leases with positive `i64`.
pub(super) fn lease(id: i64) -> LeaseId {
    LeaseId(id.cast_unsigned())
}

pub(super) fn lease_to_etcd(lease: LeaseId) -> i64 {
    lease.0.cast_signed()
}

pub(super) fn revision_to_etcd(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}

pub(super) fn txn(prefix: &str, txn: &Txn) -> etcd_client::Txn {
    let full = |key: &str| format!("{prefix}{key}");
    let compares = txn.compares.iter().map(|compare| {
        Compare::mod_revision(full(&compare.key), CompareOp::Equal, revision_to_etcd(compare.modified))
    });
    let puts = txn.puts.iter().map(|put| {
        let options = put.lease.map(|lease| PutOptions::new().with_lease(lease_to_etcd(lease)));
        TxnOp::put(full(&put.key), put.value.to_vec(), options)
    });
    let deletes = txn.deletes.iter().map(|key| TxnOp::delete(full(key), None));
    etcd_client::Txn::new()
        .when(compares.collect::<Vec<_>>())
        .and_then(puts.chain(deletes).collect::<Vec<_>>())
}
