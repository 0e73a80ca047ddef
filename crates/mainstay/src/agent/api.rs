//! Answers to what is asked of this agent, by the command line and by other agents.

use std::io;
use std::time::Duration;

use decide::agent::{Command, Store as Place, Value};
use decide::leadership::{self, Refusal};
use model::event::{Event, Severity};
use model::system::{RouteTarget, System};
use model::{DatabaseName, NodeName, RouteName};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Instant;
use transport::RpcPool;

use super::store::{SYSTEM, SystemRecord, WITHIN};
use super::{Shared, artefacts, member, programs, releases, renewal, upkeep};
use crate::api::{Reply, Request};
use coordination::{JsonCoordinator, Revision, TxnOutcome};

/// The longest request accepted on the socket, in bytes.
const LONGEST: u64 = 4 << 20;

/// How long another agent may take to answer a forwarded request.
const FORWARD: Duration = Duration::from_secs(20);

/// How often a request is repeated while there is no leader to answer it, and how long to wait in between.
const LEADER_TRIES: u32 = 20;

/// How often a request is decided anew when another decision was committed first, and how long to wait in between.
const COMMIT_TRIES: u32 = 5;
const COMMIT_PAUSE: Duration = Duration::from_millis(50);

/// How long a request waits for what settles by itself: a standby that connects anew, a promotion that ends.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

/// What helps when the coordination does not answer.
pub(super) const MAJORITY_HINT: &str = "try again when a majority of the voters answers";

const LEADER_PAUSE: Duration = Duration::from_millis(100);

/// Answers on the unix socket, for ever.
pub(super) async fn serve_socket(shared: Shared, rpc: RpcPool) {
    let path = shared.places.run("agent.sock");
    let listener = match bind(&path) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, path = %path.display(), "commands cannot be answered: the socket cannot be made");
            return;
        }
    };
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (shared, rpc) = (shared.clone(), rpc.clone());
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, &shared, &rpc).await {
                        tracing::debug!(%error, "a command's connection failed");
                    }
                });
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn bind(path: &std::path::Path) -> io::Result<UnixListener> {
    use std::os::unix::fs::PermissionsExt;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn converse(stream: UnixStream, shared: &Shared, rpc: &RpcPool) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(tokio::io::AsyncReadExt::take(reader, LONGEST)).lines();
    while let Some(line) = lines.next_line().await? {
        let reply = match serde_json::from_str::<Request>(&line) {
            Ok(request) => answer(shared, rpc, request, true).await,
            Err(error) => Reply::refused(
                format!("not a request: {error}"),
                "use the same version of mainstay everywhere",
            ),
        };
        let mut body = serde_json::to_vec(&reply)?;
        body.push(b'\n');
        writer.write_all(&body).await?;
    }
    Ok(())
}

/// Answers a request that another agent forwarded.
pub(super) async fn answer_frame(
    shared: &Shared,
    rpc: &RpcPool,
    from: &NodeName,
    body: &[u8],
) -> Result<Vec<u8>, String> {
    let request = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    // Only a node can ask for this, and only for itself.
    let reply = if let Request::Renew { request_pem } = request {
        Reply::Certificate(renewal::certify(shared, from, &request_pem)?)
    } else {
        answer(shared, rpc, request, false).await
    };
    serde_json::to_vec(&reply).map_err(|error| error.to_string())
}

/// Asks another agent; a failure is a refusal.
pub(super) async fn forward(rpc: &RpcPool, node: &NodeName, request: &Request) -> Reply {
    let hint = format!("see `mainstay status` for what is wrong with {node}");
    let Ok(body) = serde_json::to_vec(request) else {
        return Reply::refused("the request cannot be sent", hint);
    };
    match rpc.call(node, body, FORWARD).await {
        Ok(answer) => {
            serde_json::from_slice(&answer).unwrap_or_else(|error| Reply::refused(error.to_string(), hint))
        }
        Err(error) => Reply::refused(error.to_string(), hint),
    }
}

