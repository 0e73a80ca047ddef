//! The running system a command is for: which agents there are, and what they answer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use decide::agent::Overview;
use lab::{Lab, LabError};
use mainstay::api::client::{AskError, ask};
use mainstay::api::{Refused, Reply, Request};
use model::system::System;
use model::{NodeName, SystemName};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::error::CliError;
use super::exit::Exit;
use super::status::view::View;
use super::target::Target;
use super::up::in_words;

/// How long an agent may take to answer what it knows.
const KNOWN_LIMIT: Duration = Duration::from_secs(2);

/// How long the others may take once one has answered: a frozen node must not hold up the answer about it.
const OTHERS_LIMIT: Duration = Duration::from_millis(250);

/// Where a node has its files when nothing else is said.
pub(super) const STANDARD_ROOT: &str = "/var/lib/mainstay";

/// The agents that can be asked from here.
pub(crate) struct Connection {
    /// What the agents belong to, in words.
    name: String,
    lab: Option<Lab>,
    /// The sockets, by node. A node's directory alone does not say whose it is: then its name is learnt from its answer.
    sockets: BTreeMap<NodeName, PathBuf>,
    known: Option<(u64, System)>,
}

/// The node of a directory, until its agent has said its name.
const UNNAMED: &str = "this-node";

impl Connection {
    /// Finds the agents.
    ///
    /// # Errors
    /// When there are none, or those of several systems.
    pub(crate) fn open(target: &Target) -> Result<Self, CliError> {
        if let Some(root) = &target.root {
            return Ok(Self::to_root(root));
        }
        if let Some(name) = &target.system {
            return Lab::open(&SystemName::new(name)).map(Self::to_lab).map_err(|error| in_words(&error));
        }
        let labs = Lab::list();
        match labs.as_slice() {
            [] if Path::new(STANDARD_ROOT).join("run/agent.sock").exists() => {
                Ok(Self::to_root(Path::new(STANDARD_ROOT)))
            }
            [] => {
                Err(CliError::with(Exit::Unreachable, "no system runs on this machine").hint(nothing_runs()))
            }
            [one] => Lab::open(&one.system).map(Self::to_lab).map_err(|error| in_words(&error)),
            several => {
                let names: Vec<&str> = several.iter().map(|lab| lab.system.as_str()).collect();
                let hint = format!("name one of them: --system {}", names.join(" | --system "));
                Err(CliError::with(Exit::Invalid, "several systems run on this machine").hint(hint))
            }
        }
    }

    fn to_root(root: &Path) -> Self {
        let sockets = BTreeMap::from([(NodeName::new(UNNAMED), root.join("run/agent.sock"))]);
        Self { name: format!("the node in {}", root.display()), lab: None, sockets, known: None }
    }

    fn to_lab(lab: Lab) -> Self {
        let mut connection =
            Self { name: lab.system().to_string(), lab: None, sockets: BTreeMap::new(), known: None };
        connection.use_lab(lab);
        connection
    }

    fn use_lab(&mut self, lab: Lab) {
        self.sockets =
            lab.nodes().map(|(name, _)| (name.clone(), lab.root(name).join("run/agent.sock"))).collect();
        self.lab = Some(lab);
    }

    /// The lab the system runs in, if it does.
    pub(crate) fn lab(&self) -> Option<&Lab> {
        self.lab.as_ref()
    }

    /// The nodes whose agents can be asked from here.
    pub(crate) fn nodes(&self) -> Vec<NodeName> {
        self.sockets.keys().cloned().collect()
    }

