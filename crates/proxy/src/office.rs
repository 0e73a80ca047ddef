//! The life of a proxy process: it begins or takes another one's place, serves, hands over, finishes its work, ends.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep, timeout};

use crate::control::{self, state_file::StateFile};
use crate::journal::Journal;
use crate::plane::Plane;
use crate::succession::{self, Awaiting, Claim, Outcome, Successor};
use crate::{ProxyError, ProxyOptions, listeners, socket};

/// How long the files of routes may take to be read before a successor serves without.
const PREPARE_LONGEST: Duration = Duration::from_secs(10);
/// How often a proxy that finishes its work looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Without connections for so long it has: last words take a moment to be read.
const EMPTY_FOR: Duration = Duration::from_secs(1);
/// How long connections that were told to leave may take.
const LAST: Duration = Duration::from_secs(25);
/// Attempts to answer agents again when the successor has ended: its own socket may be closed a moment later.
const RETURN_ATTEMPTS: u32 = 20;
const RETURN_PAUSE: Duration = Duration::from_millis(50);

/// Runs a proxy until its future is dropped, or another one has taken its place and its last connection has ended.
///
/// Serves the table of the state file at once, or that of the proxy whose place it takes, then whatever agents send. Its
/// connections live in tasks of the tokio runtime that polls it and end with that runtime.
///
/// # Errors
/// When the control socket cannot be made, another proxy answers on it, or the one to succeed does not hand over.
pub async fn run(options: ProxyOptions) -> Result<(), ProxyError> {
    match options.succeeds {
        None => begin(options).await,
        Some(drain) => succeed(options, drain).await,
    }
}

async fn begin(options: ProxyOptions) -> Result<(), ProxyError> {
    let doors = Doors::open(&options).await?;
    let (plane, last) = furnish(&options).await;
    if let Some(table) = last {
        tracing::info!(
            generation = table.generation,
            "serving the table of the last run until an agent comes"
        );
        plane.restore(table);
    }
    Office { options, plane, claim: None }.work(doors).await
}

async fn succeed(options: ProxyOptions, drain: Duration) -> Result<(), ProxyError> {
    let (plane, _) = furnish(&options).await;
    let failed = |source| ProxyError::Succession { socket: options.socket.clone(), source };
    let claim = take_over(&options, &plane, drain).await.map_err(failed)?;
    let doors = Doors::open(&options).await?;
    tracing::info!("has taken the place of the proxy before it");
    Office { options, plane, claim: Some(claim) }.work(doors).await
}

async fn furnish(options: &ProxyOptions) -> (Arc<Plane>, Option<model::routes::RouteTable>) {
    let room = socket::raise_file_limit();
    let (state_file, last) = StateFile::open(options.state_file.clone()).await;
    (Plane::new(room, state_file, Journal::open(&options.log)), last)
}

/// Prepares everything, then serves in the place of the proxy that does so now.
async fn take_over(options: &ProxyOptions, plane: &Arc<Plane>, drain: Duration) -> io::Result<Claim> {
    let (claim, estate) = succession::claim(&options.socket).await?;
    plane.inherit(estate)?;
    if timeout(PREPARE_LONGEST, plane.obeyed()).await.is_err() {
        tracing::warn!("the files of routes could not be read in time; serving without");
    }
    let (claim, table) = claim.ready(drain).await?;
    plane.restore(table);
    plane.serve();
    Ok(claim)
}

/// Where others reach a proxy that serves.
struct Doors {
    /// Agents.
    control: UnixListener,
    /// A successor.
    claims: UnixListener,
}

impl Doors {
    async fn open(options: &ProxyOptions) -> Result<Self, ProxyError> {
        let control = control::listen(&options.socket).await?;
        let claims = succession::claims_at(&options.socket);
        let claims =
            control::bind(&claims).map_err(|source| ProxyError::Control { socket: claims, source })?;
        Ok(Self { control, claims })
    }
}

struct Office {
    options: ProxyOptions,
    plane: Arc<Plane>,
    /// The connection to the proxy before this one, which comes back should this one end.
    claim: Option<Claim>,
}

impl Office {
    async fn work(mut self, mut doors: Doors) -> Result<(), ProxyError> {
        loop {
            let (awaiting, agents) = self.serve(&doors).await;
            match Departure::open(&self.options) {
                Ok(departure) => match self.leave(awaiting, agents, doors, departure).await {
                    Some(again) => doors = again,
                    None => return Ok(()),
                },
                Err(error) => {
                    tracing::error!(%error, "no socket for the time after a hand-over: going on");
                }
            }
        }
    }

    /// Serves agents until a successor is ready to take over.
    async fn serve(&self, doors: &Doors) -> (Awaiting, JoinSet<()>) {
        let (mut agents, mut offers) = (JoinSet::new(), JoinSet::new());
        loop {
            tokio::select! {
                accepted = doors.control.accept() => self.meet(accepted, &mut agents).await,
                Some(_) = agents.join_next() => {}
                accepted = doors.claims.accept(), if offers.is_empty() => {
                    if let (Ok((stream, _)), Ok(estate)) = (accepted, self.plane.estate()) {
                        offers.spawn(succession::offer(stream, estate));
                    }
                }
                Some(offered) = offers.join_next() => match offered.map_err(io::Error::other).flatten() {
                    Ok(awaiting) => return (awaiting, agents),
                    Err(error) => tracing::warn!(%error, "a successor did not get ready; going on"),
                },
            }
        }
    }

