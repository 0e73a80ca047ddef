//! `mainstay restart`: an orderly restart.

use std::time::Duration;

use mainstay::api::Request;
use model::routes::{InstanceEndpoint, InstanceRouteState};
use model::{DatabaseName, NodeName};

use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::progress::Progress;
use super::status::view::View;
use super::subject::Subject;
use super::target::Target;

/// How long a node may take to begin a restart.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// How long it may take until a restart is seen to have begun.
const BEGIN_LIMIT: Duration = Duration::from_secs(10);

/// How long an instance or a member may take to be back.
const BACK_LIMIT: Duration = Duration::from_secs(120);

/// Restart a node's work, a database or a service, one after another
///
/// Standbys restart one after another, then one of them takes over and the former primary comes back as a standby. Of a
/// service one instance restarts while the others serve; the next follows when it is ready again. What does not come back
/// ends the command: the rest is left alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay restart web
  mainstay restart web-2
  mainstay restart orders
  mainstay restart orders@w1 --force
  mainstay restart node/e1")]
pub(crate) struct Args {
    /// A node, database, member (`orders@w1`), service or instance
    #[arg(value_name = "SUBJECT")]
    subject: String,
    /// Restart a member although writes, or all clients, have to wait meanwhile
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut connection = Connection::open(&args.target)?;
    let view = connection.view().await?;
    let subject = Subject::find(&view, &args.subject)?;
    let mut work = Work { connection: &mut connection, progress: Progress::begin(output), force: args.force };
    match &subject {
        Subject::Service(name) if view.is_external(name) => {
            let message = format!("nobody here supervises {name}: others run it");
            return Err(CliError::with(Exit::Invalid, message).hint("restart it where it runs"));
        }
        Subject::Service(name) => work.instances(view.instances(name)).await?,
        Subject::Instance(name) => work.instances(named(&view, name)).await?,
        Subject::Database(name) => work.database(&view, name).await?,
        Subject::Member(name, node) => work.member(&view, name, node).await?,
        Subject::Node(node) => work.node(&view, node).await?,
        Subject::System | Subject::Route(_) => {
            return Err(CliError::with(
                Exit::Invalid,
                format!("{subject} has nothing of its own to restart"),
            )
            .hint("name a node, a database, a service or an instance"));
        }
    }
    let took = work.progress.elapsed().as_millis();
    output.print(&format!("{subject} has restarted (after {took} ms)\n"))?;
    Ok(Exit::Done)
}

fn named(view: &View, name: &str) -> Vec<InstanceEndpoint> {
    let all = view.system.services.keys().flat_map(|service| view.instances(service));
    all.filter(|instance| instance.id == name || instance.id.split('@').next() == Some(name)).collect()
}

struct Work<'c> {
    connection: &'c mut Connection,
    progress: Progress,
    force: bool,
}

impl Work<'_> {
    /// One after another, those that do not serve anyway first.
    async fn instances(&mut self, mut instances: Vec<InstanceEndpoint>) -> Result<(), CliError> {
        instances.sort_by_key(|instance| instance.state == InstanceRouteState::Ready);
        for instance in instances {
            self.instance(&instance).await?;
        }
        Ok(())
    }

    async fn instance(&mut self, instance: &InstanceEndpoint) -> Result<(), CliError> {
        let id = &instance.id;
        let request = Request::Restart { subject: format!("instance/{id}") };
        let told = self.connection.done(&instance.node, &request, REQUEST_LIMIT).await?;
        self.progress.say(&told);
        let state = |view: &View| {
            let all = view.system.services.keys().flat_map(|service| view.instances(service));
            all.into_iter().find(|known| known.id == *id).map(|known| known.state)
        };
        // A restart can be over before it was seen; then nothing is missing either.
        let began =
            |view: &View| (state(view) == Some(InstanceRouteState::Ready)).then(|| format!("{id} is ending"));
        self.progress.until(self.connection, BEGIN_LIMIT, began).await?;
        let back = |view: &View| match state(view) {
            Some(InstanceRouteState::Ready) => None,
            Some(InstanceRouteState::NotReady) => Some(format!("{id} is starting")),
            Some(InstanceRouteState::Draining) => Some(format!("{id} finishes its work")),
            Some(InstanceRouteState::Gone) | None => Some(format!("{id} has ended")),
        };
        let missing = self.progress.until(self.connection, BACK_LIMIT, back).await?;
        self.finished(missing, &format!("{id} is ready again"), &format!("mainstay logs {id}"))
    }

    /// Standbys first, then the primary by handing over.
    async fn database(&mut self, view: &View, name: &DatabaseName) -> Result<(), CliError> {
        let primary = view.record(name).and_then(|record| record.primary().cloned());
        for node in view.members(name).iter().filter(|node| Some(*node) != primary.as_ref()) {
            self.member(view, name, node).await?;
        }
        match primary {
            Some(primary) => self.member(view, name, &primary).await,
            None => Ok(()),
        }
    }

    /// The leader gives the member its turn; it is over when another server does the member's part.
    async fn member(&mut self, view: &View, name: &DatabaseName, node: &NodeName) -> Result<(), CliError> {
        let server =
            |view: &View| view.member(name, node).and_then(|member| member.status.server.started_us());
        let before = server(view);
        let request =
            Request::RestartMember { database: name.clone(), node: node.clone(), force: self.force };
        let told = self.connection.done(&view.overview.node, &request, REQUEST_LIMIT).await?;
        self.progress.say(&told);
        let back = |view: &View| {
            let began = server(view).is_some_and(|server| Some(server) != before);
            let leads = view.serving(name).is_some_and(|(primary, _, _)| primary == node);
            let confirms = view.confirmations(name) == 0
                || view.record(name).is_some_and(|record| record.sync.members.contains(node));
            let follows = view.streams(name, node) && confirms;
            let turn = view.record(name).and_then(|record| record.restart.as_ref());
            let over = turn.is_none_or(|turn| turn.member != *node);
            (!(began && over && (leads || follows))).then(|| format!("{name} on {node} is coming back"))
        };
        let missing = self.progress.until(self.connection, BACK_LIMIT, back).await?;
        self.finished(missing, &format!("{name} on {node} is back"), &format!("mainstay why {name}@{node}"))
    }

    /// Everything on a node.
    async fn node(&mut self, view: &View, node: &NodeName) -> Result<(), CliError> {
        for (name, _) in view.system.databases_on(node) {
            self.member(view, name, node).await?;
        }
        let here = view.system.services.keys().flat_map(|service| view.instances(service));
        self.instances(here.filter(|instance| instance.node == *node).collect()).await
    }

    fn finished(&mut self, missing: Option<String>, done: &str, see: &str) -> Result<(), CliError> {
        match missing {
            None => {
                self.progress.say(done);
                Ok(())
            }
            Some(missing) => {
                let message =
                    format!("not back after {} s: {missing}; the rest was left alone", BACK_LIMIT.as_secs());
                Err(CliError::failed(message).hint(format!("`{see}` shows why")))
            }
        }
    }
}