    /// Changes the lab on a thread of its own, and takes in what it is then.
    ///
    /// # Errors
    /// The lab's own, in words.
    pub(crate) async fn change_lab<T: Send + 'static>(
        &mut self,
        change: impl FnOnce(&mut Lab) -> Result<T, LabError> + Send + 'static,
    ) -> Result<Option<T>, CliError> {
        let Some(mut lab) = self.lab.clone() else { return Ok(None) };
        let work = tokio::task::spawn_blocking(move || {
            let result = change(&mut lab);
            (lab, result)
        });
        let (lab, result) =
            work.await.map_err(|error| CliError::failed("the lab could not be changed").because(&error))?;
        self.use_lab(lab);
        result.map(Some).map_err(|error| in_words(&error))
    }

    // ---- asking ----

    /// What all agents that answer know, as one picture.
    ///
    /// # Errors
    /// When none answers.
    pub(crate) async fn view(&mut self) -> Result<View, CliError> {
        let (replies, unanswered) = self.everywhere(&Request::Overview, KNOWN_LIMIT).await;
        let mut overviews = BTreeMap::new();
        for (node, reply) in replies {
            if let Reply::Overview(overview) = reply {
                overviews.insert(node, *overview);
            }
        }
        self.learn_name(&overviews);
        let overviews: BTreeMap<NodeName, Overview> =
            overviews.into_values().map(|overview| (overview.node.clone(), overview)).collect();
        let newest = overviews.values().max_by_key(|overview| overview.generation);
        let Some((node, generation)) = newest.map(|newest| (newest.node.clone(), newest.generation)) else {
            return Err(self.unreachable(&unanswered));
        };
        let system = self.system_of(&node, generation).await?;
        View::compose(system, overviews).ok_or_else(|| self.unreachable(&unanswered))
    }

    /// The agent of a directory has said whose it is.
    fn learn_name(&mut self, overviews: &BTreeMap<NodeName, Overview>) {
        for (asked, overview) in overviews {
            if *asked != overview.node
                && let Some(socket) = self.sockets.remove(asked)
            {
                self.sockets.insert(overview.node.clone(), socket);
            }
        }
    }

    async fn system_of(&mut self, node: &NodeName, generation: u64) -> Result<System, CliError> {
        if let Some((_, system)) = self.known.as_ref().filter(|(known, _)| *known == generation) {
            return Ok(system.clone());
        }
        let reply = self.ask(node, &Request::System, KNOWN_LIMIT).await?;
        let Reply::System { system, generation } = reply else { return Err(unexpected(node, &reply)) };
        self.known = Some((generation, (*system).clone()));
        Ok(*system)
    }

    /// Asks the agent of one node.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub(crate) async fn ask(
        &self,
        node: &NodeName,
        request: &Request,
        limit: Duration,
    ) -> Result<Reply, CliError> {
        let asked = match (self.sockets.get(node), self.sockets.values().next()) {
            (Some(socket), _) => ask(socket, request, limit).await,
            // On a node there is one socket: its agent asks the others.
            (None, Some(socket)) => {
                let request = Request::On { node: node.clone(), request: Box::new(request.clone()) };
                ask(socket, &request, limit).await
            }
            (None, None) => {
                return Err(CliError::with(
                    Exit::Unreachable,
                    format!("the agent of {node} cannot be asked from here"),
                )
                .hint(format!("run the command on {node} itself")));
            }
        };
        match asked {
            Ok(Reply::Refused(Refused { because, hint })) => {
                Err(CliError::with(Exit::Refused, because).hint(hint))
            }
            Ok(reply) => Ok(reply),
            Err(error) => Err(CliError::with(Exit::Unreachable, format!("{node} does not answer"))
                .because(&error)
                .hint("`mainstay status` shows which nodes do")),
        }
    }

    /// Asks the agent of one node to do something; returns the sentence that says what was done.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) async fn done(
        &self,
        node: &NodeName,
        request: &Request,
        limit: Duration,
    ) -> Result<String, CliError> {
        let reply = self.ask(node, request, limit).await?;
        if let Reply::Done(sentence) = reply { Ok(sentence) } else { Err(unexpected(node, &reply)) }
    }

    /// Asks all agents at once; returns the answers, and why others gave none.
    pub(crate) async fn everywhere(
        &self,
        request: &Request,
        limit: Duration,
    ) -> (BTreeMap<NodeName, Reply>, BTreeMap<NodeName, String>) {
        let mut asked = JoinSet::new();
        for (node, socket) in &self.sockets {
            let (node, socket, request) = (node.clone(), socket.clone(), request.clone());
            asked.spawn(async move { (node, ask(&socket, &request, limit).await) });
        }
        let late = format!("it did not answer within {} ms of the others", OTHERS_LIMIT.as_millis());
        let mut unanswered: BTreeMap<NodeName, String> =
            self.sockets.keys().map(|node| (node.clone(), late.clone())).collect();
        let mut replies = BTreeMap::new();
        let mut end = Instant::now() + limit;
        while let Ok(Some(joined)) = tokio::time::timeout_at(end, asked.join_next()).await {
            match joined {
                Ok((node, Ok(reply))) => {
                    unanswered.remove(&node);
                    replies.insert(node, reply);
                    end = end.min(Instant::now() + OTHERS_LIMIT);
                }
                Ok((node, Err(error))) => drop(unanswered.insert(node, in_short(&error))),
                Err(_) => {}
            }
        }
        (replies, unanswered)
    }

    /// The error when nobody answers.
    fn unreachable(&self, unanswered: &BTreeMap<NodeName, String>) -> CliError {
        let mut error = CliError::with(Exit::Unreachable, format!("no agent of {} answers", self.name));
        for (node, why) in unanswered {
            let off = self.lab.as_ref().and_then(|lab| lab.node(node).ok()).is_some_and(|node| !node.is_on());
            let why = if off { "the node is off".to_owned() } else { why.clone() };
            error = error.because(&std::io::Error::other(format!("{node}: {why}")));
        }
        match &self.lab {
            Some(lab) => error.hint(format!(
                "the agents' logs are in {}; `mainstay up {}` starts what is off",
                lab.directory().join("logs").display(),
                lab.manifest().source.display()
            )),
            None => error.hint("start the agent of this node, or name its directory with --root"),
        }
    }
}

