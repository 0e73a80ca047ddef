//! `mainstay drill replay`: a script of the simulator, played on a running system, and what came of it compared with what the
//! script says.

mod course;
mod page;
mod witness;

use std::path::{Path, PathBuf};

use ::lab::drill::replay::{self, Scene};
use ::lab::drill::{Account, Options, Writing};
use model::script::{self, ScriptFile, Shape};

use super::super::error::CliError;
use super::super::exit::Exit;
use super::super::output::{Output, note};
use super::super::target::Target;
use super::stage::Stage;
use super::{on_stage, running_lab, unfinished};
use course::Course;

/// Play a script of the simulator on a running system and compare what comes of it
///
/// A script says what fails when, and its story what comes of that in the simulator. Here the same is done to real servers
/// while a client outside the system writes; n1 of the script is whoever is the primary then. What came of it is told in the
/// words of the story: where the two differ they stand side by side, and the exit code is 1, as when an acknowledged write is
/// not there exactly once.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The script, such as crates/simulation/scripts/node-dies.script; it must say `also in the lab`
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The database to hurt; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    database: Option<String>,
    #[command(flatten)]
    target: Target,
}

pub(super) async fn run(args: Args, output: Output) -> Result<Exit, CliError> {
    let (file, scenes) = read(&args.file)?;
    let lab = running_lab(args.target.system.as_deref())?;
    let work = async |stage: &Stage, options: &Options| play(stage, options, &file, &scenes).await;
    let (told, account) = on_stage(lab, args.database.as_deref(), &args.target, work).await?;
    let is_kept = account.lost == 0 && account.doubled == 0 && account.acknowledged > 0;
    note(&format!(
        "{} writes were acknowledged; of these {} are missing, {} are there more than once\n",
        account.acknowledged, account.lost, account.doubled
    ));
    if told == file.story {
        output.print(&(told.join("\n") + "\n"))?;
        note("the system did what the script says\n");
    } else {
        output.print(&page::side_by_side(&file.story, &told))?;
        note("the system did something else than the script says\n");
    }
    Ok(if told == file.story && is_kept { Exit::Done } else { Exit::Failed })
}

fn read(path: &Path) -> Result<(ScriptFile, Vec<Scene>), CliError> {
    let invalid = |what: String| CliError::with(Exit::Invalid, what);
    let text = std::fs::read_to_string(path)
        .map_err(|error| invalid(format!("{} cannot be read", path.display())).because(&error))?;
    let file = script::parse(&text)
        .map_err(|error| invalid(format!("{} is no script", path.display())).because(&error))?;
    if !file.in_the_lab {
        return Err(CliError::with(Exit::Refused, format!("{} is for the simulator only", path.display()))
            .hint("grep -l 'also in the lab' crates/simulation/scripts/*"));
    }
    if file.story.is_empty() {
        return Err(invalid(format!("{} has no story to compare with", path.display()))
            .hint("RENEW_SCRIPTS=1 cargo test -p simulation writes down what the simulator does"));
    }
    let scenes = replay::scenes(&file.script).map_err(|why| CliError::with(Exit::Refused, why))?;
    Ok((file, scenes))
}

async fn play(
    stage: &Stage,
    options: &Options,
    file: &ScriptFile,
    scenes: &[Scene],
) -> Result<(Vec<String>, Account), CliError> {
    suits(file, stage)?;
    let writing = Writing::start(options, async || stage.view().await).await.map_err(unfinished)?;
    let mut course = Course::new(stage, file, writing).map_err(CliError::failed)?;
    course.play(scenes).await.map_err(CliError::failed)?;
    let (told, writing) = course.end();
    Ok((told, writing.stop(options).await.map_err(unfinished)?))
}

/// Refuses a script that is about another kind of system.
fn suits(file: &ScriptFile, stage: &Stage) -> Result<(), CliError> {
    let Some(wanted) = file.script.shape else {
        return Err(CliError::with(Exit::Invalid, "the script does not say what system it is about")
            .hint("a line such as: 3 nodes, 3 members, 1 must confirm"));
    };
    let database = stage.database();
    let confirm = decide::view::Rules::of(database).k;
    let is = Shape { nodes: stage.system().nodes.len(), members: database.members.len(), confirm };
    if is == wanted {
        return Ok(());
    }
    Err(CliError::with(Exit::Refused, format!("the script is about {wanted}, and this system has {is}"))
        .hint("mainstay up examples/shop/mainstay.toml has 3 nodes, 3 members, 1 must confirm"))
}
