//! `mainstay lab`: the power buttons of the nodes that `up` started on this machine.

use clap::Subcommand;
use lab::Lab;
use lab::fault::Evidence;
use model::NodeName;

use super::connect::Connection;
use super::error::CliError;
use super::exit::Exit;
use super::output::Output;
use super::target::Target;

/// Switch nodes of a system on this machine off and on
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay lab list
  mainstay lab kill e1
  mainstay lab start e1 w1 --system shop")]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show which nodes are on
    List,
    /// Cut the power of nodes: first their links, then everything that runs there
    Kill(Nodes),
    /// Switch killed nodes on again
    Start(Nodes),
}

/// The nodes that are meant.
#[derive(Debug, clap::Args)]
struct Nodes {
    /// Nodes of the system
    #[arg(value_name = "NODE", required = true)]
    nodes: Vec<String>,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let mut connection = Connection::open(&args.target)?;
    let Some(lab) = connection.lab() else {
        return Err(CliError::with(Exit::Invalid, "the nodes of this system are real machines")
            .hint("`mainstay lab` is for systems that `mainstay up` started on this machine"));
    };
    let told = match args.command {
        Command::List => list(lab),
        Command::Kill(Nodes { nodes }) => {
            let nodes: Vec<NodeName> = nodes.into_iter().map(NodeName::new).collect();
            changed(connection.change_lab(move |lab| lab.kill_nodes(&nodes).map(|done| vec![done])).await?)
        }
        Command::Start(Nodes { nodes }) => {
            let nodes: Vec<NodeName> = nodes.into_iter().map(NodeName::new).collect();
            let start = move |lab: &mut Lab| nodes.iter().map(|node| lab.start_node(node)).collect();
            changed(connection.change_lab(start).await?)
        }
    };
    output.print(&told)?;
    Ok(Exit::Done)
}

fn list(lab: &Lab) -> String {
    let state = |is_on| if is_on { "on" } else { "off" };
    lab.nodes().map(|(name, node)| format!("{name:12} {}\n", state(node.is_on()))).collect()
}

fn changed(done: Option<Vec<Evidence>>) -> String {
    done.unwrap_or_default().iter().map(|evidence| format!("{evidence}\n")).collect()
}