async fn answer(shared: &Shared, rpc: &RpcPool, request: Request, may_forward: bool) -> Reply {
    match request {
        Request::Overview => overview(shared).await,
        Request::Events { since_us, everywhere } => {
            Reply::Events(events(shared, rpc, since_us, everywhere).await)
        }
        Request::Switchover { .. } | Request::Failover { .. } | Request::RestartMember { .. }
            if may_forward =>
        {
            at_leader(shared, rpc, request).await
        }
        Request::RestartMember { database, node, force } => {
            let ask = move |question: &leadership::Question<'_>| leadership::restart(question, &node, force);
            decide_and_commit(shared, &database, ask).await
        }
        Request::On { node, request } if node == shared.me => {
            Box::pin(answer(shared, rpc, *request, may_forward)).await
        }
        Request::On { node, request } if may_forward => forward(rpc, &node, &request).await,
        Request::On { node, .. } => {
            Reply::refused(format!("this agent is not {node}'s"), "ask the agent of a node directly")
        }
        Request::Switchover { database, to } => switchover(shared, rpc, &database, to.as_ref()).await,
        Request::Failover { database, to, statement } => {
            let ask = move |question: &leadership::Question<'_>| {
                leadership::force_failover(question, &to, &statement)
            };
            decide_and_commit(shared, &database, ask).await
        }
        Request::Checkpoint { database } => match member::checkpoint(shared, &database).await {
            Ok(()) => Reply::Done("dirty pages are on disk".to_owned()),
            Err(because) => Reply::refused(because, "see `mainstay logs`"),
        },
        Request::Pause { reason } => pause(shared, Some(&reason)).await,
        Request::Resume => pause(shared, None).await,
        Request::ArtefactTake { digest, offset, piece } => {
            artefacts::take(shared, digest, offset, &piece).await
        }
        Request::ArtefactPiece { digest, offset } => artefacts::piece(shared, digest, offset).await,
        Request::ProgramTake { digest, offset, piece } => {
            programs::take(shared, digest, offset, &piece).await
        }
        Request::ProgramCheck { digest } => programs::check(shared, &digest).await,
        Request::ProgramUse { digest, drain_s } => programs::take_up(shared, digest, drain_s).await,
        Request::Release { service, order } => releases::begin(shared, &service, &order).await,
        Request::ReleaseBack { service } => releases::roll_back(shared, &service).await,
        Request::Upkeep { change } => upkeep::change(shared, rpc, &change).await,
        Request::Apply { system, replaces } => apply(shared, *system, replaces).await,
        Request::System => system(shared).await,
        Request::Renew { .. } => {
            Reply::refused("only a node asks for its certificate", "see `mainstay join`")
        }
        Request::Dsn { route } => dsn(shared, &route).await,
        Request::Jobs => super::jobs::summaries(shared).await,
        Request::RunJob { job } => super::jobs::ask_for(shared, &job).await,
        Request::Restart { subject } => restart(shared, &subject).await,
        Request::Logs { subject, lines } => super::instances::logs(shared, &subject, lines).await,
    }
}

async fn overview(shared: &Shared) -> Reply {
    match shared.inputs.ask(decide::agent::Agent::overview).await {
        Some(mut overview) => {
            overview.traffic = shared.traffic.borrow().clone();
            Reply::Overview(Box::new(overview))
        }
        None => Reply::refused("the agent is ending", "try again"),
    }
}

async fn system(shared: &Shared) -> Reply {
    match shared.inputs.ask(|agent| (agent.system().clone(), agent.generation())).await {
        Some((system, generation)) => Reply::System { system: Box::new(system), generation },
        None => Reply::refused("the agent is ending", "try again"),
    }
}

async fn events(shared: &Shared, rpc: &RpcPool, since_us: i64, everywhere: bool) -> Vec<Event> {
    let mut all = shared.journal.since(since_us);
    if everywhere {
        let nodes: Vec<NodeName> = shared.system.borrow().nodes.keys().cloned().collect();
        let request = Request::Events { since_us, everywhere: false };
        for node in nodes.iter().filter(|node| **node != shared.me) {
            if let Reply::Events(theirs) = forward(rpc, node, &request).await {
                all.extend(theirs);
            }
        }
        all.sort_by_key(|event| event.at_us);
    }
    all
}

/// Lets the leader answer: decisions are made where the commits are.
async fn at_leader(shared: &Shared, rpc: &RpcPool, request: Request) -> Reply {
    for _ in 0..LEADER_TRIES {
        let leader = shared.inputs.ask(|agent| agent.leader().cloned()).await.flatten();
        match leader {
            Some(leader) if leader == shared.me => {
                return Box::pin(answer(shared, rpc, request, false)).await;
            }
            Some(leader) => return forward(rpc, &leader, &request).await,
            None => tokio::time::sleep(LEADER_PAUSE).await,
        }
    }
    Reply::refused("no majority of the voters answers, so nothing can be decided", "start the missing nodes")
}

async fn switchover(shared: &Shared, rpc: &RpcPool, database: &DatabaseName, to: Option<&NodeName>) -> Reply {
    flush(shared, rpc, database).await;
    let to = to.cloned();
    decide_and_commit(shared, database, move |question| leadership::switchover(question, to.as_ref())).await
}

/// Dirty pages are flushed while writes still flow: the primary's shutdown then takes milliseconds.
pub(super) async fn flush(shared: &Shared, rpc: &RpcPool, database: &DatabaseName) {
    let of = database.clone();
    let primary =
        shared.inputs.ask(move |agent| agent.record(&of).and_then(|r| r.value.primary().cloned())).await;
    let checkpoint = Request::Checkpoint { database: database.clone() };
    match primary.flatten() {
        Some(node) if node == shared.me => drop(member::checkpoint(shared, database).await),
        Some(node) => drop(forward(rpc, &node, &checkpoint).await),
        None => {}
    }
}

