//! `mainstay token`: lets one more machine in.

use std::path::PathBuf;
use std::time::Duration;

use mainstay::install;
use model::NodeName;
use model::system::{Node, duration};
use transport::{Identity, JoinToken};

use super::connect::STANDARD_ROOT;
use super::error::CliError;
use super::exit::Exit;
use super::join::install_error;
use super::output::{Output, note};

/// Make a token with which one machine can join
///
/// It counts once, until it ends. Run it on the node that founded the system: only there is the authority.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay token --node n2
  mainstay token --valid 10m")]
pub(crate) struct Args {
    /// The only node that may join with it; without it any node of the system file
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// How long it counts
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    valid: Duration,
    /// The directory of the node that founded the system
    #[arg(long, value_name = "DIRECTORY", default_value = STANDARD_ROOT)]
    root: PathBuf,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let node = args.node.map(NodeName::new);
    let failed = |error| install_error(&error);
    let system = install::known_system(&args.root).map_err(failed)?;
    let token = install::token(&args.root, node.as_ref(), args.valid).map_err(failed)?;
    let identity = Identity::load(&args.root.join("state/identity"), &system.name)
        .map_err(|error| install_error(&error.into()))?;
    output.print(&format!("{token}\n"))?;
    if let Some(own) = system.nodes.get(&identity.node()) {
        note(&format!("On the new machine:\n  {}\n", command(&token, node.as_ref(), own)));
    }
    Ok(Exit::Done)
}

/// What to type on the new machine.
pub(super) fn command(token: &JoinToken, node: Option<&NodeName>, through: &Node) -> String {
    let address = std::net::SocketAddr::new(through.address(), through.agent_port);
    let node = node.map_or("NAME", NodeName::as_str);
    format!("mainstay join {token} --node {node} {address}")
}
