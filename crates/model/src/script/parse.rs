//! Text as a script, with the line and the reason where it is none.

use std::fmt;
use std::time::Duration;

use super::{Fault, Script, ScriptFile, Shape, Step, Target};

/// Why a text is no script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScriptError {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it, and what would be right.
    pub because: String,
}

impl fmt::Display for ScriptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.because)
    }
}

impl std::error::Error for ScriptError {}

/// What a line may be before the expected lines begin.
const FORMS: &str = "`# text`, `seed NUMBER`, `N nodes, N members, N must confirm`, `one fault at a time`, `also in the lab`, \
     `at TIME [for TIME]: FAULT`, `transcript:` or `story:`";

type OfANode = (&'static str, &'static str, fn(Target) -> Fault);

/// Faults of one node: what stands before its name, and behind it. The longer of two that begin alike comes first.
const OF_A_NODE: [OfANode; 12] = [
    ("power off ", "", Fault::Power),
    ("kill the agent of ", "", Fault::Agent),
    ("freeze the agent of ", "", Fault::AgentStalls),
    ("freeze ", "", Fault::Freeze),
    ("cut off ", "", Fault::Isolate),
    ("cut what ", " sends", Fault::Mute),
    ("lose the long packets of ", "", Fault::Narrow),
    ("kill the postmaster of ", "", Fault::Postmaster),
    ("hang the disk of ", "", Fault::Disk),
    ("drop the log that ", " needs", Fault::LogGone),
    ("lose the data of ", "", Fault::Wipe),
    ("force ", " to lead", Fault::Force),
];

/// Faults of nobody's own.
const OF_ALL: [(&str, Fault); 4] = [
    ("delay all messages", Fault::Slow),
    ("leave the coordination without a leader", Fault::Leaderless),
    ("switch over", Fault::Switchover),
    ("pause the automation", Fault::Pause),
];

/// Reads a script and what is expected of it.
///
/// # Errors
/// The first line that is none of a script's, and why.
pub fn parse(text: &str) -> Result<ScriptFile, ScriptError> {
    let script = Script { seed: 0, shape: None, single: false, steps: vec![] };
    let mut file = ScriptFile { about: vec![], script, in_the_lab: false, transcript: vec![], story: vec![] };
    let mut part = Part::Head;
    for (number, line) in text.lines().enumerate() {
        let failed = |because| ScriptError { line: number + 1, because };
        part = match (part, line) {
            (_, "transcript:") => Part::Transcript,
            (_, "story:") => Part::Story,
            (part, "") => part,
            (Part::Head, line) => {
                head(&mut file, line).map_err(failed)?;
                Part::Head
            }
            (part @ (Part::Transcript | Part::Story), line) => {
                let expected = line.strip_prefix("  ").ok_or_else(|| {
                    failed("an expected line begins with two spaces, and nothing else follows them".into())
                })?;
                let lines = if part == Part::Story { &mut file.story } else { &mut file.transcript };
                lines.push(expected.to_owned());
                part
            }
        };
    }
    Ok(file)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Head,
    Transcript,
    Story,
}

fn head(file: &mut ScriptFile, line: &str) -> Result<(), String> {
    let script = &mut file.script;
    if let Some(about) = line.strip_prefix('#') {
        file.about.push(about.strip_prefix(' ').unwrap_or(about).to_owned());
    } else if line == "also in the lab" {
        file.in_the_lab = true;
    } else if line == "one fault at a time" {
        script.single = true;
    } else if let Some(seed) = line.strip_prefix("seed ") {
        script.seed = number(seed)?;
    } else if line.ends_with(" must confirm") {
        script.shape = Some(shape(line)?);
    } else if let Some(rest) = line.strip_prefix("at ") {
        let step = step(rest)?;
        if script.steps.last().is_some_and(|last| last.at > step.at) {
            return Err("it begins before the step above it: steps stand in the order of their times".into());
        }
        script.steps.push(step);
    } else {
        return Err(format!("`{line}` is no line of a script; a line is {FORMS}"));
    }
    Ok(())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("`{text}` is no number, or a too large one"))
}

/// The most nodes that a script's system may have.
const MOST_NODES: usize = 5;

