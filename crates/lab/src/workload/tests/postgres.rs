use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use checker::Anomaly;
use checker::append::Step;
use checker::file::History;
use effects::clock;
use tokio::runtime::Handle;
use tokio::time::sleep;
use tokio_postgres::config::TargetSessionAttrs;

use super::careless::Careless;
use crate::drill::tests::postgres::{Cellar, Server, login};
use crate::drill::{Deadlines, RunName};
use crate::workload::append::{Append, CLAIM};
use crate::workload::client::Crew;
use crate::workload::{Finding, Ground, Kind, Load, Recorded, Workloads};

/// Acknowledgements of each workload before and after something is done to the servers.
const ENOUGH: u64 = 250;

/// However busy the machine is.
const PATIENCE: Duration = Duration::from_secs(60);

fn load(servers: &[&Server]) -> Load {
    let entries = servers.iter().map(|server| server.address).collect();
    // There is no route here that leads to the primary only.
    let mut login = login();
    login.target_session_attrs(TargetSessionAttrs::ReadWrite);
    Load { clients: 6, rate: 300, ..Load::new(entries, login, RunName::new()) }
}

/// Works for a while, with something done to the server in the middle.
async fn recorded(load: Load, spoil: impl AsyncFnOnce(&str)) -> Vec<Recorded> {
    let run = load.run.as_str().to_owned();
    let workloads = Workloads::start(&Handle::current(), load, &Kind::ALL).await.unwrap();
    until(ENOUGH, || workloads.acknowledged()).await;
    spoil(&run).await;
    until(workloads.acknowledged() + ENOUGH, || workloads.acknowledged()).await;
    workloads.stop().await.unwrap()
}

async fn until(wanted: u64, acknowledged: impl Fn() -> u64) {
    let end = clock::now() + PATIENCE;
    while acknowledged() < wanted {
        assert!(clock::now() < end, "only {} of {wanted} acknowledgements", acknowledged());
        sleep(Duration::from_millis(20)).await;
    }
}

fn of(recorded: &[Recorded], kind: Kind) -> &Recorded {
    recorded.iter().find(|recorded| recorded.kind == kind).unwrap()
}

