//! `mainstay down`: the end of a system on this machine.

use lab::{Data, Lab, LabError};
use model::SystemName;

use super::error::CliError;
use super::exit::Exit;
use super::output::{Output, note};
use super::up::in_words;

/// Stop a system on this machine and leave nothing behind
///
/// No process, namespace, mount, rule or file stays, whatever was interrupted before. Running it twice changes nothing.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay down
  mainstay down shop
  mainstay down shop --keep-data && mainstay up mainstay.toml")]
pub(crate) struct Args {
    /// The system; may be left out when only one runs
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Keep the nodes' directories, so that a later `up` goes on with the data
    #[arg(long)]
    keep_data: bool,
}

pub(crate) async fn run(args: Args, _output: Output) -> Result<Exit, CliError> {
    let Some(name) = meant(args.name)? else {
        note("no system runs on this machine\n");
        return Ok(Exit::Done);
    };
    let data = if args.keep_data { Data::Keep } else { Data::Remove };
    let of = name.clone();
    match tokio::task::spawn_blocking(move || Lab::down(&of, data)).await {
        Ok(Ok(())) if args.keep_data => note(&format!("{name} is down, its data is kept\n")),
        Ok(Ok(())) => note(&format!("{name} is down, nothing is left behind\n")),
        // What was asked for is so already.
        Ok(Err(LabError::Unknown { .. })) => note(&format!("nothing of {name} is on this machine\n")),
        Ok(Err(error)) => return Err(in_words(&error)),
        Err(error) => return Err(CliError::failed("the lab could not be taken down").because(&error)),
    }
    Ok(Exit::Done)
}

/// The system that is meant; `None` when there is none at all.
fn meant(name: Option<String>) -> Result<Option<SystemName>, CliError> {
    if let Some(name) = name {
        return Ok(Some(SystemName::new(name)));
    }
    match Lab::list().as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.system.clone())),
        several => {
            let names: Vec<String> = several.iter().map(|lab| lab.system.to_string()).collect();
            let hint = format!("name one of them: mainstay down {}", names.join(" | "));
            Err(CliError::with(Exit::Invalid, "several systems run on this machine").hint(hint))
        }
    }
}
