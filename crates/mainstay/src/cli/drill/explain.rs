//! What a drill is, in words.

use std::fmt::Write;
use std::time::Duration;

use lab::drill::{Act, Cast, Change, Drill, Ends, Expectation, Layer, Needs, Step, Writes};
use model::NodeName;

/// Every drill, by layers, with what must come of it.
pub(super) fn list() -> String {
    let mut text = String::new();
    for layer in Layer::ALL {
        let _ = writeln!(text, "{}", layer.name());
        for drill in Drill::all().filter(|drill| drill.layer() == layer) {
            let _ = writeln!(text, "  {drill:<25} {}", drill.expectation().words);
        }
    }
    text
}

/// What it does, how it is taken back, and what must come of it.
pub(super) fn text(drill: &'static Drill) -> String {
    let plan = drill.plan(&example());
    let expectation = drill.expectation();
    let mut text = format!("{drill} ({} layer): {}\n\n", drill.layer().name(), drill.summary());
    text += &section("does", plan.fault.iter().map(Step::to_string));
    let acts = acts(&plan.fault);
    text += &section("by", acts.iter().map(|act| act.means().to_owned()));
    text += &section("takes back", plan.recovery.iter().map(Step::to_string));
    text += &section("ends by itself", acts.iter().filter_map(|act| end(act.ends())));
    let _ = writeln!(text, "must come of it\n  {}", expectation.words);
    for line in conditions(&expectation) {
        let _ = writeln!(text, "  {line}");
    }
    text += &section("needs", needs(drill.needs()).into_iter().map(str::to_owned));
    text += &section("for longer", drill.longer().into_iter().map(str::to_owned));
    if drill.is_for_async() {
        text += "needs\n  a database with durability = \"async\"\n";
    }
    text
}

/// Names that say who is who.
fn example() -> Cast {
    let leader = Some(NodeName::new("the leader's node"));
    Cast { leader, ..Cast::of("the primary's node", &["a standby's node", "the other standby's node"]) }
}

fn section(title: &str, lines: impl Iterator<Item = String>) -> String {
    let mut unique: Vec<String> = vec![];
    for line in lines {
        if unique.last() != Some(&line) {
            unique.push(line);
        }
    }
    if unique.is_empty() {
        return String::new();
    }
    let lines: String = unique.iter().map(|line| format!("  {line}\n")).collect();
    format!("{title}\n{lines}")
}

/// The acts of the steps, each once.
fn acts(steps: &[Step]) -> Vec<&'static Act> {
    let mut acts = vec![];
    for act in steps.iter().filter_map(Step::act) {
        if !acts.contains(&act) {
            acts.push(act);
        }
    }
    acts
}

/// How something ends when nobody takes it back.
fn end(ends: Ends) -> Option<String> {
    match ends {
        Ends::AtOnce => None,
        Ends::ByKernel(time) => Some(format!("after {} s, by the kernel's clock", time.as_secs_f64())),
        Ends::ByGuard(time) | Ends::ByOwnGuard(time) => {
            Some(format!("after {} s, by a guard process, also when the drill was killed", time.as_secs()))
        }
    }
}

/// What a drill needs, and where it is had from.
const fn needs(needs: Needs) -> Option<&'static str> {
    match needs {
        Needs::Nothing => None,
        Needs::Volume => {
            Some("nodes whose databases lie on volumes of their own: mainstay up FILE --data-volume 512")
        }
        Needs::TwoLines => Some("nodes with at least two lines"),
        Needs::Clock => Some("nodes whose clocks can be changed: mainstay up FILE --own-clocks"),
    }
}

fn conditions(expectation: &Expectation) -> Vec<String> {
    let mut lines = vec![];
    let seconds = |limit: Duration| limit.as_secs_f64();
    if let Some(outage) = expectation.outage {
        let worst = match expectation.worst {
            1 => String::new(),
            times => format!(" at the median, {times} times that in any run"),
        };
        lines.push(format!("writes stand still for at most {} ms{worst}", outage.as_millis()));
    }
    match expectation.writes {
        Writes::GoOn => {}
        Writes::WaitForFirst(limit) => lines.push(format!(
            "no write is acknowledged meanwhile; they flow within {} s of a node's return",
            seconds(limit)
        )),
        Writes::WaitForAll(limit) => lines.push(format!(
            "no write is acknowledged meanwhile; they flow within {} s of the last node's start",
            seconds(limit)
        )),
        Writes::MayWait(limit) => lines.push(format!(
            "writes may stand still while it lasts; they flow within {} s of its end",
            seconds(limit)
        )),
    }
    match expectation.primary {
        Change::Changes => lines.push("another member is the primary, and stays it".to_owned()),
        Change::Stays => lines.push("the primary stays the same".to_owned()),
        Change::Any => {}
    }
    if !expectation.errors_allowed {
        lines.push("the client sees no error".to_owned());
    }
    if !expectation.reconnects_allowed {
        lines.push("the client's connection lives on".to_owned());
    }
    if let Some(limit) = expectation.leaves_set {
        lines.push(format!("the standby is out of the sync set within {} s", seconds(limit)));
    }
    if let Some(limit) = expectation.redundancy {
        lines.push(format!("full redundancy is back within {} s", seconds(limit)));
    }
    lines.push(match expectation.loses {
        true => "acknowledged writes are found missing: this proves that the check can see a loss".to_owned(),
        false => "no acknowledged write is lost or doubled".to_owned(),
    });
    lines.push("never two primaries; full redundancy comes back without help".to_owned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_is_explained_with_its_steps_and_conditions() {
        insta::assert_snapshot!(text("both-standbys-kill".parse().unwrap()));
        insta::assert_snapshot!(text("disk-hang-primary".parse().unwrap()));
    }
}
