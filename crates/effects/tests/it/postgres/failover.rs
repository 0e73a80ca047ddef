//! Revocation, election, promotion and rejoin, as the agents will do them: the steps, and what they cost.

use std::time::{Duration, Instant};

use effects::postgres::{
    Application, Disconnected, Divergence, Postmaster, PromoteError, ReadyError, StopMode, Stopped,
    divergence,
};
use model::leadership::Term;

use super::cluster::{
    Cluster, SOON, kill, make_table, observe, rows, token, wait_until, wait_until_streaming, write,
};

const NAMES: [&str; 3] = ["e1", "e2", "w1"];

/// Tries until a write is acknowledged, as a client that lost its primary does.
async fn first_write(cluster: &Cluster, index: usize, row: &str) {
    let begin = Instant::now();
    while begin.elapsed() < SOON {
        if let Ok(client) = cluster.client(index).await
            && write(&client, row).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("no write was acknowledged within {SOON:?}");
}

/// Revokes both standbys at once.
async fn revoke(servers: &[Postmaster], standbys: [usize; 2]) -> [Disconnected; 2] {
    let [a, b] = standbys.map(|index| servers[index].disconnect_receiver(SOON));
    let (a, b) = tokio::join!(a, b);
    [a.unwrap(), b.unwrap()]
}

/// Brings a killed former primary back as a standby of `primary`: rewound if it holds log of its own.
async fn rejoin(
    cluster: &Cluster,
    servers: &mut [Postmaster],
    former: usize,
    primary: usize,
    term: u64,
) -> bool {
    let member = &cluster.members[former];
    let standby = cluster.start_standby(former).await;
    let held = standby.disconnect_receiver(SOON).await.unwrap().position;
    let history = servers[primary].history(SOON).await.unwrap();
    let own = member.own_history(held.timeline, SOON).await.unwrap();
    let diverged = match divergence(held.lsn, &own, &history) {
        Divergence::None => false,
        Divergence::After { common } => {
            standby.stop(StopMode::Fast, SOON).await.unwrap();
            standby.process().exited().await;
            let rewound = member.rewind(&cluster.source(primary), common, Term(term), SOON).await.unwrap();
            println!("rewound to {common} in {:?}, kept {:?}", rewound.took, rewound.kept);
            assert!(rewound.kept.is_some_and(|kept| kept.is_dir()));
            true
        }
        Divergence::Foreign => panic!("one family"),
    };
    if diverged {
        servers[former] = cluster.start_standby_of(former, primary).await;
    } else {
        standby.follow(&cluster.source(primary)).await.unwrap();
        servers[former] = standby;
    }
    servers[former].keep_slots(&cluster.others(former), SOON).await.unwrap();
    wait_until_streaming(&servers[primary], member.node()).await;
    diverged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_primary_acknowledges_nothing_and_the_most_advanced_standby_holds_everything() {
    let (cluster, servers) = Cluster::streaming(&NAMES).await;
    let client = cluster.client(0).await.unwrap();
    make_table(&client).await;
    write(&client, "acknowledged").await.unwrap();
    let before = observe(&servers[0]).await.position;
    let reports = revoke(&servers, [1, 2]).await;
    for report in reports {
        println!(
            "revoked in {:?} (receiver gone after {:?}): {}",
            report.took, report.receiver_gone, report.position
        );
    }
    // The primary lives, and this write reaches its disk, but no standby.
    let unconfirmed =
        tokio::time::timeout(Duration::from_millis(600), write(&client, "not acknowledged")).await;
    assert!(unconfirmed.is_err(), "a revoked primary acknowledged a write");
    assert_eq!(observe(&servers[0]).await.sync_waiting, 1);
    let best = reports.iter().map(|report| report.position).max().unwrap();
    assert!(best >= before, "{best} lacks acknowledged writes up to {before}");
    for (index, report) in [1, 2].into_iter().zip(reports) {
        let now = observe(&servers[index]).await;
        assert_eq!((now.position, now.receiver), (report.position, None), "a report became stale");
    }
    let winner = if reports[0].position == best { 1 } else { 2 };
    let sync = cluster.any_one_of(&[NAMES[3 - winner]]);
    servers[winner].promote(token(cluster.members[winner].node(), 2), &sync, SOON).await.unwrap();
    servers[3 - winner].follow(&cluster.source(winner)).await.unwrap();
    servers[winner].apply_sync_set(&sync, SOON).await.unwrap();
    let client = cluster.client(winner).await.unwrap();
    assert_eq!(rows(&client).await, ["acknowledged"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_outage_of_a_killed_primary_is_short_and_nothing_is_lost_in_rounds() {
    const ROUNDS: usize = 5;
    let (cluster, mut servers) = Cluster::streaming(&NAMES).await;
    make_table(&cluster.client(0).await.unwrap()).await;
    let (mut primary, mut outages, mut acknowledged) = (0, Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let client = cluster.client(primary).await.unwrap();
        for number in 0..20 {
            let row = format!("{round}-{number:02}");
            write(&client, &row).await.unwrap();
            acknowledged.push(row);
        }
        let standbys: [usize; 2] = std::array::from_fn(|offset| (primary + 1 + offset) % 3);
        let begin = Instant::now();
        kill(&servers[primary]).await;
        let [a, b] = revoke(&servers, standbys).await;
        let revoked = begin.elapsed();
        let (winner, other) =
            if a.position >= b.position { (standbys[0], standbys[1]) } else { (standbys[1], standbys[0]) };
        let term = round as u64 + 2;
        let sync = cluster.any_one_of(&[NAMES[other]]);
        let token = token(cluster.members[winner].node(), term);
        let row = format!("{round}-first");
        let new_primary = async {
            let promoted = servers[winner].promote(token, &sync, SOON).await.unwrap();
            (promoted, begin.elapsed())
        };
        let source = cluster.source(winner);
        let follow = servers[other].follow(&source);
        let ((promoted, new_primary), followed, ()) =
            tokio::join!(new_primary, follow, first_write(&cluster, winner, &row));
        followed.unwrap();
        let outage = begin.elapsed();
        acknowledged.push(row);
        println!(
            "round {round}: revoked after {revoked:?}, {} promoted after {new_primary:?} (timeline {}, {:?}), first acknowledgement after {outage:?}",
            NAMES[winner], promoted.timeline, promoted.took
        );
        outages.push(outage);
        servers[winner].apply_sync_set(&sync, SOON).await.unwrap();
        servers[winner].keep_slots(&cluster.others(winner), SOON).await.unwrap();
        servers[winner].checkpoint(SOON).await.unwrap();
        rejoin(&cluster, &mut servers, primary, winner, term).await;
        let everyone: Vec<&str> = NAMES.iter().copied().filter(|name| *name != NAMES[winner]).collect();
        let applied = servers[winner].apply_sync_set(&cluster.any_one_of(&everyone), SOON).await.unwrap();
        println!("round {round}: sync set widened with proof in {:?}", applied.took);
        assert_eq!(applied.terminated, Vec::<String>::new());
        primary = winner;
    }
    acknowledged.sort();
    assert_eq!(rows(&cluster.client(primary).await.unwrap()).await, acknowledged);
    outages.sort();
    println!(
        "outage of a killed primary: min {:?}, median {:?}, max {:?}",
        outages[0],
        outages[ROUNDS / 2],
        outages[ROUNDS - 1]
    );
    assert!(outages[ROUNDS / 2] < Duration::from_secs(2), "{outages:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_primary_with_log_of_its_own_is_rewound_and_loses_only_unacknowledged_writes() {
    let (cluster, mut servers) = Cluster::streaming(&NAMES).await;
    let client = cluster.client(0).await.unwrap();
    make_table(&client).await;
    write(&client, "acknowledged").await.unwrap();
    let reports = revoke(&servers, [1, 2]).await;
    let unconfirmed = tokio::time::timeout(Duration::from_millis(200), write(&client, "only here")).await;
    assert!(unconfirmed.is_err());
    kill(&servers[0]).await;
    let (winner, other) = if reports[0].position >= reports[1].position { (1, 2) } else { (2, 1) };
    let sync = cluster.any_one_of(&[NAMES[other]]);
    servers[winner].promote(token(cluster.members[winner].node(), 2), &sync, SOON).await.unwrap();
    servers[other].follow(&cluster.source(winner)).await.unwrap();
    servers[winner].apply_sync_set(&sync, SOON).await.unwrap();
    servers[winner].keep_slots(&cluster.others(winner), SOON).await.unwrap();
    // Under load the rewound data is consistent only with log that it has yet to receive.
    let load = cluster.client(winner).await.unwrap();
    load.batch_execute("CREATE TABLE load (row text)").await.unwrap();
    let load =
        tokio::spawn(
            async move { while load.batch_execute("INSERT INTO load VALUES ('x')").await.is_ok() {} },
        );
    // The rewind must wait for the first checkpoint after the promotion.
    let primary = servers[winner].clone();
    let checkpoint = async {
        tokio::time::sleep(Duration::from_millis(800)).await;
        primary.checkpoint(SOON).await.unwrap();
    };
    let (diverged, ()) = tokio::join!(rejoin(&cluster, &mut servers, 0, winner, 2), checkpoint);
    assert!(diverged, "it held log of its own");
    load.abort();
    let end = observe(&servers[winner]).await.position.lsn;
    wait_until("caught up", &servers[0], |facts| facts.replayed >= Some(end)).await;
    assert_eq!(rows(&cluster.client(0).await.unwrap()).await, ["acknowledged"]);
    // Configuration that travels with a rewind must not come into force: its own port, its own name.
    assert_eq!(observe(&servers[0]).await.receiver.unwrap().port, Some(cluster.members[winner].port()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_is_promoted_only_when_it_follows_nobody_and_acknowledges_only_with_its_set() {
    let (cluster, servers) = Cluster::streaming(&["e1", "e2"]).await;
    let token = token(cluster.members[1].node(), 2);
    let sync = cluster.any_one_of(&["e1"]);
    let refused = servers[1].promote(token, &sync, SOON).await.unwrap_err();
    assert!(matches!(refused, PromoteError::StillReceiving(_)), "{refused}");
    servers[1].disconnect_receiver(SOON).await.unwrap();
    let promoted = servers[1].promote(token, &sync, SOON).await.unwrap();
    assert_eq!(promoted.timeline.0, 2);
    // Promoting twice is fine.
    let again = servers[1].promote(token, &sync, SOON).await.unwrap();
    assert_eq!((again.timeline, again.begins), (promoted.timeline, promoted.begins));
    let client = cluster.client(1).await.unwrap();
    let alone =
        tokio::time::timeout(Duration::from_millis(400), client.batch_execute("CREATE TABLE t ()")).await;
    assert!(alone.is_err(), "a write was acknowledged that no standby holds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnected_standby_stays_disconnected_through_a_restart() {
    let (cluster, mut servers) = Cluster::streaming(&["e1", "e2"]).await;
    let before = servers[1].disconnect_receiver(SOON).await.unwrap();
    kill(&servers[1]).await;
    servers[1] = cluster.start_standby(1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let shown = servers[1].member().control().text("SHOW primary_conninfo", SOON).await.unwrap();
    assert_eq!(shown, "");
    let after = servers[1].disconnect_receiver(SOON).await.unwrap();
    assert_eq!(after.position, before.position, "the position is found on disk again");
    assert_eq!(observe(&servers[0]).await.senders, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_with_a_stuck_replay_is_disconnected_all_the_same() {
    let (cluster, servers) = Cluster::streaming(&["e1", "e2"]).await;
    make_table(&cluster.client(0).await.unwrap()).await;
    // With its startup process stopped nothing inside the standby ends the receiver.
    let receiver = observe(&servers[1]).await.receiver.unwrap().pid;
    let sql = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'startup'";
    let startup: i32 = servers[1].member().control().text(sql, SOON).await.unwrap().parse().unwrap();
    let startup = effects::process::ProcessId::of(startup).unwrap();
    effects::process::signal_process(startup, effects::process::Signal::STOP);
    let disconnected = servers[1].disconnect_receiver(SOON).await.unwrap();
    assert!(effects::process::facts_of(receiver).is_none_or(|facts| facts.is_dead()));
    effects::process::signal_process(startup, effects::process::Signal::CONT);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(observe(&servers[1]).await.receiver, None, "it reconnected");
    assert_eq!(observe(&servers[1]).await.position.lsn, disconnected.position.lsn);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_is_a_clean_stop_and_a_promotion() {
    let (cluster, servers) = Cluster::streaming(&NAMES).await;
    let client = cluster.client(0).await.unwrap();
    make_table(&client).await;
    write(&client, "one").await.unwrap();
    servers[0].checkpoint(SOON).await.unwrap();
    let begin = Instant::now();
    let stopped = servers[0].stop(StopMode::Fast, SOON).await.unwrap();
    let control = match stopped {
        Stopped::Exited { control, .. } => control.expect("readable"),
        Stopped::CheckpointWritten { control } => control,
    };
    let down = begin.elapsed();
    let end = control.checkpoint;
    wait_until("at the checkpoint", &servers[1], |facts| facts.position.lsn > end.lsn).await;
    revoke(&servers, [1, 2]).await;
    let sync = cluster.any_one_of(&["w1"]);
    servers[1].promote(token(cluster.members[1].node(), 2), &sync, SOON).await.unwrap();
    servers[2].follow(&cluster.source(1)).await.unwrap();
    first_write(&cluster, 1, "two").await;
    println!("switchover: stopped after {down:?}, first acknowledgement after {:?}", begin.elapsed());
    let mut servers = servers;
    servers[0].process().exited().await;
    servers[1].apply_sync_set(&sync, SOON).await.unwrap();
    assert!(!rejoin(&cluster, &mut servers, 0, 1, 2).await, "a clean shutdown needs no rewind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_stop_ends_with_the_checkpoint_even_when_a_standby_never_confirms_it() {
    let (_cluster, servers) = Cluster::streaming(&["e1", "e2"]).await;
    let receiver = observe(&servers[1]).await.receiver.unwrap().pid;
    let receiver = effects::process::ProcessId::of(receiver).unwrap();
    effects::process::signal_process(receiver, effects::process::Signal::STOP);
    let begin = Instant::now();
    let stopped = servers[0].stop(StopMode::Fast, SOON).await.unwrap();
    effects::process::signal_process(receiver, effects::process::Signal::CONT);
    assert!(matches!(stopped, Stopped::CheckpointWritten { .. }), "{stopped:?}");
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    kill(&servers[0]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_ends_while_starting_says_why() {
    let mut cluster = Cluster::of(&["e1"]).await;
    let member = cluster.members[0].clone();
    member.found(&Application::named("orders"), &cluster.settings, &cluster.secrets, SOON).await.unwrap();
    cluster.settings.parameters.insert("shared_preload_libraries".into(), "no_such_library".into());
    let server = member.start(&effects::postgres::StartRole::Standby, &cluster.settings, SOON).await.unwrap();
    let error = server.ready(SOON).await.unwrap_err();
    assert!(matches!(&error, ReadyError::Exited { log, .. } if log.contains("no_such_library")), "{error}");
    let checked = member.check_settings(SOON).await;
    println!("check_settings says {checked:?}");
}
