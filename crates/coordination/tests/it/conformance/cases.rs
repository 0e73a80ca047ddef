//! Behaviour in peace.

use std::time::{Duration, Instant};

use coordination::{
    Change, Changes, Coordinator, Entry, Error, HeldLease, JsonCoordinator, MAX_KEY, MAX_OPERATIONS,
    MAX_VALUE, Revision, Txn, TxnOutcome, Watch, WatchError,
};

use super::stores::Store;
use crate::group::{PATIENCE, committed};

/// How much later than its TTL a lease may end: etcd looks every half second.
const LATE: Duration = Duration::from_secs(3);

async fn commit(store: &dyn Coordinator, txn: Txn) -> Revision {
    committed(store.txn(txn, PATIENCE).await.unwrap())
}

async fn get(store: &dyn Coordinator, key: &str) -> Option<Entry> {
    store.get(key, PATIENCE).await.unwrap()
}

/// The next revision's changes: written keys as they are, deleted ones with a `-`.
async fn next(watch: &mut Watch) -> (Revision, Vec<String>) {
    let waited = tokio::time::timeout(PATIENCE + LATE, watch.next()).await.expect("a change");
    let Changes { revision, changes } = waited.unwrap();
    let mut keys: Vec<String> = changes
        .iter()
        .map(|change| match change {
            Change::Put(entry) => entry.key.clone(),
            Change::Deleted { key } => format!("-{key}"),
        })
        .collect();
    keys.sort();
    (revision, keys)
}

pub(crate) async fn revisions_order_every_change(store: &Store) {
    let (here, there) = (store.first(), store.last());
    let first = commit(here, Txn::new().put("a", "1")).await;
    let second = commit(there, Txn::new().put("b", "1")).await;
    assert!(second > first && first > Revision(0));
    let third = commit(here, Txn::new().put("a", "2").put("c", "1").delete("b")).await;
    let a = get(there, "a").await.unwrap();
    assert_eq!((a.created, a.modified, &a.value[..]), (first, third, &b"2"[..]));
    assert_eq!(get(there, "c").await.unwrap().modified, third);
    assert_eq!(get(there, "b").await, None);

    let absent = commit(here, Txn::new().compare("b", Revision(0)).compare("a", third).put("b", "2")).await;
    let conflict = there.txn(Txn::new().compare("b", Revision(0)).put("a", "lost"), PATIENCE).await.unwrap();
    assert_eq!(conflict, TxnOutcome::Conflict { revision: absent });
    let b = get(here, "b").await.unwrap();
    assert_eq!((b.created, b.modified), (absent, absent), "a key that was gone is created anew");
    assert_eq!(&get(here, "a").await.unwrap().value[..], b"2");

    let nothing = commit(here, Txn::new().delete("never there")).await;
    assert_eq!(nothing, absent, "what changes nothing makes no revision");
}

pub(crate) async fn no_update_is_lost_in_a_race(store: &Store) {
    const WRITERS: u64 = 6;
    const EACH: u64 = 8;
    let increment = |store: std::sync::Arc<dyn Coordinator>| async move {
        let mut done = 0;
        while done < EACH {
            let current = store.get_json::<u64>("counter", PATIENCE).await.unwrap();
            let (value, revision) = current.unwrap_or_default();
            let outcome =
                store.compare_and_set_json("counter", revision, &(value + 1), PATIENCE).await.unwrap();
            if matches!(outcome, TxnOutcome::Committed(_)) {
                done += 1;
            }
        }
    };
    let nodes = store.nodes.iter().cycle().take(usize::try_from(WRITERS).unwrap());
    let writers: Vec<_> = nodes.map(|node| tokio::spawn(increment(node.clone()))).collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let (value, _) = store.first().get_json::<u64>("counter", PATIENCE).await.unwrap().unwrap();
    assert_eq!(value, WRITERS * EACH);
}