    async fn meet(
        &self,
        accepted: io::Result<(UnixStream, tokio::net::unix::SocketAddr)>,
        agents: &mut JoinSet<()>,
    ) {
        match accepted {
            Ok((stream, _)) => drop(agents.spawn(control::serve(stream, self.plane.clone()))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept an agent's connection");
                sleep(listeners::ACCEPT_PAUSE).await;
            }
        }
    }

    /// Lets the successor serve. Finishes what is under way and ends (`None`), or comes back when the successor ends first.
    async fn leave(
        &mut self,
        awaiting: Awaiting,
        mut agents: JoinSet<()>,
        doors: Doors,
        departure: Departure,
    ) -> Option<Doors> {
        // From here on no agent is told that a table is obeyed which the successor does not get.
        agents.shutdown().await;
        self.plane.leave();
        drop(doors);
        if let Some(claim) = self.claim.take() {
            claim.release();
        }
        let drain = awaiting.drain;
        let successor = match awaiting.yours(self.plane.table()).await {
            Ok(successor) => {
                tracing::info!(connections = self.plane.connections(), "another proxy serves from now on");
                Some(successor)
            }
            Err(error) => {
                tracing::warn!(%error, "the successor has ended before it served");
                None
            }
        };
        self.finish(successor, departure, drain).await
    }

    async fn finish(
        &self,
        mut successor: Option<Successor>,
        departure: Departure,
        drain: Duration,
    ) -> Option<Doors> {
        let (mut agents, mut tick) = (JoinSet::new(), interval(LOOK_EVERY));
        let (mut wait, mut may_return) = (Wait::begin(Instant::now(), drain), true);
        loop {
            tokio::select! {
                accepted = departure.control.accept() => self.meet(accepted, &mut agents).await,
                Some(_) = agents.join_next() => {}
                outcome = outcome(&mut successor), if may_return => {
                    may_return = false;
                    if outcome == Outcome::Ended && let Some(doors) = self.come_back().await {
                        agents.shutdown().await;
                        return Some(doors);
                    }
                    self.plane.release();
                }
                _ = tick.tick() => match wait.look(Instant::now(), self.plane.connections()) {
                    Next::Wait => {}
                    Next::SendAway => self.plane.send_away(),
                    Next::End => return None,
                },
            }
        }
    }

    /// Serves again; `None` when somebody else does.
    async fn come_back(&self) -> Option<Doors> {
        for _ in 0..RETURN_ATTEMPTS {
            match Doors::open(&self.options).await {
                Ok(doors) => {
                    self.plane.serve();
                    tracing::warn!("the proxy that took over has ended: this one serves again");
                    return Some(doors);
                }
                Err(error) => tracing::debug!(%error, "cannot serve again yet"),
            }
            sleep(RETURN_PAUSE).await;
        }
        None
    }
}

/// How the successor's part ends, if there is one at all.
async fn outcome(successor: &mut Option<Successor>) -> Outcome {
    match successor {
        Some(successor) => successor.outcome().await,
        None => Outcome::Ended,
    }
}

/// The socket on which agents reach a proxy that finishes its work; gone with it.
struct Departure {
    control: UnixListener,
    path: PathBuf,
}

impl Departure {
    fn open(options: &ProxyOptions) -> io::Result<Self> {
        let directory = succession::leaving_at(&options.socket);
        std::fs::create_dir_all(&directory)?;
        // Within one process, as in a test, several may leave.
        let path = (0..).map(|number| directory.join(format!("{}-{number}.sock", std::process::id())));
        let path = path.into_iter().find(|path| !path.exists()).unwrap_or_default();
        Ok(Self { control: control::bind(&path)?, path })
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        // What is left refuses connections, and agents remove it.
        drop(std::fs::remove_file(&self.path));
    }
}

/// How long the last connections are waited for.
struct Wait {
    since: Instant,
    drain: Duration,
    empty_since: Option<Instant>,
    sent_away: bool,
}

/// What a look at the connections leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Wait,
    SendAway,
    End,
}

impl Wait {
    fn begin(since: Instant, drain: Duration) -> Self {
        Self { since, drain, empty_since: None, sent_away: false }
    }

    fn look(&mut self, now: Instant, connections: usize) -> Next {
        let waited = now - self.since;
        if connections > 0 {
            self.empty_since = None;
        } else if now - *self.empty_since.get_or_insert(now) >= EMPTY_FOR {
            return Next::End;
        }
        if waited >= self.drain.saturating_add(LAST) {
            return Next::End;
        }
        if waited >= self.drain && !self.sent_away {
            self.sent_away = true;
            return Next::SendAway;
        }
        Next::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_ends_when_it_is_empty_or_its_time_is_over() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut wait = Wait::begin(begin, 10 * second);
        assert_eq!(wait.look(begin, 0), Next::Wait);
        assert_eq!(wait.look(begin + second / 2, 1), Next::Wait, "somebody came back to it");
        assert_eq!(wait.look(begin + second, 0), Next::Wait);
        assert_eq!(wait.look(begin + 2 * second, 0), Next::End);
        let mut wait = Wait::begin(begin, 10 * second);
        let late = begin + 10 * second;
        assert_eq!((wait.look(late, 3), wait.look(late, 3)), (Next::SendAway, Next::Wait), "told once");
        assert_eq!(wait.look(late + LAST, 3), Next::End, "what does not go is cut");
    }
}