/// That the workload was accused, and of one of these.
fn demand(recorded: &[Recorded], kind: Kind, expected: &[Anomaly]) {
    let verdict = of(recorded, kind).history.verdict();
    let found: Vec<Anomaly> = verdict.violations().iter().map(|violation| violation.anomaly).collect();
    assert!(found.iter().any(|found| expected.contains(found)), "{kind}: wanted {expected:?}, got {verdict}");
    assert!(!of(recorded, kind).judge().failures().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_real_servers_do_for_many_clients_at_once_is_valid() {
    let cellar = Cellar::new();
    let primary = cellar.primary("");
    // A busy machine is no fault.
    let deadlines = Deadlines { statement: PATIENCE, ..Deadlines::default() };
    let all = recorded(Load { deadlines, ..load(&[&primary]) }, async |_| ()).await;
    assert_eq!(all.iter().map(|recorded| recorded.kind).collect::<Vec<_>>(), Kind::ALL[1..]);
    for recorded in &all {
        let judged = recorded.judge();
        assert_eq!((judged.verdict, &judged.because), (Finding::Valid, &vec![]), "{}", recorded.kind);
        assert!(judged.counts.ok >= ENOUGH, "{judged:?}");
        assert_eq!((judged.counts.unknown, judged.old_reads), (0, 0), "{judged:?}");
        // The files say the same.
        assert_eq!(History::parse(&recorded.history.to_text()).as_ref(), Ok(&recorded.history));
    }
    demand_concurrency(&all);
}

/// A history in which everything happened one after another would say little.
fn demand_concurrency(all: &[Recorded]) {
    let History::Append(_, history) = &of(all, Kind::Append).history else { panic!("no lists") };
    let spans = history.iter().filter_map(|one| Some((one.client, one.invoked, one.acknowledged()?)));
    let spans: Vec<_> = spans.collect();
    let at_once = spans.iter().filter(|(client, from, until)| {
        spans.iter().any(|(other, begun, ended)| other != client && begun < until && from < ended)
    });
    let at_once = at_once.count();
    assert!(at_once > spans.len() / 10, "{at_once} of {} transactions met another one", spans.len());
    let refused = history.iter().filter(|one| one.is_failed()).count();
    assert!(refused > 0, "no two transactions were ever in each other's way");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_with_a_synchronous_standby_is_valid() {
    let cellar = Cellar::new();
    let mut primary = cellar.primary("");
    let standby = cellar.standby("s1", &primary, "");
    primary.ask("alter system set synchronous_standby_names = 'ANY 1 (s1)'").await.unwrap();
    primary.ask("select pg_reload_conf()").await.unwrap();
    primary.until("select sync_state from pg_stat_replication", "quorum").await;
    let all = recorded(load(&[&primary, &standby]), async |_| {
        primary.kill();
        standby.promote().await;
    })
    .await;
    for recorded in &all {
        let judged = recorded.judge();
        assert_eq!((judged.verdict, &judged.because), (Finding::Valid, &vec![]), "{}", recorded.kind);
        assert!(judged.counts.ok >= ENOUGH && judged.counts.failed + judged.counts.unknown > 0, "{judged:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_to_a_standby_that_lags_is_caught_by_every_workload() {
    let cellar = Cellar::new();
    let mut primary = cellar.primary("");
    let standby = cellar.standby("s1", &primary, "");
    let all = recorded(load(&[&primary, &standby]), async |_| {
        standby.ask("alter system set primary_conninfo = ''").await.unwrap();
        standby.ask("select pg_reload_conf()").await.unwrap();
        primary.until("select count(*)::text from pg_stat_replication", "0").await;
        sleep(Duration::from_millis(500)).await;
        primary.kill();
        standby.promote().await;
    })
    .await;
    demand(&all, Kind::Bank, &[Anomaly::Unexplained]);
    demand(&all, Kind::Append, &[Anomaly::Lost, Anomaly::IncompatibleOrder]);
    demand(&all, Kind::Register, &[Anomaly::NotLinearizable]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_gone_are_caught() {
    let cellar = Cellar::new();
    let primary = cellar.primary("");
    let all = recorded(load(&[&primary]), async |_| {
        primary.ask("delete from mainstay_drill.accounts where id = 3").await.unwrap();
        primary.ask("delete from mainstay_drill.lists").await.unwrap();
        primary.ask("delete from mainstay_drill.registers").await.unwrap();
    })
    .await;
    demand(&all, Kind::Bank, &[Anomaly::WrongAccounts]);
    demand(&all, Kind::Append, &[Anomaly::Lost, Anomaly::Stale]);
    demand(&all, Kind::Register, &[Anomaly::NotLinearizable]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_twice_is_caught() {
    let cellar = Cellar::new();
    let primary = cellar.primary("");
    let all = recorded(load(&[&primary]), async |_| {
        // A transfer that nobody asked for leaves the sum as it is.
        let twice = "lock table mainstay_drill.accounts in exclusive mode; update mainstay_drill.accounts set balance = balance + case id when 2 then 499 else -499 end \
                     where id in (2, 5)";
        primary.ask(twice).await.unwrap();
        primary.ask("update mainstay_drill.lists set items = items || items").await.unwrap();
        // A client may write over it before anybody reads.
        for _ in 0..20 {
            primary.ask("update mainstay_drill.registers set value = 1").await.unwrap();
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    demand(&all, Kind::Bank, &[Anomaly::Unexplained]);
    demand(&all, Kind::Append, &[Anomaly::Doubled]);
    demand(&all, Kind::Register, &[Anomaly::NotLinearizable]);
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_that_careless_clients_lose_are_caught() {
    let cellar = Cellar::new();
    let primary = cellar.primary("");
    let load = load(&[&primary]);
    let run = load.run.as_str().to_owned();
    let careful = Append::new(&run, Duration::from_secs(1));
    let careless = Careless { run, careful: careful.clone() };
    let stop = Arc::new(AtomicBool::new(false));
    let ground = Ground { runtime: &Handle::current(), load: &load, stop: &stop };
    let to_history = |seen| History::Append(CLAIM, seen);
    let task = ground.begin(Kind::Append, careless, to_history).await.unwrap();
    until(ENOUGH, || task.acknowledged.load(Ordering::Relaxed)).await;
    stop.store(true, Ordering::SeqCst);
    let mut recorded = task.recorded.await.unwrap();

    let crew = Crew { work: careful, load, stop, acknowledged: task.acknowledged };
    let History::Append(claim, mut history) = recorded.history else { panic!("no lists") };
    let appended = |action: &Vec<Step>| !action.is_empty();
    assert!(history.iter().any(|one| appended(&one.action)));
    // Whoever works for a stopped crew only looks.
    history.extend(crew.work().await.into_iter().map(|seen| seen.operation));
    recorded.history = History::Append(claim, history);
    demand(&[recorded], Kind::Append, &[Anomaly::Lost, Anomaly::GSingle]);
}
