//! The command line. Each command is a file with its arguments (`Args`) and what it does (`run`).
//!
//! Results go to stdout, everything about the way there to stderr; what a person reads has colours on a terminal only.

mod agent;
mod apply;
mod authority;
mod check;
mod columns;
mod completions;
mod connect;
mod down;
mod drain;
mod drill;
mod error;
mod events;
mod exit;
mod failover;
mod guard;
mod init;
mod job;
mod join;
mod lab;
mod lab_node;
mod load;
mod logs;
mod output;
mod overview;
mod pause;
mod program;
mod progress;
mod proxy;
mod psql;
mod release;
mod render;
mod restart;
mod resume;
mod scale;
mod schema;
mod status;
mod subject;
mod switchover;
mod takeover;
mod target;
#[cfg(test)]
mod testkit;
mod token;
mod up;
mod upgrade;
mod why;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use error::CliError;
use exit::Exit;
use output::{Color, Output};

/// One binary and one file that make an application system highly available.
#[derive(Debug, Parser)]
#[command(name = "mainstay", version, max_term_width = 100, after_help = exit::HELP)]
#[command(disable_help_subcommand = true, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    /// When to use colours: always, never, or auto: on a terminal, unless `NO_COLOR` is set
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", hide_possible_values = true)]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Args),
    Up(up::Args),
    Down(down::Args),
    Status(status::Args),
    Switchover(switchover::Args),
    Failover(failover::Args),
    Restart(restart::Args),
    Pause(pause::Args),
    Resume(resume::Args),
    Apply(apply::Args),
    Upgrade(upgrade::Args),
    Release(release::Args),
    Scale(scale::Args),
    Drain(drain::Args),
    Undrain(drain::UndrainArgs),
    Events(events::Args),
    Why(why::Args),
    Logs(logs::Args),
    Job(job::Args),
    Psql(psql::Args),
    Drill(drill::Args),
    Init(init::Args),
    Token(token::Args),
    Join(join::Args),
    Authority(authority::Args),
    Lab(lab::Args),
    Schema(schema::Args),
    Completions(completions::Args),
    #[command(hide = true)]
    Agent(agent::Args),
    #[command(hide = true)]
    Proxy(proxy::Args),
    #[command(hide = true)]
    Program(program::Args),
    #[command(hide = true)]
    Guard(guard::Args),
    #[command(hide = true, name = "lab-node")]
    LabNode(lab_node::Args),
}

/// Runs the command that was given and says how it ended.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return error::usage(&error).into(),
    };
    let output = Output::new(cli.color);
    // Namespaces belong to threads: what makes them must run before any other thread exists.
    if let Command::LabNode(args) = &cli.command {
        return lab_node::run(args);
    }
    match run(cli.command, output) {
        Ok(exit) => exit.into(),
        Err(error) => {
            error.print(output);
            error.exit().into()
        }
    }
}

fn run(command: Command, output: Output) -> Result<Exit, CliError> {
    let runtime = builder(&command).enable_all().build();
    let runtime = runtime.map_err(|error| CliError::failed("the program cannot start").because(&error))?;
    runtime.block_on(dispatch(command, output))
}

/// An agent does little, often: threads that hand each piece to one another would cost more than the work. Nothing in it
/// may block a thread anyhow (see `effects`).
fn builder(command: &Command) -> tokio::runtime::Builder {
    if matches!(command, Command::Agent(_)) {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    }
}

async fn dispatch(command: Command, output: Output) -> Result<Exit, CliError> {
    match command {
        Command::Check(args) => check::run(args, output).await,
        Command::Up(args) => up::run(args, output).await,
        Command::Down(args) => down::run(args, output).await,
        Command::Status(args) => status::run(args, output).await,
        Command::Switchover(args) => switchover::run(args, output).await,
        Command::Failover(args) => failover::run(args, output).await,
        Command::Restart(args) => restart::run(args, output).await,
        Command::Pause(args) => pause::run(args, output).await,
        Command::Resume(args) => resume::run(args, output).await,
        Command::Apply(args) => apply::run(args, output).await,
        Command::Upgrade(args) => upgrade::run(args, output).await,
        Command::Release(args) => release::run(args, output).await,
        Command::Scale(args) => scale::run(args, output).await,
        Command::Drain(args) => drain::run(args, output).await,
        Command::Undrain(args) => drain::run_undrain(args, output).await,
        Command::Events(args) => events::run(args, output).await,
        Command::Why(args) => why::run(args, output).await,
        Command::Logs(args) => logs::run(args, output).await,
        Command::Job(args) => job::run(args, output).await,
        Command::Psql(args) => psql::run(args, output).await,
        Command::Drill(args) => drill::run(args, output).await,
        Command::Init(args) => init::run(args, output).await,
        Command::Token(args) => token::run(args, output).await,
        Command::Join(args) => join::run(args, output).await,
        Command::Authority(args) => authority::run(args, output).await,
        Command::Lab(args) => lab::run(args, output).await,
        Command::Schema(args) => schema::run(args, output).await,
        Command::Completions(args) => completions::run(args, output).await,
        Command::Agent(args) => agent::run(args, output).await,
        Command::Proxy(args) => proxy::run(args, output).await,
        Command::Program(args) => program::run(&args, output),
        Command::Guard(args) => guard::run(&args),
        // Handled before the runtime exists.
        Command::LabNode(_) => Ok(Exit::Failed),
    }
}

/// The command line as a value, for completions and the test of its definition.
fn definition() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_is_sound() {
        super::definition().debug_assert();
    }
}
