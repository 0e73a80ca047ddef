//! A database of several members on this machine, each with a root directory of its own, as on nodes of their own.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use effects::postgres::{
    Application, Facts, Installation, Member, MemberConfig, Postmaster, PrimaryToken, Secrets, Settings,
    Source, StartRole,
};
use effects::process::{Signal, processes_of, signal_process};
use model::NodeName;
use model::leadership::{Leadership, Phase, SyncSet, Term};
use tempfile::TempDir;
use tokio_postgres::NoTls;

pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Members in directories of their own. Dropping it kills every process that works in one of them.
pub(crate) struct Cluster {
    pub(crate) members: Vec<Member>,
    pub(crate) settings: Settings,
    pub(crate) secrets: Secrets,
    pub(crate) directory: TempDir,
    reaper: Child,
}

/// Outlives a test that is killed: ends every process that works in the test's directory, and removes that, when nobody holds
/// the other end of its input any more. In a session of its own, because test runners kill whole groups.
const REAPER: &str = r#"cat >/dev/null
for round in 1 2 3; do
    for place in /proc/[0-9]*; do
        case "$(readlink "$place/cwd")" in "$1"|"$1"/*) kill -KILL "${place#/proc/}" ;; esac
    done
    sleep 0.1
done
rm -rf "$1""#;

fn reaper(directory: &Path) -> Child {
    let mut command = Command::new("setsid");
    command.args(["sh", "-c", REAPER, "reaper"]).arg(directory.canonicalize().unwrap()).current_dir("/");
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

pub(crate) async fn installation() -> Installation {
    let bin_dir = std::env::var_os("MAINSTAY_TEST_POSTGRES").map(std::path::PathBuf::from);
    Installation::find(bin_dir.as_deref(), None)
        .await
        .unwrap_or_else(|error| panic!("{error}; `make setup` installs the Debian package postgresql"))
}

impl Cluster {
    /// Members with these node names; nothing is founded yet.
    pub(crate) async fn of(names: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        // The operating-system user `postgres` must pass through.
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let installation = installation().await;
        let mut members = Vec::new();
        for (name, port) in names.iter().zip(free_ports(names.len())) {
            let root = directory.path().join(name);
            std::fs::create_dir(&root).unwrap();
            let config = MemberConfig {
                node: (*name).into(),
                database: "orders".into(),
                root: &root,
                port,
                installation: installation.clone(),
            };
            members.push(Member::open(config).await.unwrap());
        }
        let settings = Settings {
            listen: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            parameters: BTreeMap::from([
                ("shared_buffers".into(), "16MB".into()),
                // In the data directory, which goes with the test: killed servers leave theirs behind.
                ("dynamic_shared_memory_type".into(), "mmap".into()),
            ]),
            ..Settings::default()
        };
        let reaper = reaper(directory.path());
        Self { members, settings, secrets: Secrets::generate().unwrap(), directory, reaper }
    }

    /// The first member founded and running as a primary that waits for nobody.
    pub(crate) async fn founded(names: &[&str]) -> (Self, Postmaster) {
        let cluster = Self::of(names).await;
        let first = &cluster.members[0];
        first.found(&Application::named("orders"), &cluster.settings, &cluster.secrets, SOON).await.unwrap();
        let primary = cluster.start_primary(0, SyncSet::default()).await;
        (cluster, primary)
    }

    /// All members: the first is the primary, the others stream from it. The sync set is any one of them.
    pub(crate) async fn streaming(names: &[&str]) -> (Self, Vec<Postmaster>) {
        let (cluster, primary) = Self::founded(names).await;
        let mut servers = vec![primary];
        for index in 1..names.len() {
            servers[0].keep_slots(&cluster.others(0), SOON).await.unwrap();
            let member = &cluster.members[index];
            member.keep_secrets(&cluster.secrets).await.unwrap();
            member.write_settings(&cluster.settings).await.unwrap();
            member.clone_from(&cluster.source(0), SOON, |_| ()).await.unwrap();
            let standby = cluster.start_standby(index).await;
            standby.keep_slots(&cluster.others(index), SOON).await.unwrap();
            standby.follow(&cluster.source(0)).await.unwrap();
            servers.push(standby);
        }
        for index in 1..names.len() {
            wait_until_streaming(&servers[0], cluster.members[index].node()).await;
        }
        servers[0].apply_sync_set(&cluster.any_one_of(&names[1..]), SOON).await.unwrap();
        (cluster, servers)
    }

    pub(crate) async fn start_primary(&self, index: usize, sync: SyncSet) -> Postmaster {
        let token = token(self.members[index].node(), 1);
        let role = StartRole::Primary { token, sync };
        let server = self.members[index].start(&role, &self.settings, SOON).await.unwrap();
        server.ready(SOON).await.unwrap();
        server
    }

    pub(crate) async fn start_standby(&self, index: usize) -> Postmaster {
        let server = self.members[index].start(&StartRole::Standby, &self.settings, SOON).await.unwrap();
        server.ready(SOON).await.unwrap();
        server
    }

    /// A standby that follows another member from the first moment.
    pub(crate) async fn start_standby_of(&self, index: usize, primary: usize) -> Postmaster {
        self.members[index].set_source(&self.source(primary)).await.unwrap();
        let server = self.members[index].start(&StartRole::Standby, &self.settings, SOON).await.unwrap();
        if let Err(error) = server.ready(SOON).await {
            panic!("{error}: {}", server.last_words().await);
        }
        server
    }

    pub(crate) fn source(&self, index: usize) -> Source {
        let member = &self.members[index];
        Source {
            node: member.node().clone(),
            addresses: vec![IpAddr::V4(Ipv4Addr::LOCALHOST)],
            port: member.port(),
            tls: self.settings.tls.is_some(),
        }
    }

    /// All members but one, nothing known of their positions.
    pub(crate) fn others(&self, index: usize) -> BTreeMap<NodeName, Option<model::postgres::Lsn>> {
        let own = self.members[index].node();
        self.members
            .iter()
            .map(Member::node)
            .filter(|node| *node != own)
            .map(|node| (node.clone(), None))
            .collect()
    }

    pub(crate) fn any_one_of(&self, names: &[&str]) -> SyncSet {
        SyncSet { k: 1, members: names.iter().map(|name| NodeName::from(*name)).collect() }
    }

    /// A client of the application, connected over TCP to one member.
    pub(crate) async fn client(&self, index: usize) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(self.members[index].port()).user("orders").dbname("orders");
        config.password(&self.secrets.owner).application_name("shop");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let root = self.directory.path().canonicalize().unwrap();
        let inside = |facts: &effects::process::ProcessFacts| {
            !facts.is_dead() && facts.working_directory().is_some_and(|place| place.starts_with(&root))
        };
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(5) {
            let left = processes_of(inside);
            if left.is_empty() {
                // Nothing is left to it.
                self.reaper.kill().unwrap();
                self.reaper.wait().unwrap();
                return;
            }
            for facts in left {
                signal_process(facts.id, Signal::KILL);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The token of a record that lets `node` lead.
pub(crate) fn token(node: &NodeName, term: u64) -> PrimaryToken {
    let record = Leadership {
        term: Term(term),
        phase: Phase::Led { primary: node.clone() },
        sync: SyncSet::default(),
        previous_sync: vec![],
        sync_version: 0,
        system_identifier: None,
        lineage: vec![],
        restart: None,
        handed_on: 0,
        because: "the test says so".into(),
    };
    PrimaryToken::of(&record, node).unwrap()
}

/// Ports that were free a moment ago.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

pub(crate) async fn observe(server: &Postmaster) -> Facts {
    server.member().observer().observe(SOON).await.unwrap()
}

/// Looks until `wanted` is seen.
pub(crate) async fn wait_until(what: &str, server: &Postmaster, wanted: impl Fn(&Facts) -> bool) -> Facts {
    let begin = Instant::now();
    loop {
        let facts = observe(server).await;
        if wanted(&facts) {
            return facts;
        }
        if begin.elapsed() > SOON {
            panic!("not {what} after {SOON:?}: {facts:#?}\n{}", server.last_words().await);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn wait_until_streaming(primary: &Postmaster, node: &NodeName) {
    let name = node.as_str();
    wait_until("streaming", primary, |facts| {
        facts.senders.iter().any(|sender| sender.name == name && sender.state == "streaming")
    })
    .await;
}

/// Writes a row and waits for the acknowledgement.
pub(crate) async fn write(client: &tokio_postgres::Client, row: &str) -> Result<(), tokio_postgres::Error> {
    client.batch_execute(&format!("INSERT INTO rows VALUES ('{row}')")).await
}

pub(crate) async fn make_table(client: &tokio_postgres::Client) {
    client.batch_execute("CREATE TABLE rows (row text)").await.unwrap();
}

pub(crate) async fn rows(client: &tokio_postgres::Client) -> Vec<String> {
    let rows = client.query("SELECT row FROM rows ORDER BY row", &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// Ends a server as a power loss would: nobody gets to say goodbye.
pub(crate) async fn kill(server: &Postmaster) {
    server.kill(SOON).await.unwrap();
}
