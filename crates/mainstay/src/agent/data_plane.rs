//! The node's proxy: started once, adopted after our own restart, told every new table of routes.

use std::path::PathBuf;
use std::time::Duration;

use decide::agent::Input;
use effects::process::{Registry, Spawn, spawn};
use model::RouteName;
use model::event::{Event, Severity};
use model::routes::{FromProxy, InstanceRouteState, ProxyReport, RouteTable, RouteTarget, ToProxy};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::{Places, Shared, cookies};

/// Under this key the proxy is recorded for adoption.
const KEY: &str = "proxy";

/// How long its start may take.
const START_LIMIT: Duration = Duration::from_secs(5);

/// Time between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(50);

/// How often the proxy is asked for its counts while instances finish their work.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// So many failed attempts in a row mean that it does not run.
const PATIENCE: u32 = 20;

/// The connection to this node's proxy.
pub(super) struct DataPlane {
    table: watch::Sender<Option<RouteTable>>,
}

impl DataPlane {
    pub(super) fn start(shared: &Shared) -> Self {
        let (table, tables) = watch::channel(None);
        let (found, cookies) = watch::channel(None);
        tokio::spawn(cookies::find(shared.clone(), tables.clone(), found));
        let link = Link { shared: shared.clone(), tables, cookies };
        tokio::spawn(link.keep());
        Self { table }
    }

    /// Lets the proxy serve this table.
    pub(super) fn serve(&self, table: RouteTable) {
        self.table.send_replace(Some(table));
    }
}

struct Link {
    shared: Shared,
    tables: watch::Receiver<Option<RouteTable>>,
    /// The key of clients' cookies, once it is known.
    cookies: watch::Receiver<Option<String>>,
}

impl Link {
    /// Keeps the proxy running and told, for ever.
    async fn keep(mut self) {
        // A node without routes (a witness) needs no proxy.
        if self.tables.wait_for(Option::is_some).await.is_err() {
            return;
        }
        let mut failures = PATIENCE;
        loop {
            match UnixStream::connect(socket(&self.shared.places)).await {
                Ok(stream) => {
                    failures = 0;
                    self.converse(stream).await;
                }
                Err(_) if failures >= PATIENCE => {
                    failures = 0;
                    if let Err(error) = start_or_adopt(&self.shared.places).await {
                        tracing::error!(%error, "the proxy cannot be started");
                    }
                }
                Err(_) => failures += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends every table and takes in what the proxy says, until the connection ends.
    async fn converse(&mut self, stream: UnixStream) {
        let (reader, mut writer) = stream.into_split();
        let mut answers = BufReader::new(reader).lines();
        // It speaks of its own accord only when something has changed.
        if !send(&mut writer, &ToProxy::Report).await {
            return;
        }
        self.tables.mark_changed();
        self.cookies.mark_changed();
        let mut seeking = true;
        let mut ask = tokio::time::interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let going_on = tokio::select! {
                changed = self.tables.changed() => changed.is_ok() && self.send_table(&mut writer).await,
                changed = self.cookies.changed(), if seeking => {
                    // Once it is found nobody looks for it any more.
                    seeking = changed.is_ok();
                    self.send_cookies(&mut writer).await
                }
                _ = ask.tick(), if self.someone_leaves() => send(&mut writer, &ToProxy::Report).await,
                line = answers.next_line() => self.take_in(line),
            };
            if !going_on {
                return;
            }
        }
    }

    async fn send_table(&mut self, writer: &mut OwnedWriteHalf) -> bool {
        let Some(table) = self.tables.borrow_and_update().clone() else { return true };
        send(writer, &ToProxy::Table(table)).await
    }

    async fn send_cookies(&mut self, writer: &mut OwnedWriteHalf) -> bool {
        let Some(key) = self.cookies.borrow_and_update().clone() else { return true };
        send(writer, &ToProxy::Cookies { key }).await
    }

    /// Whether an instance gets no new requests and waits for its last ones to end.
    fn someone_leaves(&self) -> bool {
        let table = self.tables.borrow();
        table.iter().flat_map(|table| &table.routes).any(|route| match &route.target {
            RouteTarget::Service(target) => {
                target.instances.iter().any(|instance| instance.state == InstanceRouteState::Draining)
            }
            RouteTarget::Database(_) => false,
        })
    }

    fn take_in(&mut self, line: std::io::Result<Option<String>>) -> bool {
        let Ok(Some(line)) = line else { return false };
        match serde_json::from_str(&line) {
            Ok(FromProxy::Applied { generation, listen_errors }) => {
                for error in listen_errors {
                    tracing::warn!(%error, "a route does not listen");
                }
                self.shared.inputs.send(Input::RoutesApplied(generation));
            }
            Ok(FromProxy::Refused { because, .. }) => {
                tracing::warn!(%because, "the proxy did not take the routes")
            }
            Ok(FromProxy::Drained { generation, route, idle, cut }) => {
                tracing::info!(%route, idle, cut, "sessions have left the member that hands over");
                self.shared.inputs.send(Input::Drained { route, generation });
            }
            Ok(FromProxy::Report(report)) => {
                self.shared.inputs.send(Input::Counted(report.clone()));
                let before = self.shared.traffic.send_replace(report.clone());
                new_troubles(&before, &report).for_each(|(route, trouble)| self.tell_trouble(route, trouble));
            }
            Err(error) => tracing::warn!(%error, "the proxy said something that is not understood"),
        }
        true
    }

    fn tell_trouble(&self, route: &RouteName, trouble: &str) {
        self.shared.journal.add(Event {
            at_us: 0,
            node: self.shared.me.clone(),
            severity: Severity::Warning,
            subject: format!("route/{route}"),
            what: format!("{}: a file of the route {route} cannot be used", self.shared.me),
            because: trouble.to_owned(),
        });
    }
}

/// What a proxy reports of its routes' files that it did not report before.
fn new_troubles<'r>(
    before: &'r ProxyReport,
    now: &'r ProxyReport,
) -> impl Iterator<Item = (&'r RouteName, &'r str)> {
    let told = |route: &RouteName, trouble: &String| {
        before.routes.iter().any(|former| former.route == *route && former.troubles.contains(trouble))
    };
    let each = now
        .routes
        .iter()
        .flat_map(|report| report.troubles.iter().map(move |trouble| (&report.route, trouble)));
    each.filter(move |(route, trouble)| !told(route, trouble))
        .map(|(route, trouble)| (route, trouble.as_str()))
}

async fn send(writer: &mut OwnedWriteHalf, message: &ToProxy) -> bool {
    let Ok(mut line) = serde_json::to_vec(message) else { return true };
    line.push(b'\n');
    writer.write_all(&line).await.is_ok()
}

fn socket(places: &Places) -> PathBuf {
    places.run("proxy.sock")
}

/// Starts the proxy unless one of ours runs already and is merely slow.
async fn start_or_adopt(places: &Places) -> std::io::Result<()> {
    let registry = Registry::open(&places.state("processes"))?;
    if let Some(found) = registry.find(KEY)?
        && found.process.is_some_and(|process| process.is_alive())
    {
        return Ok(());
    }
    let program = std::env::current_exe()?;
    let root = places.root.display().to_string();
    let mut proxy = Spawn::new(program, ["proxy", "--root", &root]);
    proxy.log = Some(places.log("proxy.log"));
    proxy.mark = Some(registry.mark(KEY));
    let process = spawn(proxy, START_LIMIT).await?;
    registry.record(KEY, process.id(), serde_json::Value::Null)
}
