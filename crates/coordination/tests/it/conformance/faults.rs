//! Behaviour while leaders are lost and connections break.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use coordination::{Change, Error, HeldLease, Revision, Txn, TxnOutcome};

use super::stores::Store;
use crate::group::{PATIENCE, committed};

pub(crate) async fn a_watch_has_no_gap(store: &Store) {
    let start = store.first().list("", PATIENCE).await.unwrap().revision;
    let mut watches: Vec<_> = store.nodes.iter().map(|node| node.watch("gap/", start.next())).collect();
    let writing = async {
        for number in 0..150 {
            write_surely(store, &format!("gap/{number:03}")).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let disturbing = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            store.disturb().await;
        }
    };
    tokio::join!(writing, disturbing);
    let listing = store.first().list("gap/", PATIENCE).await.unwrap();
    let written: BTreeMap<String, Revision> =
        listing.entries.into_iter().map(|entry| (entry.key, entry.modified)).collect();
    assert_eq!(written.len(), 150);
    for watch in &mut watches {
        let mut seen = BTreeMap::new();
        let mut before = start;
        while before < listing.revision {
            let changes = tokio::time::timeout(PATIENCE, watch.next()).await.expect("all of them").unwrap();
            assert!(changes.revision > before, "in order, none twice");
            before = changes.revision;
            for change in changes.changes {
                let Change::Put(entry) = change else { panic!("{change:?} was never asked for") };
                seen.insert(entry.key, entry.modified);
            }
        }
        assert_eq!(seen, written);
    }
}

/// Writes a key once, whatever happens: after an unknown outcome the key itself tells.
async fn write_surely(store: &Store, key: &str) {
    for node in store.nodes.iter().cycle() {
        let create = Txn::new().compare(key, Revision(0)).put(key, "1");
        match node.txn(create, Duration::from_millis(500)).await {
            // A conflict is an earlier attempt whose outcome was unknown.
            Ok(TxnOutcome::Committed(_) | TxnOutcome::Conflict { .. }) => return,
            Err(Error::Unavailable(_) | Error::OutcomeUnknown(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

pub(crate) async fn outcomes_are_what_they_claim(store: &Store) {
    let claims = std::sync::Mutex::new(Vec::new());
    let writing = |node: usize| {
        let claims = &claims;
        async move {
            for number in 0..60 {
                let key = format!("claim/{node}/{number}");
                let txn = Txn::new().put(key.clone(), "1");
                let claim = store.nodes[node].txn(txn, Duration::from_millis(150)).await;
                claims.lock().unwrap().push((key, claim));
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let disturbing = async {
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            store.disturb().await;
        }
    };
    tokio::join!(writing(0), writing(1), writing(2), disturbing);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut counts = [0; 3];
    for (key, claim) in claims.into_inner().unwrap() {
        let there = store.last().get(&key, PATIENCE).await.unwrap().is_some();
        match claim {
            Ok(_) => {
                counts[0] += 1;
                assert!(there, "{key} was committed and is gone");
            }
            Err(Error::Unavailable(reason)) => {
                counts[1] += 1;
                assert!(!there, "{key} was refused ({reason}) and is there");
            }
            Err(Error::OutcomeUnknown(_)) => counts[2] += 1,
            Err(error) => panic!("{key}: {error}"),
        }
    }
    println!("committed, certainly not, unknown: {counts:?}");
    assert!(counts[0] > 0 && counts[1] + counts[2] > 0, "the faults were felt: {counts:?}");
}

pub(crate) async fn a_lease_outlives_a_fault(store: &Store) {
    // Long enough that a holder who keeps asking gets through; the store itself must not count the fault against it.
    let ttl = store.ttl * 4;
    let held = HeldLease::grant(store.nodes[0].clone(), ttl, PATIENCE).await.unwrap();
    store.first().txn(Txn::new().put_leased("held", "1", held.id()), PATIENCE).await.unwrap();
    for _ in 0..3 {
        store.disturb().await;
        tokio::time::sleep(store.ttl).await;
        assert!(held.is_valid());
        assert!(store.last().get("held", PATIENCE).await.unwrap().is_some());
    }
}

pub(crate) async fn the_unreachable_is_reported_in_time(store: &Store) {
    store.first().txn(Txn::new().put("key", "1"), PATIENCE).await.unwrap();
    let held = HeldLease::grant(store.nodes[0].clone(), store.ttl, PATIENCE).await.unwrap();
    let put = Txn::new().put_leased("mine", "1", held.id());
    let put = committed(store.last().txn(put, PATIENCE).await.unwrap());
    let mut mine = store.last().watch("mine", put.next());
    store.cut_first(true);
    let cut = Instant::now();

    let within = Duration::from_millis(400);
    let scheduling = Duration::from_millis(400);
    let read = store.first().get("key", within).await;
    assert!(matches!(read, Err(Error::Unavailable(_))), "{read:?}");
    assert!(cut.elapsed() < within + scheduling, "{:?}", cut.elapsed());
    let relied_on_until = held.valid_until().expect("the lease is longer than that");
    let write = store.first().txn(Txn::new().put("key", "2"), within).await;
    assert!(matches!(write, Err(Error::Unavailable(_) | Error::OutcomeUnknown(_))), "{write:?}");
    assert!(cut.elapsed() < (within + scheduling) * 2, "{:?}", cut.elapsed());

    held.lost().await;
    assert!(cut.elapsed() < store.ttl + scheduling, "the holder gives up by itself: {:?}", cut.elapsed());
    mine.next().await.unwrap();
    assert!(tokio::time::Instant::now() >= relied_on_until, "before the store does");
    store.cut_first(false);
    assert!(store.first().get("key", PATIENCE).await.unwrap().is_some());
}
