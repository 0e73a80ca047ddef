//! Whole drills on a real pair of servers behind a small route, and their negative controls.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use super::postgres::{Cellar, Server, login};
use crate::drill::catalogue::drill;
use crate::drill::{
    Change, Control, DrillError, Entry, Member, Options, Report, Sabotage, Step, SystemView, control, run,
};

/// Two members, `a` and `b`, and what makes new ones.
struct Pair {
    behaviour: Behaviour,
    cellar: Cellar,
    servers: [Server; 2],
    /// Which of them is the primary.
    primary: usize,
    clones: u32,
}

/// The pair behind a route that parks clients while there is no primary.
struct Stand {
    pair: Arc<Mutex<Pair>>,
    route: SocketAddr,
    leads_to: watch::Sender<Option<SocketAddr>>,
    serving: JoinHandle<()>,
}

/// How the stand answers a killed postmaster.
#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    /// Writes wait for the standby; promotes it and makes a new one.
    Good,
    /// Writes wait for nobody; promotes the other although it has not received everything.
    Forgetful,
    /// Does nothing, and the postmaster lives.
    Idle,
}

const NODES: [&str; 2] = ["a", "b"];

impl Stand {
    async fn new(behaviour: Behaviour) -> Self {
        let cellar = Cellar::new();
        let first = cellar.primary(match behaviour {
            Behaviour::Good | Behaviour::Idle => "synchronous_standby_names = '*'\n",
            Behaviour::Forgetful => "",
        });
        let second = cellar.standby("second", &first, "");
        first.until("select state from pg_stat_replication", "streaming").await;
        let (leads_to, target) = watch::channel(Some(first.address));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let route = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, target));
        let pair = Pair { behaviour, cellar, servers: [first, second], primary: 0, clones: 0 };
        Self { pair: Arc::new(Mutex::new(pair)), route, leads_to, serving }
    }

    async fn view(&self) -> Result<SystemView, String> {
        let pair = self.pair.lock().await;
        let streams = "select count(*)::text from pg_stat_replication where state = 'streaming'";
        let count = pair.servers[pair.primary].ask(streams).await?;
        let members = NODES.iter().zip(&pair.servers);
        Ok(SystemView {
            primary: Some(NODES[pair.primary].into()),
            missing: (count.as_deref() != Some("1")).then(|| "no standby streams".to_owned()),
            members: members
                .map(|(node, s)| Member { node: (*node).into(), addresses: vec![s.address] })
                .collect(),
            routes: vec![Entry { node: "b".into(), address: self.route }],
            ..SystemView::default()
        })
    }

    async fn apply(&self, step: &Step) -> Result<String, String> {
        assert_eq!(step.to_string(), "kill the postmaster on a");
        let mut pair = self.pair.lock().await;
        if pair.behaviour == Behaviour::Idle {
            return Ok("pretended".to_owned());
        }
        if pair.behaviour == Behaviour::Forgetful {
            pair.servers[1].ask("alter system set primary_conninfo = ''").await?;
            pair.servers[1].ask("select pg_reload_conf()").await?;
            pair.servers[0].until("select count(*)::text from pg_stat_replication", "0").await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        self.leads_to.send_replace(None);
        pair.servers[0].kill();
        pair.servers[1].promote().await;
        // The clone of it to come would take this over.
        pair.servers[1].ask("alter system reset all").await?;
        pair.primary = 1;
        self.leads_to.send_replace(Some(pair.servers[1].address));
        drop(pair);
        tokio::spawn(rejoin(Arc::clone(&self.pair)));
        Ok("its process is gone".to_owned())
    }

    async fn options(&self) -> Options {
        let mut options = Options::new(Handle::current(), login());
        options.warm_up = Duration::from_millis(700);
        let idle = self.pair.lock().await.behaviour == Behaviour::Idle;
        options.patience = Duration::from_secs(if idle { 4 } else { 30 });
        options
    }

    async fn control(&self, sabotage: Sabotage) -> Result<Control, DrillError> {
        let view = async || self.view().await;
        let apply = async |step: &Step| self.apply(step).await;
        control(drill("postmaster-kill"), sabotage, &self.options().await, view, apply).await
    }

    async fn drill(&self) -> Result<Report, DrillError> {
        let options = self.options().await;
        let view = async || self.view().await;
        let apply = async |step: &Step| self.apply(step).await;
        run(drill("postmaster-kill"), 1, &options, view, apply).await
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// After a moment the dead member comes back as a clone, at its old address.
async fn rejoin(pair: Arc<Mutex<Pair>>) {
    tokio::time::sleep(Duration::from_secs(1)).await;
    let mut pair = pair.lock().await;
    pair.clones += 1;
    let name = format!("clone{}", pair.clones);
    let address = pair.servers[0].address;
    pair.servers[0] = pair.cellar.standby_at(address, &name, &pair.servers[1], "");
}

/// Forwards every connection to the primary, waiting for one.
async fn serve(listener: TcpListener, mut target: watch::Receiver<Option<SocketAddr>>) {
    while let Ok((mut client, _)) = listener.accept().await {
        client.set_nodelay(true).unwrap();
        let Ok(address) = target.wait_for(Option::is_some).await.map(|found| *found) else { return };
        let Some(address) = address else { return };
        tokio::spawn(async move {
            if let Ok(mut server) = TcpStream::connect(address).await {
                server.set_nodelay(true)?;
                copy_bidirectional(&mut client, &mut server).await?;
            }
            std::io::Result::Ok(())
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_on_a_pair_that_behaves_measures_it_and_finds_nothing() {
    let stand = Stand::new(Behaviour::Good).await;
    let report = stand.drill().await.unwrap();
    let run = &report.runs[0];
    // How long a promotion takes depends on what else this machine does; everything else must be right.
    let failures: Vec<&String> = run.failures.iter().filter(|f| !f.contains("stood still")).collect();
    assert_eq!(failures, [""; 0], "{report}\n{run:?}");
    assert_eq!((run.lost, run.doubled, run.two_primaries, run.late_reads), (0, 0, 0, 0));
    assert_eq!((run.primary_before.as_str(), run.primary_after.as_str()), ("a", "b"));
    assert!(run.acknowledged > 100 && run.direct > 10, "{run:?}");
    assert!(run.outage_ms.unwrap() > 20.0, "{run:?}");
    assert!(run.redundancy_ms.unwrap() >= 1000.0, "the member stayed away for a second: {run:?}");
    assert_eq!(run.evidence, ["kill the postmaster on a: its process is gone"]);
    let left = stand.pair.lock().await.servers[1].ask("select to_regnamespace('mainstay_drill')::text").await;
    assert_eq!(left, Ok(None), "the drill left its table behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_on_a_pair_that_forgets_writes_is_red() {
    let stand = Stand::new(Behaviour::Forgetful).await;
    let report = stand.drill().await.unwrap();
    assert!(report.runs[0].lost > 0, "{report}");
    assert!(!report.passed && !report.runs[0].passed);
    assert!(report.to_string().contains("acknowledged writes are lost"), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_whose_fault_did_not_happen_is_red() {
    let stand = Stand::new(Behaviour::Idle).await;
    let report = stand.drill().await.unwrap();
    let text = report.to_string();
    assert!(text.contains("a is still the primary"), "{text}");
    assert!(text.contains("never said that its redundancy was gone"), "{text}");
    assert!(!report.passed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_system_that_may_keep_its_primary_is_not_blamed_for_it() {
    let stand = Stand::new(Behaviour::Idle).await;
    let options = Options { primary: Some(Change::Any), ..stand.options().await };
    let view = async || stand.view().await;
    let apply = async |step: &Step| stand.apply(step).await;
    let text = run(drill("postmaster-kill"), 1, &options, view, apply).await.unwrap().to_string();
    assert!(!text.contains("still the primary") && !text.contains("did not do what is expected"), "{text}");
    assert!(text.contains("never said that its redundancy was gone"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_control_turns_a_drill_red_that_would_be_green() {
    for sabotage in Sabotage::ALL {
        let stand = Stand::new(Behaviour::Good).await;
        let control = stand.control(sabotage).await.unwrap();
        assert!(control.caught, "{control}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_without_redundancy_is_refused() {
    let stand = Stand::new(Behaviour::Good).await;
    stand.pair.lock().await.servers[1].kill();
    stand.pair.lock().await.servers[0].until("select count(*)::text from pg_stat_replication", "0").await;
    let error = stand.drill().await.unwrap_err().to_string();
    assert_eq!(error, "the drill is refused: the system is not fully redundant: no standby streams");
}
