//! Client and prober against real servers: what is acknowledged, what is unknown, what is lost.

use std::net::SocketAddr;
use std::time::Duration;

use effects::clock;
use rustix::process::Signal;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_postgres::config::TargetSessionAttrs;

use super::postgres::{Cellar, Server, login};
use crate::drill::session::Session;
use crate::drill::{
    Client, Copy, Deadlines, Findings, History, Ids, Member, Outcome, Prober, RunName, Target, WRITE_EVERY,
    Window, check, longest_gap, table,
};

const LEASE: Duration = Duration::from_secs(2);

const ROWS: &str = "select count(*)::text from mainstay_drill.writes";

async fn session(server: &Server) -> Session {
    Session::open(server.address, &login(), Deadlines::default()).await.unwrap()
}

fn client(servers: &[&Server], run: &RunName) -> Client {
    client_with(servers, run, WRITE_EVERY)
}

fn client_with(servers: &[&Server], run: &RunName, every: Duration) -> Client {
    start(target(servers.iter().map(|server| server.address).collect(), run, every))
}

fn target(entries: Vec<SocketAddr>, run: &RunName, every: Duration) -> Target {
    let (login, run, deadlines) = (login(), run.clone(), Deadlines::default());
    Target { entries, login, run, deadlines, every, anew: false }
}

fn start(target: Target) -> Client {
    Client::start(&Handle::current(), target, Ids::default())
}

fn member(name: &str, server: &Server) -> Member {
    Member { node: name.into(), addresses: vec![server.address] }
}

/// Waits until the client has so many acknowledgements.
async fn acknowledgements(client: &Client, wanted: u64) {
    let end = clock::now() + Duration::from_secs(20);
    while client.acknowledged() < wanted {
        assert!(clock::now() < end, "only {} of {wanted} acknowledgements", client.acknowledged());
        sleep(Duration::from_millis(10)).await;
    }
}

