//! The node's proxies: one serves clients, started once, adopted after our own restart, told every new table of routes.
//!
//! One that runs another program than this agent is replaced: a successor takes its place without a client's noticing
//! (`proxy::succession`), and the former one is told every table beside it until its last connection has ended. That is how
//! the proxy of a node comes to a new version: the agent is replaced, and sees to it.

mod conversation;
mod process;
mod together;

use std::time::Duration;

use decide::agent::Input;
use effects::process::{Exit, Process};
use model::RouteName;
use model::event::{Event, Severity};
use model::routes::{FromProxy, ProxyReport, RouteTable};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};

use super::{Shared, cookies};
use conversation::{Conversation, News};
use together::{Fact, Together, Which};

/// How often is looked for proxies that finish their work, besides when one takes another's place.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Time from one attempt to replace a proxy to the next; doubled with each, up to the longest. After a rest the next one is
/// a first one again.
const RETRY_FIRST: Duration = Duration::from_secs(2);
const RETRY_LONGEST: Duration = Duration::from_secs(60);
const REST: Duration = Duration::from_secs(180);

/// How long a successor may take to serve.
const SUCCESSION_LIMIT: Duration = Duration::from_secs(40);

/// How far the node's proxies are with the agent's own program.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stand {
    /// The proxy that serves runs it; `None` while that is not known.
    pub(super) follows: Option<bool>,
    /// Proxies that finish their work.
    pub(super) leaving: usize,
    /// Why it could not be replaced.
    pub(super) because: Option<String>,
}

/// The connection to this node's proxies.
pub(super) struct DataPlane {
    table: watch::Sender<Option<RouteTable>>,
}

impl DataPlane {
    /// `drain`: how long connections may stay with a proxy that has been replaced.
    pub(super) fn start(shared: &Shared, drain: Duration, stand: watch::Sender<Stand>) -> Self {
        let (table, tables) = watch::channel(None);
        let (found, cookies) = watch::channel(None);
        tokio::spawn(cookies::find(shared.clone(), tables.clone(), found));
        let (speak, news) = mpsc::unbounded_channel();
        let keeper = Keeper {
            shared: shared.clone(),
            tables,
            cookies,
            speak,
            together: Together::default(),
            stand,
            drain,
            serving: None,
            successor: None,
            retry: None,
            patience: Patience::default(),
        };
        tokio::spawn(keeper.keep(news));
        Self { table }
    }

    /// Lets the proxies serve this table.
    pub(super) fn serve(&self, table: RouteTable) {
        self.table.send_replace(Some(table));
    }
}

struct Keeper {
    shared: Shared,
    tables: watch::Receiver<Option<RouteTable>>,
    cookies: watch::Receiver<Option<String>>,
    speak: mpsc::UnboundedSender<(Which, News)>,
    together: Together,
    stand: watch::Sender<Stand>,
    drain: Duration,
    /// The process that serves.
    serving: Option<i32>,
    /// One that was started to take its place, and until when it may take.
    successor: Option<(Process, Instant)>,
    /// When the proxy that serves is to be replaced.
    retry: Option<Instant>,
    patience: Patience,
}

/// When a proxy may be replaced again: a successor can end after it has taken over, too, and then the former one is back.
#[derive(Debug, Default)]
struct Patience(Option<(Instant, Duration)>);

impl Patience {
    fn attempted(&mut self, now: Instant) {
        let pause = match self.0 {
            Some((last, pause)) if now - last < REST => (pause * 2).min(RETRY_LONGEST),
            Some(_) | None => RETRY_FIRST,
        };
        self.0 = Some((now, pause));
    }

    fn next(&self, now: Instant) -> Instant {
        self.0.map_or(now, |(last, pause)| now.max(last + pause))
    }
}

