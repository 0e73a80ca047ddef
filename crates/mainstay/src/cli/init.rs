//! `mainstay init`: the first node of a system on real machines.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mainstay::install;
use model::NodeName;
use model::system::{Checked, System, duration};

use super::connect::STANDARD_ROOT;
use super::error::CliError;
use super::exit::Exit;
use super::join::{begin, install_error, note_missing};
use super::load::load;
use super::output::{Look, Output, note};
use super::render;
use super::token::command;

/// Found a system on its first machine
///
/// Makes the system's authority, which signs the certificates of its nodes, and this node's own certificate, keeps the
/// system file, and prints how the other nodes join. Whoever holds the authority can make any node: it lies only here.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay init mainstay.toml --node n1
  mainstay init mainstay.toml --node n1 --systemd")]
pub(crate) struct Args {
    /// The system file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Which of its nodes this machine is
    #[arg(long, value_name = "NAME")]
    node: String,
    /// Where everything of this node shall lie
    #[arg(long, value_name = "DIRECTORY", default_value = STANDARD_ROOT)]
    root: PathBuf,
    /// How long the printed tokens of the other nodes count
    #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = duration::parse)]
    valid: Duration,
    /// Install and start the agent as a systemd unit
    #[arg(long)]
    systemd: bool,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let (Checked { system, warnings }, text) = load(&args.file, None)?.valid()?;
    note(&render::warnings(&warnings, &text, output));
    let (node, root) = (NodeName::new(args.node), absolute(&args.root)?);
    install::found(&root, &system, &node).map_err(|error| install_error(&error))?;
    note_missing(&system, &node, output).await;
    output.print(&format!(
        "{node} of {} is founded in {}; it alone holds the system's authority.\n",
        system.name,
        root.display()
    ))?;
    begin(&root, &node, args.systemd, output).await?;
    output.print(&invitations(&root, &system, &node, args.valid, output)?)?;
    Ok(Exit::Done)
}

/// A path that means the same in every directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, CliError> {
    std::path::absolute(path)
        .map_err(|error| CliError::failed(format!("{} is no directory", path.display())).because(&error))
}

/// What to type on the other machines.
fn invitations(
    root: &Path,
    system: &System,
    founder: &NodeName,
    valid: Duration,
    output: Output,
) -> Result<String, CliError> {
    let others: Vec<&NodeName> = system.nodes.keys().filter(|node| *node != founder).collect();
    let mut text = String::new();
    if !others.is_empty() {
        let heading = format!("On the other machines, within {}:", duration::format(valid));
        text += &format!("{}\n", output.on_stdout(Look::Heading, &heading));
    }
    for node in others {
        let token = install::token(root, Some(node), valid).map_err(|error| install_error(&error))?;
        text += &format!("  {}\n", command(&token, Some(node), &system.nodes[founder]));
    }
    text +=
        &format!("{}\n", output.on_stdout(Look::Heading, "Keep a copy of the authority in a safe place:"));
    text += "  mainstay authority export FILE\n";
    Ok(text)
}