fn nothing_runs() -> &'static str {
    match rustix::process::geteuid().is_root() {
        true => {
            "`mainstay up FILE` starts one; on a node of a system, `--root DIRECTORY` names the agent's directory"
        }
        false => {
            "`mainstay up FILE` starts one; one that root has started is seen by root only: `sudo mainstay ...`"
        }
    }
}

fn in_short(error: &AskError) -> String {
    match error {
        AskError::Connect { source, .. } => format!("nobody listens on its socket ({source})"),
        AskError::Late { limit, .. } => format!("no answer within {} s", limit.as_secs()),
        AskError::Broken { problem, .. } => problem.clone(),
    }
}

fn unexpected(node: &NodeName, reply: &Reply) -> CliError {
    let kind = serde_json::to_value(reply).ok();
    let kind = kind.and_then(|value| value.as_object().and_then(|object| object.keys().next().cloned()));
    CliError::failed(format!("{node} answered something else ({})", kind.unwrap_or_default()))
        .hint("use the same version of mainstay for the command and for the agents")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    use super::super::testkit::{healthy, shop};
    use super::*;

    /// An agent that answers what it is asked with what the sample system says.
    fn agent(directory: &Path, node: &'static str) -> PathBuf {
        let socket = directory.join(node);
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                let asked: Request = serde_json::from_str(&line).unwrap();
                let reply = if matches!(asked, Request::System) {
                    Reply::System { system: Box::new(shop()), generation: 0 }
                } else {
                    Reply::Overview(Box::new(healthy(&shop(), node)))
                };
                writeln!(&stream, "{}", serde_json::to_string(&reply).unwrap()).unwrap();
            }
        });
        socket
    }

    fn connection(sockets: impl IntoIterator<Item = (NodeName, PathBuf)>) -> Connection {
        let sockets = sockets.into_iter().collect();
        Connection { name: "shop".to_owned(), lab: None, sockets, known: None }
    }

    #[tokio::test]
    async fn an_agent_that_hangs_does_not_hold_up_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let hung = folder.path().join("w1");
        let _open = UnixListener::bind(&hung).unwrap();
        let sockets = [("e1".into(), agent(folder.path(), "e1")), ("w1".into(), hung)];
        let mut connection = connection(sockets);
        let began = Instant::now();
        let view = connection.view().await.unwrap();
        assert!(began.elapsed() < KNOWN_LIMIT, "{:?}", began.elapsed());
        assert_eq!(view.tables.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["e1"]);
    }

    #[tokio::test]
    async fn a_node_is_named_by_its_agent() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = connection([(UNNAMED.into(), agent(folder.path(), "e1"))]);
        assert_eq!(connection.view().await.unwrap().overview.node.as_str(), "e1");
        assert_eq!(connection.sockets.keys().map(NodeName::as_str).collect::<Vec<_>>(), ["e1"]);
    }

    #[tokio::test]
    async fn nobody_answering_is_an_exit_code_of_its_own_with_every_reason() {
        let folder = tempfile::tempdir().unwrap();
        let mut connection = connection([("e1".into(), folder.path().join("nothing"))]);
        let error = connection.view().await.unwrap_err();
        assert_eq!(error.exit(), Exit::Unreachable);
        assert_eq!(error.sentence(), "no agent of shop answers");
    }
}
