//! `mainstay join`: makes this machine a node of a system that was founded elsewhere.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use mainstay::install::{self, InstallError};
use model::NodeName;
use model::system::{DEFAULT_AGENT_PORT, System};
use transport::{JoinError, JoinToken};

use super::connect::STANDARD_ROOT;
use super::error::CliError;
use super::exit::Exit;
use super::init::absolute;
use super::output::{Look, Output, note};
use super::up::missing_software;

/// Where units of the administrator lie (systemd.unit(5)).
const UNITS: &str = "/etc/systemd/system";

/// Make this machine a node of a running system
///
/// Asks the node that made the token for a certificate and the system file. The private key is made here and stays here.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay join mainstay-join-1.9f2c... --node n2 10.0.1.11
  mainstay join mainstay-join-1.9f2c... --node n2 10.0.1.11:7432 --systemd")]
pub(crate) struct Args {
    /// What `mainstay token` or `mainstay init` printed
    #[arg(value_name = "TOKEN")]
    token: JoinToken,
    /// The node that made the token: address or name, with a port unless it is the usual one
    #[arg(value_name = "ADDRESS")]
    address: String,
    /// Which node of the system file this machine is
    #[arg(long, value_name = "NAME")]
    node: String,
    /// Where everything of this node shall lie
    #[arg(long, value_name = "DIRECTORY", default_value = STANDARD_ROOT)]
    root: PathBuf,
    /// Install and start the agent as a systemd unit
    #[arg(long)]
    systemd: bool,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let (node, root) = (NodeName::new(args.node), absolute(&args.root)?);
    let address = resolve(&args.address).await?;
    let system =
        install::join(&root, &args.token, &node, address).await.map_err(|error| refused(&node, &error))?;
    note_missing(&system, &node, output).await;
    output.print(&format!("{node} has joined {}; its files are in {}.\n", system.name, root.display()))?;
    begin(&root, &node, args.systemd, output).await?;
    Ok(Exit::Done)
}

/// Why this machine did not become `node`.
fn refused(node: &NodeName, error: &InstallError) -> CliError {
    let told = install_error(error);
    if !matches!(error, InstallError::Join(_)) {
        return told;
    }
    CliError::with(told.exit(), format!("this machine did not become {node}"))
        .because(error)
        .hint(hint(error))
}

/// `10.0.1.11`, `10.0.1.11:7432`, `fd00::1`, `[fd00::1]:7432`, `db1.example`, `db1.example:7432`.
async fn resolve(text: &str) -> Result<SocketAddr, CliError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, DEFAULT_AGENT_PORT));
    }
    let with_port = if text.contains(':') { text.to_owned() } else { format!("{text}:{DEFAULT_AGENT_PORT}") };
    let unknown = || CliError::with(Exit::Invalid, format!("`{text}` is not the address of a node"));
    let mut found = tokio::net::lookup_host(with_port).await.map_err(|error| unknown().because(&error))?;
    found.next().ok_or_else(unknown)
}

/// Why a machine did not become a node, in words.
pub(super) fn install_error(error: &InstallError) -> CliError {
    let exit = match error {
        InstallError::Occupied(_) => Exit::Refused,
        InstallError::Join(
            JoinError::Expired | JoinError::Refused { .. } | JoinError::OtherSystem { .. },
        ) => Exit::Refused,
        InstallError::Join(JoinError::Connect { .. } | JoinError::TimedOut { .. }) => Exit::Unreachable,
        InstallError::UnknownNode { .. } => Exit::Invalid,
        InstallError::NoNode(_)
        | InstallError::Authority(_)
        | InstallError::Identity(_)
        | InstallError::Join(_)
        | InstallError::SystemFile { .. }
        | InstallError::OtherAuthority { .. }
        | InstallError::File { .. }
        | InstallError::NoRandom => Exit::Failed,
    };
    CliError::with(exit, error.to_string()).hint(hint(error))
}

