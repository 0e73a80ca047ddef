//! Runs seeds: `cargo run --release -p simulation --example sweep -- FIRST COUNT`, or scripts: `... -- FILE.script ...`.
//!
//! The first violation ends it: the seed, the commit, the broken sentence, what happened before it, and the shortest list
//! of faults that still breaks one (`--brief`: only the sentence). Exit code 1 then.

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use model::script::{self, ScriptFile};
use simulation::{Total, Violation, World};

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let is_brief = words.pop_if(|word| word == "--brief").is_some();
    if words.first().is_some_and(|word| word.ends_with(".script")) {
        let failed = words.iter().any(|file| play(file, words.len() == 1) != ExitCode::SUCCESS);
        return if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
    }
    let numbers: Result<Vec<u64>, _> = words.iter().map(|word| word.parse()).collect();
    let (first, count) = match numbers.as_deref() {
        Ok([first, count]) => (*first, *count),
        Ok([]) => (0, 2000),
        Ok(_) | Err(_) => {
            eprintln!(
                "usage: sweep [FIRST COUNT] [--brief]   runs seeds FIRST to FIRST + COUNT - 1\n       sweep FILE.script ..."
            );
            return ExitCode::from(2);
        }
    };
    let (begun, mut told) = (Instant::now(), Instant::now());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let result = simulation::sweep(first..first + count, threads, |total| {
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            println!("{}", progress(total, count, begun.elapsed()));
        }
    });
    match result {
        Ok(total) => {
            println!("{}\n{}", progress(&total, count, begun.elapsed()), summary(&total));
            ExitCode::SUCCESS
        }
        Err(violation) if is_brief => {
            println!("{}", violation.sentence());
            ExitCode::FAILURE
        }
        Err(violation) => {
            explain(&violation);
            ExitCode::FAILURE
        }
    }
}

/// Runs a script and prints what happens; of several only what is broken.
fn play(file: &str, is_alone: bool) -> ExitCode {
    let read = std::fs::read_to_string(file).map_err(|error| error.to_string());
    match read.and_then(|text| script::parse(&text).map_err(|error| error.to_string())) {
        Ok(parsed) => {
            let told = World::tell_all(&parsed.script);
            if is_alone {
                print!("{}", ScriptFile { transcript: told.transcript, story: told.story, ..parsed });
            }
            match told.result {
                Ok(_) => ExitCode::SUCCESS,
                Err(violation) if is_alone => {
                    println!("\n{violation}");
                    ExitCode::FAILURE
                }
                Err(violation) => {
                    println!("{file}\n{}", violation.sentence());
                    ExitCode::FAILURE
                }
            }
        }
        Err(error) => {
            eprintln!("sweep: {file}: {error}");
            ExitCode::from(2)
        }
    }
}

fn progress(total: &Total, count: u64, took: Duration) -> String {
    let (hours, seconds) = (total.simulated.as_secs_f64() / 3600.0, took.as_secs_f64());
    let speed = f64::from(u32::try_from(total.seeds).unwrap_or(u32::MAX)) / seconds;
    format!("{} of {count} seeds, {speed:.1} a second, {hours:.1} h simulated in {seconds:.0} s", total.seeds)
}

fn summary(total: &Total) -> String {
    let mut lines = vec![
        format!("no violation; {} writes acknowledged, {} terms", total.acknowledged, total.terms),
        format!(
            "{} seeds with one fault at a time: the longest outage lasted {} ms",
            total.single,
            total.longest_outage.as_millis()
        ),
        format!(
            "{} standbys restarted for new settings, {} primaries in place",
            total.restarts.0, total.restarts.1
        ),
        format!("{} faults:", total.faults.values().sum::<u64>()),
    ];
    lines.extend(total.faults.iter().map(|(kind, count)| format!("{count:>9} {kind}")));
    lines.join("\n")
}

fn explain(violation: &Violation) {
    println!("{violation}");
    println!("on commit {}", commit().unwrap_or_else(|| "unknown".to_owned()));
    let (script, shortest) = simulation::shrink(&simulation::script(violation.seed), violation.clone());
    let about = format!("Seed {} broke \"{}\": {}", shortest.seed, shortest.invariant, shortest.what);
    let about = vec![about.lines().next().unwrap_or_default().to_owned()];
    let (transcript, story) = (vec![], vec![]);
    let file = ScriptFile { about, script, in_the_lab: false, transcript, story };
    println!(
        "\nthe shortest list of faults found that breaks an invariant, as a file for crates/simulation/scripts/:\n"
    );
    println!("{file}\nwhich ends so:\n{shortest}");
}

fn commit() -> Option<String> {
    let output =
        Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=12"]).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
