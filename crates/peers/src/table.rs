//! From what was measured to one table: for people (terminal and Markdown) and for programs (JSON).

use std::path::Path;

use effects::files::write_atomic;
use lab::drill::Spread;
use serde_json::{Value, json};

use crate::Outcome;
use crate::seen::{Column, Seen};
use crate::variant::{Fault, Subject, Timers};

/// How many times shorter than a peer's our outage is to be; `None` where nothing is claimed.
const fn goal(fault: Fault, peer: Subject) -> Option<f64> {
    let silent = matches!(fault, Fault::Death | Fault::Freeze | Fault::Cut);
    match (peer, silent) {
        (Subject::Mainstay | Subject::AutoFailover(_), _) => None,
        (Subject::Patroni(Timers::Default), true) => Some(20.0),
        (Subject::Patroni(Timers::Tuned), true) => Some(10.0),
        (Subject::Patroni(_), false) => Some(5.0),
    }
}

/// Our median against one peer's for one fault.
struct Match {
    fault: Fault,
    peer: Subject,
    ours: Option<Spread>,
    theirs: Option<Spread>,
    runs: (usize, usize),
}

impl Match {
    /// How many times longer the peer's outage is.
    fn times(&self) -> Option<f64> {
        let (ours, theirs) = (self.ours?.median?, self.theirs?.median?);
        (ours > 0.0).then(|| theirs / ours)
    }

    fn json(&self) -> Value {
        let range = |spread: Option<Spread>| spread.map_or(Value::Null, |s| json!([s.min, s.max]));
        let median = |spread: Option<Spread>| spread.and_then(|spread| spread.median);
        let goal = goal(self.fault, self.peer);
        json!({
            "metric": format!("write outage, {}", self.fault),
            "unit": "ms",
            "better": "lower",
            "ours": median(self.ours),
            "peer": median(self.theirs),
            "peer_name": self.peer.title(),
            "ratio": self.times().map(f64::recip),
            "ours_range": range(self.ours),
            "peer_range": range(self.theirs),
            "runs": [self.runs.0, self.runs.1],
            "goal_times_shorter": goal,
            "goal_reached": goal.zip(self.times()).map(|(goal, times)| times >= goal),
        })
    }
}

/// Writes `peers.json` (the comparison), `peers-runs.json` (every run) and `peers.md`, and prints the last.
pub(crate) fn publish(columns: &[Column], versions: &str, out: &Path) -> Outcome<()> {
    let page = markdown(columns, versions);
    let comparison: Vec<Value> = matches(columns).iter().map(Match::json).chain(costs(columns)).collect();
    let runs: serde_json::Map<String, Value> =
        columns.iter().map(|column| (column.subject.name().to_owned(), json!(column))).collect();
    let files = [
        ("peers.json", format!("{:#}\n", json!(comparison))),
        ("peers-runs.json", format!("{:#}\n", json!(runs))),
        ("peers.md", page.clone()),
    ];
    for (name, text) in files {
        let path = out.join(name);
        write_atomic(&path, text.as_bytes(), 0o644)
            .map_err(|e| format!("writing {}: {e}", path.display()))?;
    }
    println!("{page}");
    Ok(())
}

fn ours(columns: &[Column]) -> Option<&Column> {
    columns.iter().find(|column| column.subject == Subject::Mainstay)
}

fn matches(columns: &[Column]) -> Vec<Match> {
    let peers = || columns.iter().filter(|column| column.subject != Subject::Mainstay);
    let of = |fault: Fault, column: Option<&Column>| column.and_then(|column| column.outage(fault));
    let count = |fault: Fault, column: Option<&Column>| column.map_or(0, |column| column.of(fault).len());
    let one = |fault: Fault, peer: &Column| Match {
        fault,
        peer: peer.subject,
        ours: of(fault, ours(columns)),
        theirs: of(fault, Some(peer)),
        runs: (count(fault, ours(columns)), count(fault, Some(peer))),
    };
    Fault::ALL.iter().flat_map(|fault| peers().map(|peer| one(*fault, peer))).collect()
}

