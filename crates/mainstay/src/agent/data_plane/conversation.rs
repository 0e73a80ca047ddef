//! Talking to one of the node's proxies: it is told every table, and what it says is passed on.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use model::routes::{FromProxy, InstanceRouteState, RouteTable, RouteTarget, ToProxy};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};

use super::process;
use super::together::Which;
use crate::agent::Places;

/// Time between two attempts to reach it.
const PAUSE: Duration = Duration::from_millis(50);

/// How often it is asked for its counts while instances finish their work.
const ASK_EVERY: Duration = Duration::from_millis(100);

/// How often one that finishes its work is asked whether it still answers, and how long it may leave that without an answer:
/// what it carries stands still then, and everybody else would wait for its word.
const PROBE_EVERY: Duration = Duration::from_secs(5);
const SILENCE_LONGEST: Duration = Duration::from_secs(20);

/// So many failed attempts in a row mean that none runs.
const PATIENCE: u32 = 20;

/// What becomes known of a proxy.
pub(super) enum News {
    /// A connection to it is there.
    Met {
        /// Its process, if the kernel says it.
        pid: Option<i32>,
        /// All that finish their work at this moment, by the names of their sockets.
        leaving: Vec<String>,
    },
    /// It says something.
    Said(FromProxy),
    /// The connection has ended.
    Lost,
    /// Nobody listens on its socket.
    Absent,
    /// It has ended.
    Gone,
}

/// The conversation with one proxy.
pub(super) struct Conversation {
    pub(super) which: Which,
    pub(super) places: Places,
    pub(super) tables: watch::Receiver<Option<RouteTable>>,
    /// The key of clients' cookies, once it is known.
    pub(super) cookies: watch::Receiver<Option<String>>,
    pub(super) news: mpsc::UnboundedSender<(Which, News)>,
    /// When it said something last, where somebody watches that.
    pub(super) answered: Option<watch::Sender<Instant>>,
}

impl Conversation {
    /// Talks to whoever serves, for ever.
    pub(super) async fn with_serving(mut self) {
        let mut failures = PATIENCE;
        loop {
            match UnixStream::connect(process::socket(&self.places)).await {
                Ok(stream) => {
                    failures = 0;
                    self.meet(&stream).await;
                    self.converse(stream).await;
                    self.tell(News::Lost);
                }
                Err(_) if failures >= PATIENCE => {
                    failures = 0;
                    self.tell(News::Absent);
                }
                Err(_) => failures += 1,
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Talks to one that finishes its work, until it has ended.
    pub(super) async fn with_leaving(mut self, socket: PathBuf) {
        loop {
            match UnixStream::connect(&socket).await {
                Ok(stream) => {
                    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
                    let (last, silence) = watch::channel(Instant::now());
                    self.answered = Some(last);
                    tokio::select! {
                        () = self.converse(stream) => {}
                        () = silent(silence) => process::end_hung(pid).await,
                    }
                    self.tell(News::Lost);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    process::forget_leaving(socket).await;
                    return self.tell(News::Gone);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return self.tell(News::Gone),
                Err(error) => tracing::warn!(%error, "a proxy that finishes its work cannot be reached"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Says who there is. Whoever has left a place to the one that answers now has its socket by now.
    async fn meet(&self, stream: &UnixStream) {
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let leaving = process::leaving(&self.places).await;
        self.tell(News::Met { pid, leaving });
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
        let mut probe = tokio::time::interval(PROBE_EVERY);
        loop {
            let going_on = tokio::select! {
                changed = self.tables.changed() => changed.is_ok() && self.send_table(&mut writer).await,
                changed = self.cookies.changed(), if seeking => {
                    // Once it is found nobody looks for it any more.
                    seeking = changed.is_ok();
                    self.send_cookies(&mut writer).await
                }
                _ = ask.tick(), if self.someone_leaves() => send(&mut writer, &ToProxy::Report).await,
                _ = probe.tick(), if self.answered.is_some() => send(&mut writer, &ToProxy::Report).await,
                line = answers.next_line() => self.take_in(line, &mut writer).await,
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

    async fn take_in(&self, line: io::Result<Option<String>>, writer: &mut OwnedWriteHalf) -> bool {
        let Ok(Some(line)) = line else { return false };
        if let Some(answered) = &self.answered {
            answered.send_replace(Instant::now());
        }
        let said = match serde_json::from_str(&line) {
            Ok(said) => said,
            Err(error) => {
                tracing::warn!(%error, "the proxy said something that is not understood");
                return true;
            }
        };
        // One that has little to do may have nothing to tell for long, and its counts behind this word are waited for.
        let asks = matches!(said, FromProxy::Applied { .. });
        self.tell(News::Said(said));
        !asks || send(writer, &ToProxy::Report).await
    }

    fn tell(&self, news: News) {
        // Whoever listens ends only with the process.
        let _ = self.news.send((self.which.clone(), news));
    }
}

/// Returns when nothing was said for too long.
async fn silent(mut last: watch::Receiver<Instant>) {
    loop {
        let limit = *last.borrow_and_update() + SILENCE_LONGEST;
        match timeout_at(limit, last.changed()).await {
            Ok(Ok(())) => {}
            // It is about to be told anew, or nobody watches any more.
            Ok(Err(_)) => std::future::pending().await,
            // It may have been this process that stood still: then there is an answer to be read now.
            Err(_) => {
                if timeout(2 * PROBE_EVERY, last.changed()).await.is_err() {
                    return;
                }
            }
        }
    }
}

async fn send(writer: &mut OwnedWriteHalf, message: &ToProxy) -> bool {
    let Ok(mut line) = serde_json::to_vec(message) else { return true };
    line.push(b'\n');
    writer.write_all(&line).await.is_ok()
}
