//! What a drill is, in words.

use std::fmt::Write;
use std::time::Duration;

use lab::drill::{Cast, Change, Drill, Expectation, Step, Writes};
use model::NodeName;

/// What it does, how it is taken back, and what must come of it.
pub(super) fn text(drill: Drill) -> String {
    let plan = drill.plan(&example());
    let expectation = drill.expectation();
    let mut text = format!("{drill}: {}\n\n", drill.summary());
    text += &list("does", &plan.fault);
    text += &list("takes back", &plan.recovery);
    let _ = writeln!(text, "must come of it\n  {}", expectation.words);
    for line in conditions(&expectation) {
        let _ = writeln!(text, "  {line}");
    }
    if drill.needs_volumes() {
        text += "needs\n  nodes whose databases lie on volumes of their own: mainstay up FILE --data-volume 512\n";
    }
    if drill.is_for_async() {
        text += "needs\n  a database with durability = \"async\"\n";
    }
    text
}

/// Names that say who is who.
fn example() -> Cast {
    let name = |text: &str| NodeName::new(text);
    Cast {
        primary: name("the primary's node"),
        standbys: vec![name("a standby's node"), name("the other standby's node")],
        leader: Some(name("the leader's node")),
        run: 1,
    }
}

fn list(title: &str, steps: &[Step]) -> String {
    if steps.is_empty() {
        return String::new();
    }
    let lines: String = steps.iter().map(|step| format!("  {step}\n")).collect();
    format!("{title}\n{lines}")
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
        insta::assert_snapshot!(text(Drill::BothStandbysKill));
        insta::assert_snapshot!(text(Drill::DiskHangPrimary));
    }
}