pub(crate) async fn a_watch_delivers_from_an_old_revision(store: &Store) {
    let here = store.first();
    let first = commit(here, Txn::new().put("w/a", "1")).await;
    commit(here, Txn::new().put("x", "1")).await;
    let both = commit(here, Txn::new().put("w/b", "1").put("w/c", "1").put("x", "2")).await;
    let deleted = commit(here, Txn::new().delete("w/b")).await;

    let mut watch = store.last().watch("w/", first);
    let mut later = store.last().watch("w/", both.next());
    assert_eq!(next(&mut watch).await, (first, vec!["w/a".to_owned()]));
    assert_eq!(
        next(&mut watch).await,
        (both, vec!["w/b".to_owned(), "w/c".to_owned()]),
        "a transaction is one piece"
    );
    assert_eq!(next(&mut watch).await, (deleted, vec!["-w/b".to_owned()]));
    assert_eq!(next(&mut later).await.0, deleted);

    let ahead = commit(here, Txn::new().put("w/d", "1")).await;
    assert_eq!(next(&mut watch).await.0, ahead);
    let mut future = store.last().watch("w/", Revision(ahead.0 + 2));
    commit(here, Txn::new().put("w/e", "1")).await;
    let wanted = commit(here, Txn::new().put("w/f", "1")).await;
    assert_eq!(
        next(&mut future).await,
        (wanted, vec!["w/f".to_owned()]),
        "nothing before the revision asked for"
    );
}

pub(crate) async fn a_watch_of_forgotten_history_says_so(store: &Store) {
    let old = commit(store.first(), Txn::new().put("key", "1")).await;
    commit(store.first(), Txn::new().put("key", "2")).await;
    store.forget_history().await;
    commit(store.first(), Txn::new().put("key", "3")).await;
    let mut watch = store.first().watch("", old);
    let ended = tokio::time::timeout(PATIENCE, watch.next()).await.expect("an answer").unwrap_err();
    let WatchError::Compacted { oldest } = ended else { panic!("{ended}") };
    assert!(oldest > old);
    assert_eq!(watch.next().await.unwrap_err(), ended, "it stays ended");

    // The way back in that its documentation tells.
    let listing = store.first().list("", PATIENCE).await.unwrap();
    let mut watch = store.first().watch("", listing.revision.next());
    let after = commit(store.first(), Txn::new().put("key", "4")).await;
    assert_eq!(next(&mut watch).await.0, after);
}

pub(crate) async fn a_lease_takes_its_keys_with_it(store: &Store) {
    let (here, there) = (store.first(), store.last());
    let since = Instant::now();
    let lease = here.grant_lease(store.ttl, PATIENCE).await.unwrap();
    let put =
        commit(here, Txn::new().put_leased("leased/a", "1", lease).put_leased("leased/b", "1", lease)).await;
    commit(there, Txn::new().put("leased/c", "1")).await;
    assert_eq!(get(there, "leased/a").await.unwrap().lease, Some(lease));
    let mut watch = there.watch("leased/", put.next().next());
    let (_, gone) = next(&mut watch).await;
    assert_eq!(gone, ["-leased/a", "-leased/b"], "all in one revision");
    assert!(since.elapsed() >= store.ttl, "never early: {:?}", since.elapsed());
    assert!(since.elapsed() < store.ttl + LATE, "not for ever: {:?}", since.elapsed());

    assert_eq!(here.keep_alive(lease, PATIENCE).await, Err(Error::LeaseEnded(lease)));
    let late = here.txn(Txn::new().put_leased("leased/d", "1", lease), PATIENCE).await;
    assert_eq!(late, Err(Error::LeaseEnded(lease)));

    let revoked = there.grant_lease(Duration::from_secs(600), PATIENCE).await.unwrap();
    commit(here, Txn::new().put_leased("leased/e", "1", revoked)).await;
    here.revoke_lease(revoked, PATIENCE).await.unwrap();
    here.revoke_lease(revoked, PATIENCE).await.unwrap();
    assert_eq!(get(there, "leased/e").await, None);
    assert!(get(there, "leased/c").await.is_some());
}

pub(crate) async fn a_renewed_lease_lives(store: &Store) {
    let held = HeldLease::grant(store.nodes[0].clone(), store.ttl, PATIENCE).await.unwrap();
    let put = commit(store.first(), Txn::new().put_leased("held", "1", held.id())).await;
    let lost = tokio::time::timeout(store.ttl * 3, held.lost()).await;
    assert!(lost.is_err() && held.is_valid(), "it is renewed");
    assert!(get(store.last(), "held").await.is_some());
    assert!(store.last().keep_alive(held.id(), PATIENCE).await.unwrap() >= store.ttl, "any node may renew");

    let mut watch = store.last().watch("held", put.next());
    let since = Instant::now();
    drop(held);
    assert_eq!(next(&mut watch).await.1, ["-held"]);
    assert!(since.elapsed() < store.ttl + LATE, "{:?}", since.elapsed());
}