/// What beside outages is compared.
fn costs(columns: &[Column]) -> Vec<Value> {
    type Of = fn(&Column) -> Option<f64>;
    let measures: [(&str, &str, Of); 3] = [
        ("time to set up three members", "s", |column| column.set_up_s),
        ("processor time of a node at rest", "% of one core", |column| Some(column.cost?.cpu_percent)),
        ("memory of a node beside PostgreSQL", "MB", |column| Some(column.cost?.memory_mb)),
    ];
    let ours = ours(columns);
    let peers = columns.iter().filter(|column| column.subject != Subject::Mainstay);
    let all = peers.flat_map(|peer| {
        measures.map(|(metric, unit, of)| {
            let (mine, theirs) = (ours.and_then(of), of(peer));
            json!({
                "metric": metric, "unit": unit, "better": "lower", "ours": mine, "peer": theirs,
                "peer_name": peer.subject.title(),
                "ratio": mine.zip(theirs).map(|(mine, theirs)| mine / theirs),
                "ours_range": null, "peer_range": null, "runs": [1, 1],
            })
        })
    });
    all.collect()
}

// ---- for people ----

/// The table, what was claimed, and what could not be measured.
pub(crate) fn markdown(columns: &[Column], versions: &str) -> String {
    let mut rows = vec![head(columns)];
    rows.extend(Fault::ALL.iter().map(|fault| outages(*fault, columns)));
    rows.extend(sums(columns));
    let mut text = aligned(&rows);
    text += "\nWrites stand still from the last acknowledgement before the fault to the first one after it: median (lowest - \
             highest), and how many times Mainstay's median.\n";
    text += &format!("{versions}; runs of each fault: {}.\n", runs(columns));
    text += &claims(columns);
    for column in columns {
        for reason in &column.missing {
            text += &format!("- {}: not measured: {reason}\n", column.subject.title());
        }
    }
    text
}