fn shape(line: &str) -> Result<Shape, String> {
    let wrong = || format!("`{line}` is not of the form `3 nodes, 3 members, 1 must confirm`");
    let parts: Vec<&str> = line.split(", ").collect();
    let [nodes, members, confirm] = parts.as_slice() else { return Err(wrong()) };
    let before = |text: &str, word| text.strip_suffix(word).map(str::to_owned).ok_or_else(wrong);
    let (nodes, members, confirm) = (
        number(&before(nodes, " nodes")?)?,
        number(&before(members, " members")?)?,
        number::<u32>(&before(confirm, " must confirm")?)?,
    );
    let enough = usize::try_from(confirm).is_ok_and(|confirm| confirm > 0 && confirm < members);
    if nodes > MOST_NODES || members > nodes || !enough {
        return Err(format!(
            "a system has at most {MOST_NODES} nodes, no more members than nodes, and fewer that must confirm than members"
        ));
    }
    Ok(Shape { nodes, members, confirm })
}

fn step(rest: &str) -> Result<Step, String> {
    let (times, what) = rest.split_once(": ").ok_or("a step has the form `at TIME [for TIME]: FAULT`")?;
    let fault = fault(what)?;
    let (at, lasts) = match times.split_once(" for ") {
        Some((at, lasts)) => (time(at)?, Some(time(lasts)?)),
        None => (time(times)?, None),
    };
    match (fault.lasts(), lasts) {
        (true, None) => {
            Err(format!("`{what}` lasts until it is taken back; say how long: `at TIME for TIME: {what}`"))
        }
        (false, Some(_)) => Err(format!("`{what}` happens at a moment and has no length: `at TIME: {what}`")),
        (true, Some(lasts)) => Ok(Step { at, lasts, fault }),
        (false, None) => Ok(Step { at, lasts: Duration::ZERO, fault }),
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no time; times are like `8 s`, `8250 ms` or `8250417 us`");
    let (amount, unit) = text.split_once(' ').ok_or_else(wrong)?;
    let amount: u64 = amount.parse().map_err(|_| wrong())?;
    match unit {
        "s" => Ok(Duration::from_secs(amount)),
        "ms" => Ok(Duration::from_millis(amount)),
        "us" => Ok(Duration::from_micros(amount)),
        _ => Err(wrong()),
    }
}

fn fault(text: &str) -> Result<Fault, String> {
    if let Some((_, fault)) = OF_ALL.iter().find(|(words, _)| *words == text) {
        return Ok(*fault);
    }
    if let Some(connections) = text.strip_prefix("set max_connections to ") {
        return Ok(Fault::Apply(number(connections)?));
    }
    if let Some((from, to)) = text.strip_prefix("cut what ").and_then(|rest| rest.split_once(" sends to ")) {
        return match target(to)? {
            Target::Node(to) => Ok(Fault::OneWay(target(from)?, to)),
            Target::Primary | Target::Standby => Err(format!("`{to}` must be a node, such as `n2`")),
        };
    }
    let of_a_node = OF_A_NODE
        .iter()
        .find_map(|(before, behind, make)| Some((text.strip_prefix(before)?.strip_suffix(behind)?, make)));
    match of_a_node {
        Some((name, make)) => target(name).map(make),
        None => Err(format!("`{text}` is no fault; there are {}", known())),
    }
}

fn target(text: &str) -> Result<Target, String> {
    match text {
        "the primary" => Ok(Target::Primary),
        "a standby" => Ok(Target::Standby),
        node => node
            .strip_prefix('n')
            .and_then(|number| number.parse::<usize>().ok())
            .filter(|number| (1..=MOST_NODES).contains(number))
            .map(|number| Target::Node(number - 1))
            .ok_or_else(|| {
                format!("`{node}` is nobody; whom a fault hits is `the primary`, `a standby` or `n1` to `n{MOST_NODES}`")
            }),
    }
}

/// All faults as they are written.
fn known() -> String {
    let of_a_node = OF_A_NODE.iter().map(|(before, behind, _)| format!("`{before}n1{behind}`"));
    let of_all = OF_ALL.iter().map(|(words, _)| format!("`{words}`"));
    let more = ["`cut what n1 sends to n2`".to_owned(), "`set max_connections to 200`".to_owned()];
    of_a_node.chain(of_all).chain(more).collect::<Vec<_>>().join(", ")
}
