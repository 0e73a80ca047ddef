//! Copying a member anew.

use std::sync::Mutex;
use std::time::Duration;

use effects::postgres::{Application, CloneError, Postmaster, RewindError, StartError, StartRole, WalStatus};
use effects::process::{Signal, processes_of, signal_process};
use model::leadership::Term;
use model::postgres::{Lsn, Timeline, WalPosition};

use super::cluster::{
    Cluster, SOON, kill, make_table, observe, rows, wait_until, wait_until_streaming, write,
};

/// A primary with one row, and its standby.
async fn with_a_row() -> (Cluster, Vec<Postmaster>) {
    let (cluster, servers) = Cluster::streaming(&["e1", "e2"]).await;
    let client = cluster.client(0).await.unwrap();
    make_table(&client).await;
    write(&client, "one").await.unwrap();
    (cluster, servers)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forced_clone_replaces_the_old_data_and_streams() {
    let (cluster, mut servers) = with_a_row().await;
    let running = cluster.members[1].clone_from(&cluster.source(0), SOON, |_| ()).await.unwrap_err();
    assert!(matches!(running, CloneError::Running(_)), "{running}");
    kill(&servers[1]).await;
    let progress = Mutex::new(Vec::new());
    let note = |now| progress.lock().unwrap().push(now);
    let cloned = cluster.members[1].clone_from(&cluster.source(0), SOON, note).await.unwrap();
    println!("cloned in {:?}, {:?}", cloned.took, progress.lock().unwrap());
    assert!(!progress.lock().unwrap().is_empty());
    assert_eq!(cloned.system_identifier, observe(&servers[0]).await.system_number());
    servers[1] = cluster.start_standby(1).await;
    servers[1].follow(&cluster.source(0)).await.unwrap();
    wait_until_streaming(&servers[0], cluster.members[1].node()).await;
    let paths = cluster.members[1].paths();
    assert!(!paths.cloned().exists() && !paths.cloning().exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_member_is_copied_although_the_primary_has_made_no_slot_for_it_yet() {
    let (cluster, primary) = Cluster::founded(&["e1", "e2"]).await;
    let member = &cluster.members[1];
    member.keep_secrets(&cluster.secrets).await.unwrap();
    member.write_settings(&cluster.settings).await.unwrap();
    assert_eq!(observe(&primary).await.slots.len(), 0);
    member.clone_from(&cluster.source(0), SOON, |_| ()).await.unwrap();
    let slots = observe(&primary).await.slots;
    assert_eq!(slots.iter().map(|slot| slot.name.as_str()).collect::<Vec<_>>(), ["mainstay_e2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_fails_or_is_killed_leaves_the_old_data_usable() {
    let (cluster, mut servers) = Cluster::streaming(&["e1", "e2"]).await;
    make_table(&cluster.client(0).await.unwrap()).await;
    kill(&servers[1]).await;
    let mut nowhere = cluster.source(0);
    nowhere.port = 1;
    let error = cluster.members[1].clone_from(&nowhere, SOON, |_| ()).await.unwrap_err();
    assert!(matches!(&error, CloneError::Copy { said, .. } if said.contains("refused")), "{error}");
    // A copy that is given up ends its tool at once, and leaves a half copy.
    let stopped = cluster.members[1].clone();
    let copying = tokio::spawn({
        let source = cluster.source(0);
        async move { stopped.clone_from(&source, SOON, |_| ()).await }
    });
    let database = cluster.members[1].paths().database.clone();
    let tool = loop {
        let found = processes_of(|facts| {
            facts.name == "pg_basebackup" && facts.working_directory() == Some(database.clone())
        });
        if let Some(found) = found.into_iter().next() {
            signal_process(found.id, Signal::STOP);
            break found.id;
        }
        assert!(!copying.is_finished(), "the copy was too fast to be interrupted");
        tokio::task::yield_now().await;
    };
    copying.abort();
    assert!(copying.await.is_err());
    let begin = std::time::Instant::now();
    while effects::process::facts_of(tool.pid).is_some_and(|facts| facts.id == tool && !facts.is_dead()) {
        assert!(begin.elapsed() < Duration::from_secs(2), "the tool of a copy that was given up lives on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    servers[1] = cluster.start_standby(1).await;
    servers[1].follow(&cluster.source(0)).await.unwrap();
    wait_until_streaming(&servers[0], cluster.members[1].node()).await;
    kill(&servers[1]).await;
    cluster.members[1].clone_from(&cluster.source(0), SOON, |_| ()).await.unwrap();
    assert!(effects::process::facts_of(tool.pid).is_none_or(|facts| facts.is_dead() || facts.id != tool));
    cluster.start_standby(1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_swap_of_directories_is_completed_at_the_next_start() {
    let (cluster, mut servers) = Cluster::streaming(&["e1", "e2"]).await;
    kill(&servers[1]).await;
    let paths = cluster.members[1].paths().clone();
    // Killed between the two renames, with the copy complete.
    std::fs::rename(&paths.data, paths.cloned()).unwrap();
    std::fs::create_dir(paths.replaced()).unwrap();
    std::fs::write(paths.replaced().join("PG_VERSION"), "9").unwrap();
    servers[1] = cluster.start_standby(1).await;
    assert!(observe(&servers[1]).await.in_recovery);
    let begin = std::time::Instant::now();
    while paths.replaced().exists() {
        assert!(begin.elapsed() < SOON, "the old data is not deleted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_rewound_says_so_and_does_not_start_until_it_is_cloned() {
    let (cluster, mut servers) = with_a_row().await;
    let begin = WalPosition { timeline: Timeline(1), lsn: Lsn(0) };
    let running = cluster.members[1].rewind(&cluster.source(0), begin, Term(2), SOON).await.unwrap_err();
    assert!(matches!(running, RewindError::Running(_)), "{running}");
    kill(&servers[1]).await;
    // The member lost the log that a rewind needs.
    let wal = cluster.members[1].paths().data.join("pg_wal");
    for entry in std::fs::read_dir(&wal).unwrap().flatten() {
        if entry.file_type().unwrap().is_file() {
            std::fs::remove_file(entry.path()).unwrap();
        }
    }
    let error = cluster.members[1].rewind(&cluster.source(0), begin, Term(2), SOON).await.unwrap_err();
    assert!(matches!(&error, RewindError::MustClone(_)), "{error}");
    println!("{error}");
    let refused = cluster.members[1].start(&StartRole::Standby, &cluster.settings, SOON).await.unwrap_err();
    assert!(matches!(refused, StartError::HalfRewound(_)), "{refused}");
    cluster.members[1].clone_from(&cluster.source(0), SOON, |_| ()).await.unwrap();
    servers[1] = cluster.start_standby(1).await;
    servers[1].follow(&cluster.source(0)).await.unwrap();
    let end = observe(&servers[0]).await.position.lsn;
    wait_until("caught up", &servers[1], |facts| facts.replayed >= Some(end)).await;
    assert_eq!(rows(&cluster.client(1).await.unwrap()).await, ["one"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_lacks_log_is_never_rewound_over_the_history_of_its_primary() {
    let (cluster, mut servers) = with_a_row().await;
    servers[1].disconnect_receiver(SOON).await.unwrap();
    let more = "SELECT pg_logical_emit_message(true, 'test', 'more')";
    servers[0].member().control().text(more, SOON).await.unwrap();
    kill(&servers[1]).await;
    // Recovered alone it gets checkpoints of its own where the primary's log goes on.
    let begin = WalPosition { timeline: Timeline(1), lsn: Lsn(0) };
    let error = cluster.members[1].rewind(&cluster.source(0), begin, Term(2), SOON).await.unwrap_err();
    assert!(matches!(&error, RewindError::MustClone(because) if because.contains("goes on")), "{error}");
    let refused = cluster.members[1].start(&StartRole::Standby, &cluster.settings, SOON).await.unwrap_err();
    assert!(matches!(refused, StartError::HalfRewound(_)), "{refused}");
    let again = cluster.members[1].rewind(&cluster.source(0), begin, Term(3), SOON).await.unwrap_err();
    assert!(matches!(&again, RewindError::MustClone(because) if because.contains("interrupted")), "{again}");
    cluster.members[1].clone_from(&cluster.source(0), SOON, |_| ()).await.unwrap();
    servers[1] = cluster.start_standby(1).await;
    servers[1].follow(&cluster.source(0)).await.unwrap();
    let end = observe(&servers[0]).await.position.lsn;
    wait_until("caught up", &servers[1], |facts| facts.replayed >= Some(end)).await;
    assert_eq!(rows(&cluster.client(1).await.unwrap()).await, ["one"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_databases_cluster_is_never_rewound_from() {
    let (cluster, _primary) = Cluster::founded(&["e1", "e2"]).await;
    let stranger = &cluster.members[1];
    stranger.found(&Application::named("orders"), &cluster.settings, &cluster.secrets, SOON).await.unwrap();
    let before = stranger.control_data(SOON).await.unwrap();
    let begin = WalPosition { timeline: Timeline(1), lsn: Lsn(0) };
    let error = stranger.rewind(&cluster.source(0), begin, Term(2), SOON).await.unwrap_err();
    assert!(matches!(error, RewindError::Foreign { .. }), "{error}");
    assert_eq!(stranger.control_data(SOON).await.unwrap(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slot_of_the_primary_on_a_standby_holds_back_what_a_rewind_needs_and_no_more() {
    let (cluster, servers) = Cluster::streaming(&["e1", "e2"]).await;
    let primary = cluster.members[0].node();
    let slot = async || {
        let slots = observe(&servers[1]).await.slots;
        slots.into_iter().find(|slot| slot.name == "mainstay_e1").unwrap()
    };
    servers[1].keep_slots(&cluster.others(1), SOON).await.unwrap();
    let made = slot().await.restart.unwrap();
    for _ in 0..3 {
        let sql = "SELECT pg_switch_wal(); SELECT pg_logical_emit_message(true, 'test', 'x'); CHECKPOINT";
        servers[0].member().control().text(sql, SOON).await.unwrap();
    }
    let end = observe(&servers[0]).await.position.lsn;
    wait_until("caught up", &servers[1], |facts| facts.replayed >= Some(end)).await;
    servers[1].checkpoint(SOON).await.unwrap();
    servers[1].keep_slots(&cluster.others(1), SOON).await.unwrap();
    assert_eq!(slot().await.restart, Some(made), "nobody says how far a primary's copy reaches");
    servers[1].release_log_of_primary(primary, SOON).await.unwrap();
    let redo = servers[1].member().control().text("SELECT redo_lsn FROM pg_control_checkpoint()", SOON);
    let redo: Lsn = redo.await.unwrap().parse().unwrap();
    assert_eq!(slot().await.restart, Some(redo));
    assert!(redo.0 - made.0 > 2 * (4 << 20), "{made} to {redo}");
    // On a primary the slots of others are theirs.
    let before = observe(&servers[0]).await.slots;
    servers[0].release_log_of_primary(cluster.members[1].node(), SOON).await.unwrap();
    assert_eq!(observe(&servers[0]).await.slots.len(), before.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unused_slots_follow_what_their_members_hold_and_lost_ones_are_made_anew() {
    let (mut cluster, mut servers) = Cluster::streaming(&["e1", "e2", "w1"]).await;
    let end = observe(&servers[0]).await.position.lsn;
    wait_until("caught up", &servers[1], |facts| facts.replayed >= Some(end)).await;
    let known = [(cluster.members[2].node().clone(), Some(end))].into();
    servers[1].keep_slots(&known, SOON).await.unwrap();
    let slot = observe(&servers[1]).await.slots.into_iter().find(|slot| slot.name == "mainstay_w1").unwrap();
    assert!(!slot.active && slot.restart == Some(end), "{slot:?}");
    assert_eq!(
        servers[0].stray_slots(&[cluster.members[1].node().clone()], SOON).await.unwrap(),
        ["mainstay_w1"]
    );
    // A member is away for longer than its slot may hold back log.
    kill(&servers[2]).await;
    cluster.settings.parameters.insert("max_slot_wal_keep_size".into(), "16MB".into());
    cluster.settings.parameters.insert("wal_keep_size".into(), "0".into());
    cluster.settings.parameters.insert("max_wal_size".into(), "32MB".into());
    let pending = servers[0].reload_settings(&cluster.settings, SOON).await.unwrap();
    assert_eq!(pending, []);
    let control = servers[0].member().control();
    let begin = std::time::Instant::now();
    loop {
        control
            .text(
                "SELECT pg_switch_wal(); SELECT pg_logical_emit_message(true, 'test', 'x'); CHECKPOINT",
                SOON,
            )
            .await
            .unwrap();
        let slots = observe(&servers[0]).await.slots;
        if slots.iter().any(|slot| slot.name == "mainstay_w1" && slot.wal_status == Some(WalStatus::Lost)) {
            break;
        }
        assert!(begin.elapsed() < SOON, "the slot is never lost: {:?}", observe(&servers[0]).await.slots);
    }
    let held = cluster.members[2].control_data(SOON).await.unwrap().minimum_recovery_end.lsn;
    let oldest = cluster.members[2].ask_source(&cluster.source(0), SOON).await.unwrap().oldest.unwrap();
    assert!(held < oldest, "{held} lies before {oldest}: the primary has no log for it any more");
    // Made anew, the slot is one through which the member is cloned.
    servers[0].keep_slots(&cluster.others(0), SOON).await.unwrap();
    let slots = observe(&servers[0]).await.slots;
    assert!(slots.iter().all(|slot| slot.wal_status != Some(WalStatus::Lost)), "{slots:?}");
    cluster.members[2].clone_from(&cluster.source(0), SOON, |_| ()).await.unwrap();
    servers[2] = cluster.start_standby(2).await;
    servers[2].follow(&cluster.source(0)).await.unwrap();
    wait_until_streaming(&servers[0], cluster.members[2].node()).await;
}
