//! `mainstay completions`: scripts that let a shell complete commands and options.

use clap_complete::{Shell, generate};

use super::error::CliError;
use super::exit::Exit;
use super::output::Output;

/// Print a script that lets your shell complete commands and options
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  mainstay completions bash > ~/.local/share/bash-completion/completions/mainstay
  mainstay completions zsh > ~/.zfunc/_mainstay
  mainstay completions fish > ~/.config/fish/completions/mainstay.fish")]
pub(crate) struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Supported,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Supported {
    Bash,
    Zsh,
    Fish,
}

pub(crate) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let shell = match args.shell {
        Supported::Bash => Shell::Bash,
        Supported::Zsh => Shell::Zsh,
        Supported::Fish => Shell::Fish,
    };
    let mut script = vec![];
    generate(shell, &mut super::definition(), "mainstay", &mut script);
    output.print(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}