/// How often each fault was done, as a range where that differs.
fn runs(columns: &[Column]) -> String {
    let counts = || columns.iter().flat_map(|column| column.runs.values().map(Vec::len));
    match (counts().min(), counts().max()) {
        (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
        (_, most) => most.unwrap_or(0).to_string(),
    }
}

fn head(columns: &[Column]) -> Vec<String> {
    let titles = columns.iter().map(|column| column.subject.title().to_owned());
    std::iter::once("Writes stand still after".to_owned()).chain(titles).collect()
}

fn outages(fault: Fault, columns: &[Column]) -> Vec<String> {
    let mine = ours(columns).and_then(|column| column.outage(fault));
    let cell = |column: &Column| {
        let Some(spread) = column.outage(fault) else { return "-".to_owned() };
        let range = format!("{} - {}", number(spread.min), number(spread.max));
        let text = format!("{} s ({range})", number(spread.median));
        let times = spread.median.zip(mine.and_then(|mine| mine.median)).map(|(theirs, mine)| theirs / mine);
        match times.filter(|_| column.subject != Subject::Mainstay) {
            Some(times) => format!("{text}, {}x", short(times)),
            None => text,
        }
    };
    std::iter::once(fault.words().to_owned()).chain(columns.iter().map(cell)).collect()
}

/// Rows that sum up all faults.
fn sums(columns: &[Column]) -> Vec<Vec<String>> {
    let row = |title: &str, cell: &dyn Fn(&Column) -> String| {
        std::iter::once(title.to_owned()).chain(columns.iter().map(cell)).collect()
    };
    let lost = |column: &Column| {
        let sum = |of: fn(&Seen) -> u64| column.sum(of);
        format!("{} / {} of {}", sum(|s| s.lost), sum(|s| s.doubled), sum(|s| s.acknowledged))
    };
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let cost = |column: &Column| {
        or_dash(column.cost.map(|cost| format!("{:.1} %, {:.0} MB", cost.cpu_percent, cost.memory_mb)))
    };
    let healing = |column: &Column| or_dash(column.healing().map(|ms| format!("{} s", number(Some(ms)))));
    vec![
        row("longest gap while death, freeze or cut is taken back", &healing),
        row("acknowledged writes lost / doubled", &lost),
        row("errors the client saw, median of a run", &errors),
        row("two members acknowledged in turn", &|column| column.sum(|seen| seen.two_primaries).to_string()),
        row("from nothing to redundant", &|column| or_dash(column.set_up_s.map(|s| format!("{s:.1} s")))),
        row("a node at rest: processor, memory beside PostgreSQL", &cost),
    ]
}

/// The median of a run's errors, fault by fault in the order of the rows.
fn errors(column: &Column) -> String {
    let median = |fault: &Fault| {
        let mut errors: Vec<u64> = column.of(*fault).iter().map(|seen| seen.errors).collect();
        errors.sort_unstable();
        errors.get(errors.len() / 2).map_or_else(|| "-".to_owned(), u64::to_string)
    };
    Fault::ALL.iter().map(median).collect::<Vec<_>>().join(" / ")
}

/// What is claimed against Patroni, and whether it holds here.
fn claims(columns: &[Column]) -> String {
    let told = matches(columns).into_iter().filter_map(|one| {
        let goal = goal(one.fault, one.peer)?;
        let times = one.times()?;
        let (fault, peer) = (one.fault.words(), one.peer.title());
        let verdict = if times >= goal { "reached" } else { "NOT reached" };
        Some(format!("- {fault}, against {peer}: {} times shorter, aim {goal:.0}: {verdict}\n", short(times)))
    });
    let told: String = told.collect();
    if told.is_empty() { told } else { format!("\n{told}") }
}

/// Milliseconds as seconds.
fn number(ms: Option<f64>) -> String {
    ms.map_or_else(
        || "never".to_owned(),
        |ms| if ms < 9950.0 { format!("{:.2}", ms / 1000.0) } else { format!("{:.1}", ms / 1000.0) },
    )
}

/// As exact as a ratio of such measurements can be.
fn short(times: f64) -> String {
    if times < 9.95 { format!("{times:.1}") } else { format!("{times:.0}") }
}

/// A Markdown table whose columns stand below each other in a terminal too.
fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |at: usize| rows.iter().filter_map(|row| row.get(at)).map(String::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let padded = |row: &Vec<String>| {
        line(row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect())
    };
    let rule = line(widths.iter().map(|width| "-".repeat(*width)).collect());
    let mut lines: Vec<String> = rows.iter().map(padded).collect();
    lines.insert(1.min(lines.len()), rule);
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Cost;

    fn seen(outage_ms: Option<f64>, errors: u64) -> Seen {
        Seen {
            outage_ms,
            errors,
            acknowledged: 500,
            lost: 0,
            doubled: 0,
            redundancy_ms: Some(1000.0),
            healing_ms: Some(40.0),
            two_primaries: 0,
            primary_before: "n1".to_owned(),
            primary_after: "n2".to_owned(),
            failures: vec![],
        }
    }

    fn column(subject: Subject, kill: [f64; 3], switchover: f64) -> Column {
        let mut column = Column::new(subject);
        column.runs.insert("node-kill", kill.map(|ms| seen(Some(ms), 7)).to_vec());
        column.runs.insert("switchover", vec![seen(Some(switchover), 0)]);
        column.set_up_s = Some(4.0);
        column.cost = Some(Cost { cpu_percent: 2.5, memory_mb: 12.0 });
        column
    }

    fn both() -> Vec<Column> {
        vec![
            column(Subject::Mainstay, [500.0, 700.0, 600.0], 120.0),
            column(Subject::Patroni(Timers::Default), [33_000.0, 36_000.0, 30_000.0], 480.0),
        ]
    }

    #[test]
    fn the_page_says_where_the_aim_is_missed() {
        insta::assert_snapshot!(markdown(&both(), "PostgreSQL 15.1"));
    }

    #[test]
    fn programs_get_ours_divided_by_the_peers() {
        let list: Vec<Value> = matches(&both()).iter().map(Match::json).collect();
        let kill = list.iter().find(|one| one["metric"] == "write outage, node-kill").unwrap();
        assert_eq!((&kill["ours"], &kill["peer"]), (&json!(600.0), &json!(33_000.0)));
        assert!((kill["ratio"].as_f64().unwrap() - 600.0 / 33_000.0).abs() < 1e-9);
        assert_eq!(
            (&kill["goal_reached"], &kill["peer_range"]),
            (&json!(true), &json!([30_000.0, 36_000.0]))
        );
        let unmeasured = list.iter().find(|one| one["metric"] == "write outage, node-freeze").unwrap();
        assert_eq!((&unmeasured["ratio"], &unmeasured["goal_reached"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn an_outage_without_end_is_no_figure() {
        let mut columns = both();
        columns[1].runs.insert("node-kill", vec![seen(None, 400)]);
        assert!(markdown(&columns, "").contains("never s (never - never)"), "{}", markdown(&columns, ""));
        assert!(matches(&columns).iter().all(|one| one.fault != Fault::Death || one.times().is_none()));
    }
}