pub(crate) async fn listing_takes_a_prefix_at_one_revision(store: &Store) {
    let keys = ["p", "p/", "p/1", "p/2/x", "p/ä", "p0", "o/1"];
    let all = keys.iter().fold(Txn::new(), |txn, key| txn.put(*key, "[]"));
    let revision = commit(store.first(), all).await;
    let listed = |prefix: &'static str| async move {
        let listing = store.last().list(prefix, PATIENCE).await.unwrap();
        assert_eq!(listing.revision, revision);
        listing.entries.into_iter().map(|entry| entry.key).collect::<Vec<_>>()
    };
    assert_eq!(listed("p/").await, ["p/", "p/1", "p/2/x", "p/ä"]);
    assert_eq!(listed("p").await, ["p", "p/", "p/1", "p/2/x", "p/ä", "p0"]);
    assert_eq!(listed("p/3").await, Vec::<String>::new());
    assert!(listed("").await.contains(&"o/1".to_owned()));
}

pub(crate) async fn what_is_too_large_is_refused(store: &Store) {
    let here = store.first();
    let refused = |txn: Txn| async move { here.txn(txn, PATIENCE).await.unwrap_err() };
    let large = "x".repeat(MAX_VALUE + 1);
    assert!(matches!(refused(Txn::new().put("k", large)).await, Error::TooLarge { what: "value", .. }));
    let long = "k".repeat(MAX_KEY + 1);
    assert!(matches!(refused(Txn::new().put(long.clone(), "1")).await, Error::TooLarge { what: "key", .. }));
    assert!(matches!(here.get(&long, PATIENCE).await, Err(Error::TooLarge { .. })));
    assert!(matches!(refused(Txn::new().put("", "1")).await, Error::Invalid(_)));
    assert!(matches!(refused(Txn::new().put("k", vec![0xff])).await, Error::Invalid(_)));
    assert!(matches!(refused(Txn::new().put("k", "1").delete("k")).await, Error::Invalid(_)));
    let many = (0..=MAX_OPERATIONS).fold(Txn::new(), |txn, number| txn.put(format!("k{number}"), "1"));
    assert!(matches!(refused(many).await, Error::TooLarge { .. }));
    assert_eq!(get(here, "k").await, None);

    let most = (0..MAX_OPERATIONS).fold(Txn::new(), |txn, number| txn.put(format!("k{number}"), "1"));
    commit(here, most).await;
    // Quotes are what grows most on the way.
    let largest = "\"".repeat(MAX_VALUE);
    for number in 0..13 {
        commit(here, Txn::new().put(format!("large/{number}"), largest.clone())).await;
    }
    assert_eq!(get(store.last(), "large/1").await.unwrap().value, largest);
    let list = store.last().list("large/", PATIENCE).await;
    assert!(
        matches!(list, Err(Error::TooLarge { what: "answer", .. })),
        "13 quarter megabytes in one answer"
    );
    assert_eq!(store.last().list("k12", PATIENCE).await.unwrap().entries.len(), 9);
}

pub(crate) async fn values_are_typed_at_the_edge(store: &Store) {
    let here = store.first();
    let absent = here.get_json::<Vec<u32>>("typed", PATIENCE).await.unwrap();
    assert_eq!(absent, None);
    let put = here.put_json("typed", &vec![1, 2], PATIENCE).await.unwrap();
    let read = store.last().get_json::<Vec<u32>>("typed", PATIENCE).await.unwrap();
    assert_eq!(read, Some((vec![1, 2], put)));
    let stale = here.compare_and_set_json("typed", Revision(0), &"no", PATIENCE).await.unwrap();
    assert!(matches!(stale, TxnOutcome::Conflict { .. }));
    let wrong = here.get_json::<u32>("typed", PATIENCE).await;
    assert!(matches!(wrong, Err(Error::Malformed { key, .. }) if key == "typed"));
}

pub(crate) async fn all_nodes_name_the_same_leader(store: &Store) {
    let mut named = Vec::new();
    for node in &store.nodes {
        let mut hint = node.leader();
        let known = tokio::time::timeout(PATIENCE, hint.wait_for(|hint| hint.leader.is_some())).await;
        named.push(known.expect("a leader is named").unwrap().clone());
    }
    assert!(named.windows(2).all(|pair| pair[0] == pair[1]), "{named:?}");
    assert!(named[0].epoch > 0);
}