/// Checks a request against what the leader knows and commits the record that it leads to. What speaks against it only for
/// the moment is waited for.
async fn decide_and_commit(
    shared: &Shared,
    database: &DatabaseName,
    ask: impl Fn(&leadership::Question<'_>) -> Result<model::leadership::Leadership, Refusal>
    + Clone
    + Send
    + 'static,
) -> Reply {
    let end = Instant::now() + SETTLES_WITHIN;
    let mut overtaken = 0;
    while overtaken < COMMIT_TRIES {
        match try_decide(shared, database, ask.clone()).await {
            Attempt::Answered(reply) => return reply,
            Attempt::Refused(refusal) if !refusal.passing || Instant::now() >= end => {
                return Reply::refused(refusal.because, refusal.hint);
            }
            Attempt::Refused(_) => {}
            Attempt::Overtaken => overtaken += 1,
        }
        tokio::time::sleep(COMMIT_PAUSE).await;
    }
    Reply::refused("the decision was overtaken by another one or could not be committed", "try again")
}

/// What came of one attempt to have a decision.
enum Attempt {
    Answered(Reply),
    Refused(Refusal),
    /// Another decision came first: it is to be checked anew against that.
    Overtaken,
}

async fn try_decide(
    shared: &Shared,
    database: &DatabaseName,
    ask: impl FnOnce(&leadership::Question<'_>) -> Result<model::leadership::Leadership, Refusal> + Send + 'static,
) -> Attempt {
    let of = database.clone();
    let decided = shared.inputs.ask(move |agent| agent.request(&of, ask)).await;
    let (expected, value) = match decided {
        Some(Ok(Command::Commit { expected, value })) => (expected, value),
        Some(Err(refusal)) => return Attempt::Refused(refusal),
        Some(Ok(_)) | None => {
            return Attempt::Answered(Reply::refused("the agent is ending", "try again"));
        }
    };
    let Some(revision) = shared.store.try_commit(expected, &value).await else {
        return Attempt::Overtaken;
    };
    let because = match &value {
        Value::Leadership(_, record) => record.because.clone(),
        Value::Placement(_) | Value::Releases(_) => String::new(),
    };
    let store = Place::Leadership(database.clone());
    shared.inputs.send(decide::agent::Input::Committed { store, revision: Some((revision, value)) });
    Attempt::Answered(Reply::Done(because))
}

async fn pause(shared: &Shared, reason: Option<&str>) -> Reply {
    match shared.store.pause(reason).await {
        Ok(()) => Reply::Done(match reason {
            Some(_) => {
                "the automation is paused: no failover, start or rejoin until `mainstay resume`".to_owned()
            }
            None => "the automation is resumed".to_owned(),
        }),
        Err(error) => Reply::refused(error.to_string(), MAJORITY_HINT),
    }
}

async fn apply(shared: &Shared, system: System, replaces: u64) -> Reply {
    let stored = shared.store.coordinator.get_json::<SystemRecord>(SYSTEM, WITHIN).await;
    let (generation, revision) = match stored {
        Ok(Some((record, revision))) => (record.generation, revision),
        Ok(None) => (0, Revision(0)),
        Err(error) => {
            return Reply::refused(error.to_string(), MAJORITY_HINT);
        }
    };
    if generation != replaces {
        return Reply::refused(
            format!(
                "the system file in force is generation {generation}, the difference was made against {replaces}"
            ),
            "run `mainstay apply` again to see the difference to what is in force now",
        );
    }
    let record = SystemRecord { generation: generation + 1, system };
    match shared.store.coordinator.compare_and_set_json(SYSTEM, revision, &record, WITHIN).await {
        Ok(TxnOutcome::Committed(_)) => Reply::Done(format!("generation {} is in force", record.generation)),
        Ok(TxnOutcome::Conflict { .. }) => {
            Reply::refused("somebody else applied a file at the same moment", "run it again")
        }
        Err(error) => {
            Reply::refused(error.to_string(), "run `mainstay status` to see which generation is in force")
        }
    }
}

async fn dsn(shared: &Shared, route: &RouteName) -> Reply {
    let system = shared.system.borrow().clone();
    let Some(config) = system.routes.get(route) else {
        let routes: Vec<&str> = system.routes.keys().map(RouteName::as_str).collect();
        return Reply::refused(
            format!("there is no route {route}"),
            format!("routes are: {}", routes.join(", ")),
        );
    };
    let RouteTarget::Database { database, .. } = &config.target else {
        return Reply::refused(
            format!("route {route} leads to a service"),
            "name a route that leads to a database",
        );
    };
    match member::dsn(shared, &system, route, database).await {
        Ok(dsn) => Reply::Dsn(dsn.text),
        Err(because) => Reply::refused(because, "wait until the database has been created"),
    }
}

async fn restart(shared: &Shared, subject: &str) -> Reply {
    let done = super::instances::restart(shared, subject).await;
    match done {
        Ok(what) => {
            shared.journal.add(Event {
                at_us: 0,
                node: shared.me.clone(),
                severity: Severity::Info,
                subject: subject.to_owned(),
                what: what.clone(),
                because: "an operator asked for it".to_owned(),
            });
            Reply::Done(what)
        }
        Err(refused) => Reply::Refused(refused),
    }
}