/// What the rows on `survivor` say of the history.
async fn judged(history: &History, survivor: &Server, run: &RunName) -> Findings {
    let rows = table::rows(&session(survivor).await, run).await.unwrap();
    let copies = [Copy { reader: "the survivor".to_owned(), rows }];
    check(history, &copies, &[member("survivor", survivor)], LEASE)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_is_an_outage_and_the_write_under_way_is_unknown() {
    let cellar = Cellar::new();
    let mut primary = cellar.primary("");
    let standby = cellar.standby("s1", &primary, "");
    primary.ask("alter system set synchronous_standby_names = 'ANY 1 (s1)'").await.unwrap();
    primary.ask("select pg_reload_conf()").await.unwrap();
    primary.until("select sync_state from pg_stat_replication", "quorum").await;
    let run = RunName::new();
    table::create(&session(&primary).await).await.unwrap();
    let client = client(&[&primary, &standby], &run);
    acknowledgements(&client, 50).await;

    // From here no commit is confirmed, so exactly one write is under way when the primary dies.
    standby.signal_process("walreceiver", Signal::STOP);
    sleep(Duration::from_millis(200)).await;
    let (before, fault) = (client.acknowledged(), clock::now());
    primary.kill();
    standby.signal_process("walreceiver", Signal::CONT);
    sleep(Duration::from_millis(300)).await;
    standby.promote().await;
    acknowledgements(&client, before + 50).await;

    let history = History { writes: client.stop().await.unwrap(), ..History::default() };
    let findings = judged(&history, &standby, &run).await;
    assert_eq!(findings.broken(), [""; 0]);
    assert_eq!(findings.unknown, 1, "{:?}", errors(&history));
    assert!(findings.failed > 0, "nothing answered for 300 ms, so writes must have failed");
    let window = Window { from: fault, until: fault + Duration::from_millis(400) };
    let outage = longest_gap(&history, window).unwrap();
    assert!(
        outage >= Duration::from_millis(480),
        "frozen for 200 ms, dead for 300 ms, and only {outage:?} measured"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_standby_that_lags_and_is_promoted_shows_lost_writes() {
    let cellar = Cellar::new();
    let mut primary = cellar.primary("");
    let standby = cellar.standby("s1", &primary, "");
    let run = RunName::new();
    table::create(&session(&primary).await).await.unwrap();
    let client = client(&[&primary, &standby], &run);
    acknowledgements(&client, 50).await;

    standby.ask("alter system set primary_conninfo = ''").await.unwrap();
    standby.ask("select pg_reload_conf()").await.unwrap();
    primary.until("select count(*)::text from pg_stat_replication", "0").await;
    let held_back = client.acknowledged();
    acknowledgements(&client, held_back + 50).await;
    primary.kill();
    standby.promote().await;
    let before = client.acknowledged();
    acknowledgements(&client, before + 20).await;

    let history = History { writes: client.stop().await.unwrap(), ..History::default() };
    let findings = judged(&history, &standby, &run).await;
    assert!(findings.lost.len() >= 50, "only {} of at least 50 lost writes found", findings.lost.len());
    assert!(findings.broken()[0].contains("acknowledged writes are lost"), "{:?}", findings.broken());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_wait_for_the_standby_is_no_acknowledgement() {
    let cellar = Cellar::new();
    let primary = cellar.primary("");
    let run = RunName::new();
    table::create(&session(&primary).await).await.unwrap();
    primary.ask("alter system set synchronous_standby_names = 'nobody'").await.unwrap();
    primary.ask("select pg_reload_conf()").await.unwrap();
    primary.until("show synchronous_standby_names", "nobody").await;
    let client = client(&[&primary], &run);
    let cancel = "select coalesce(bool_or(pg_cancel_backend(pid)), false)::text from pg_stat_activity \
                  where wait_event = 'SyncRep'";
    primary.until(cancel, "true").await;
    primary.until(ROWS, "1").await;

    let writes = client.stop().await.unwrap();
    let Outcome::Unknown(why) = &writes[0].outcome else { panic!("taken for {:?}", writes[0].outcome) };
    assert!(why.contains("acknowledged with a warning"), "{why}");
    assert!(writes.iter().all(|write| write.server().is_none()));
}

/// One thread only, so that the driver of the connection has no turn between its end and the question.
#[tokio::test(flavor = "current_thread")]
async fn a_connection_closed_while_idle_is_seen_before_it_is_used() {
    let cellar = Cellar::new();
    let primary = cellar.primary("");
    let idle = session(&primary).await;
    assert!(!idle.is_closed());
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let kill = "select count(pg_terminate_backend(pid, 5000))::text from pg_stat_activity \
                        where application_name = 'mainstay-drill' and pid <> pg_backend_pid()";
            tokio::runtime::Runtime::new().unwrap().block_on(primary.ask(kill))
        });
        assert_eq!(other.join().unwrap(), Ok(Some("1".to_owned())));
    });
    assert!(idle.is_closed());
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_closed_between_writes_are_no_errors() {
    let cellar = Cellar::new();
    let primary = cellar.primary("");
    let run = RunName::new();
    table::create(&session(&primary).await).await.unwrap();
    // Seldom enough that a session which has just served a write is idle for long.
    let client = client_with(&[&primary], &run, Duration::from_millis(300));
    let killer = session(&primary).await;
    let kill = "select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle' \
                and application_name = 'mainstay-drill' and pid <> pg_backend_pid()";
    for _ in 0..5 {
        acknowledgements(&client, client.acknowledged() + 1).await;
        assert_eq!(killer.run(kill, LEASE).await.unwrap().rows.len(), 1);
    }
    acknowledgements(&client, client.acknowledged() + 1).await;

    let history = History { writes: client.stop().await.unwrap(), ..History::default() };
    let findings = judged(&history, &primary, &run).await;
    assert_eq!(findings.broken(), [""; 0]);
    assert_eq!(findings.errors(), 0, "{:?}", errors(&history));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_for_writing_passes_a_standby_by() {
    let cellar = Cellar::new();
    let primary = cellar.primary("");
    let standby = cellar.standby("s1", &primary, "");
    let run = RunName::new();
    table::create(&session(&primary).await).await.unwrap();
    for (attributes, errors_seen) in [(TargetSessionAttrs::Any, true), (TargetSessionAttrs::ReadWrite, false)]
    {
        let mut login = login();
        login.target_session_attrs(attributes);
        let entries = vec![standby.address, primary.address];
        let client = start(Target { login, ..target(entries, &run, WRITE_EVERY) });
        acknowledgements(&client, 20).await;
        let history = History { writes: client.stop().await.unwrap(), ..History::default() };
        assert_eq!(!errors(&history).is_empty(), errors_seen, "{attributes:?}: {:?}", errors(&history));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_prober_finds_a_second_primary() {
    let cellar = Cellar::new();
    let primary = cellar.primary("");
    let standby = cellar.standby("s1", &primary, "");
    let run = RunName::new();
    table::create(&session(&primary).await).await.unwrap();
    standby.until("select to_regclass('mainstay_drill.writes')::text", "mainstay_drill.writes").await;
    let members = [member("a", &primary), member("b", &standby)];
    let prober = Prober::start(&Handle::current(), &members, &login(), &run, &Ids::default());
    sleep(Duration::from_millis(500)).await;
    standby.promote().await;
    sleep(Duration::from_millis(1000)).await;
    let history = prober.stop().await.unwrap();

    let findings = check(&history, &[], &members, Duration::from_millis(300));
    assert_eq!(findings.overlaps.len(), 1, "{findings:?}");
    assert!(findings.late_reads > 0, "the old primary went on answering as one");
    let patient = check(&history, &[], &members, Duration::from_secs(60));
    assert_eq!(patient.late_reads, 0, "within a lease of a minute nothing is late");
}

fn errors(history: &History) -> Vec<&Outcome> {
    history.writes.iter().filter(|write| write.server().is_none()).map(|write| &write.outcome).collect()
}