impl Keeper {
    /// Keeps the proxies running and told, for ever.
    async fn keep(mut self, mut news: mpsc::UnboundedReceiver<(Which, News)>) {
        // A node without routes (a witness) needs no proxy.
        if self.tables.wait_for(Option::is_some).await.is_err() {
            return;
        }
        self.together.expect(Which::Serving);
        tokio::spawn(self.conversation(Which::Serving).with_serving());
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                heard = news.recv() => match heard {
                    Some((which, heard)) => self.take_in(&which, heard).await,
                    None => return,
                },
                _ = look.tick() => self.find_leaving(process::leaving(&self.shared.places).await),
                exit = ended(self.successor.as_ref()) => self.successor_failed(&exit),
                () = due(self.retry) => self.replace().await,
            }
        }
    }

    fn conversation(&self, which: Which) -> Conversation {
        Conversation {
            which,
            places: self.shared.places.clone(),
            tables: self.tables.clone(),
            cookies: self.cookies.clone(),
            news: self.speak.clone(),
            answered: None,
        }
    }

    async fn take_in(&mut self, which: &Which, news: News) {
        match news {
            News::Met { pid, leaving } => {
                self.find_leaving(leaving);
                self.met(pid).await;
            }
            News::Said(said) => self.hear(which, said),
            News::Lost => {
                self.together.lost(which);
                if *which == Which::Serving {
                    self.serving = None;
                    self.stand.send_modify(|stand| stand.follows = None);
                }
            }
            News::Absent => {
                if let Err(error) = process::start_or_adopt(&self.shared.places).await {
                    tracing::error!(%error, "the proxy cannot be started");
                }
            }
            News::Gone => {
                for fact in self.together.gone(which) {
                    self.pass_on(fact);
                }
                self.count_leaving();
            }
        }
    }

    /// Talks to those that finish their work from now on. Until they have answered, no table counts as obeyed.
    fn find_leaving(&mut self, names: Vec<String>) {
        for name in names {
            let which = Which::Leaving(name.clone());
            if !self.together.knows(&which) {
                self.together.expect(which.clone());
                let socket = process::leaving_socket(&self.shared.places, &name);
                tokio::spawn(self.conversation(which).with_leaving(socket));
            }
        }
        self.count_leaving();
    }

    fn count_leaving(&self) {
        let leaving = self.together.leaving();
        self.stand.send_if_modified(|stand| std::mem::replace(&mut stand.leaving, leaving) != leaving);
    }

    // ---- which program serves ----

    async fn met(&mut self, pid: Option<i32>) {
        self.serving = pid;
        if let Some((process, _)) = self.successor.take_if(|(process, _)| Some(process.id().pid) == pid) {
            self.succeeded(&process);
        }
        let follows = match pid {
            Some(pid) => process::runs_own_program(pid).await,
            None => None,
        };
        self.stand.send_modify(|stand| stand.follows = follows);
        if follows == Some(false) && self.successor.is_none() {
            self.retry = Some(self.patience.next(Instant::now()));
        }
    }

    async fn replace(&mut self) {
        self.retry = None;
        let Some(pid) = self.serving.filter(|_| self.successor.is_none()) else { return };
        if process::runs_own_program(pid).await != Some(false) {
            return;
        }
        self.patience.attempted(Instant::now());
        match process::start_successor(&self.shared.places, self.drain).await {
            Ok(process) => self.successor = Some((process, Instant::now() + SUCCESSION_LIMIT)),
            Err(error) => self.failed(&format!("its successor cannot be started: {error}")),
        }
    }

    fn succeeded(&mut self, process: &Process) {
        if let Err(error) = process::record(&self.shared.places, process) {
            // It is found again by its mark.
            tracing::warn!(%error, "the proxy could not be recorded");
        }
        self.stand.send_modify(|stand| stand.because = None);
        let what = "its proxy is replaced by one of the agent's own program".to_owned();
        let because = "no client notices; what is under way ends in the former one".to_owned();
        self.tell(Severity::Info, what, because);
    }

    fn successor_failed(&mut self, exit: &Option<Exit>) {
        let Some((process, _)) = self.successor.take() else { return };
        // It has ended, or it hangs: the proxy that serves takes no harm either way.
        drop(process.kill_session());
        let log = self.shared.places.log("proxy.log");
        self.failed(&match exit {
            Some(exit) => format!("its successor ended with {exit}; {} says why", log.display()),
            None => format!("its successor did not serve within {} s", SUCCESSION_LIMIT.as_secs()),
        });
    }

    fn failed(&mut self, because: &str) {
        self.retry = Some(self.patience.next(Instant::now()));
        self.stand.send_modify(|stand| stand.because = Some(because.to_owned()));
        let what = "its proxy runs another program than the agent, and could not be replaced".to_owned();
        self.tell(Severity::Warning, what, because.to_owned());
    }

    fn tell(&self, severity: Severity, what: String, because: String) {
        let node = self.shared.me.clone();
        let (subject, what) = (format!("node/{node}"), format!("{node}: {what}"));
        self.shared.journal.add(Event { at_us: 0, node, severity, subject, what, because });
    }

    // ---- what they say ----

    fn hear(&mut self, which: &Which, said: FromProxy) {
        match &said {
            FromProxy::Applied { listen_errors, .. } => {
                for error in listen_errors {
                    tracing::warn!(%error, "a route does not listen");
                }
            }
            FromProxy::Refused { because, .. } => {
                tracing::warn!(%because, "the proxy did not take the routes");
            }
            FromProxy::Drained { route, idle, cut, .. } => {
                tracing::info!(%route, idle, cut, "sessions have left the member that hands over");
            }
            FromProxy::Report(_) => {}
        }
        if let Some(fact) = self.together.heard(which, said) {
            self.pass_on(fact);
        }
    }

    fn pass_on(&self, fact: Fact) {
        let inputs = &self.shared.inputs;
        match fact {
            Fact::Applied(generation) => inputs.send(Input::RoutesApplied(generation)),
            Fact::Drained { route, generation } => inputs.send(Input::Drained { route, generation }),
            Fact::Report { report, current } => {
                if current {
                    inputs.send(Input::Counted(report.clone()));
                }
                let before = self.shared.traffic.send_replace(report.clone());
                new_troubles(&before, &report).for_each(|(route, trouble)| self.tell_trouble(route, trouble));
            }
        }
    }

    fn tell_trouble(&self, route: &RouteName, trouble: &str) {
        self.shared.journal.add(Event {
            at_us: 0,
            node: self.shared.me.clone(),
            severity: Severity::Warning,
            subject: format!("route/{route}"),
            what: match trouble.starts_with("TLS to ") {
                true => format!("{}: an instance of the route {route} is not trusted", self.shared.me),
                false => format!("{}: a file of the route {route} cannot be used", self.shared.me),
            },
            because: trouble.to_owned(),
        });
    }
}

/// The end of a successor that has not taken over: how it ended, or `None` when it takes too long.
async fn ended(successor: Option<&(Process, Instant)>) -> Option<Exit> {
    let Some((process, limit)) = successor else { return std::future::pending().await };
    tokio::time::timeout_at(*limit, process.exited()).await.ok()
}

async fn due(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_that_ends_again_and_again_is_tried_ever_more_rarely() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut patience = Patience::default();
        assert_eq!(patience.next(begin), begin);
        let mut now = begin;
        let mut pauses = vec![];
        for _ in 0..7 {
            patience.attempted(now);
            pauses.push((patience.next(now) - now).as_secs());
            now = patience.next(now);
        }
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60]);
        patience.attempted(now + 200 * second);
        assert_eq!(patience.next(now), now + 202 * second, "the next upgrade begins anew");
    }
}