fn hint(error: &InstallError) -> &'static str {
    match error {
        InstallError::Occupied(_) => "start its agent, or name another directory with --root",
        InstallError::NoNode(_) => {
            "`mainstay init` founds a system, `mainstay join` makes this machine a node of one"
        }
        InstallError::UnknownNode { .. } => "name one of these, or write the node into the file first",
        InstallError::Join(
            JoinError::Connect { .. }
            | JoinError::TimedOut { .. }
            | JoinError::Handshake { .. }
            | JoinError::Broken { .. },
        ) => "is the agent there running, and is this its address and port?",
        InstallError::Authority(_) | InstallError::OtherAuthority { .. } => {
            "tokens are made on the node that founded the system; `mainstay authority import FILE` brings a copy of its \
             authority to another"
        }
        InstallError::File { .. } => "run it as the user the agent runs as, mostly root",
        InstallError::Identity(_)
        | InstallError::Join(_)
        | InstallError::SystemFile { .. }
        | InstallError::NoRandom => "on the node that founded the system, `mainstay token` makes a new token",
    }
}

/// Says what this machine lacks for its part.
pub(super) async fn note_missing(system: &System, node: &NodeName, output: Output) {
    if system.databases_on(node).next().is_none() {
        return;
    }
    for problem in missing_software(system).await {
        let text = output.on_stderr(Look::Warning, &format!("Warning: {}", problem.what));
        note(&format!("{text}\n{} {}\n", output.on_stderr(Look::Hint, "Hint:"), problem.hint));
    }
}

// ---- the agent ----

/// Installs the agent's unit, or says how to start it.
pub(super) async fn begin(
    root: &Path,
    node: &NodeName,
    systemd: bool,
    output: Output,
) -> Result<(), CliError> {
    let by_hand = format!("mainstay agent --node {node} --root {}", root.display());
    if !systemd {
        let heading = output.on_stdout(Look::Heading, "Start its agent (--systemd would have done it):");
        return output.print(&format!("{heading}\n  {by_hand}\n"));
    }
    let failed = |because: std::io::Error| {
        CliError::failed("the node is made, but its agent could not be installed as a systemd unit")
            .because(&because)
            .hint(format!("start it by other means: {by_hand}"))
    };
    install_unit(root, node).await.map_err(failed)?;
    output.print(&format!("its agent runs as the unit {}\n", install::UNIT))
}

async fn install_unit(root: &Path, node: &NodeName) -> std::io::Result<()> {
    let path = Path::new(UNITS).join(install::UNIT);
    let text = install::unit(&std::env::current_exe()?, node, root);
    if std::fs::read_to_string(&path).is_ok_and(|old| old != text) {
        let text = format!("{} is there already and says something else", path.display());
        return Err(std::io::Error::new(std::io::ErrorKind::AlreadyExists, text));
    }
    effects::files::write_atomic(&path, text.as_bytes(), 0o644)?;
    for arguments in [&["daemon-reload"][..], &["enable", "--now", install::UNIT]] {
        let done = tokio::process::Command::new("systemctl").args(arguments).output().await?;
        if !done.status.success() {
            let said = String::from_utf8_lossy(&done.stderr).trim().to_owned();
            return Err(std::io::Error::other(format!("systemctl {}: {said}", arguments.join(" "))));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_may_leave_out_the_usual_port() {
        for (text, address) in [
            ("10.0.1.11", "10.0.1.11:7432"),
            ("10.0.1.11:9000", "10.0.1.11:9000"),
            ("fd00::1", "[fd00::1]:7432"),
            ("[fd00::1]:9000", "[fd00::1]:9000"),
        ] {
            assert_eq!(resolve(text).await.unwrap(), address.parse().unwrap(), "{text}");
        }
        assert_eq!(resolve("no such host").await.unwrap_err().exit(), Exit::Invalid);
    }
}
