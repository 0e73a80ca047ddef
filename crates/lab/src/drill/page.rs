//! The report of a drill as a page (Markdown) for somebody who was not there.

use std::fmt::Write as _;

use super::catalogue::Drill;
use super::report::Report;
use super::timeline::Timeline;

/// How many of the system's own words are shown.
const MOST_EVENTS: usize = 60;

/// The page; `picture` is where the picture lies, seen from it.
pub fn markdown(drill: &'static Drill, report: &Report, picture: &str) -> String {
    let verdict = if report.passed { "passed" } else { "FAILED" };
    let mut page = format!("# Drill {drill}: {verdict}\n\nIt {}.\n\n", drill.summary());
    let _ = writeln!(page, "Expected: {}.\n\n```text\n{report}```", report.expected);
    let Some(worst) = report.worst() else { return page };
    let _ = writeln!(
        page,
        "\n## The run with the longest outage\n\n![What the client saw, and what the system said]({picture})\n"
    );
    for line in &worst.evidence {
        let _ = writeln!(page, "- {line}");
    }
    page += &happened(&worst.timeline);
    page
}

/// What was done and what the system wrote down, in one order.
fn happened(timeline: &Timeline) -> String {
    let mut rows: Vec<(f64, &str, String)> =
        timeline.deeds.iter().map(|(at, deed)| (*at, "drill", format!("**{deed}**"))).collect();
    if let Some((from, to)) = timeline.outage {
        rows.push((from, "client", format!("last acknowledgement for {:.0} ms", to - from)));
        rows.push((to, "client", "acknowledged again".to_owned()));
    }
    let events = timeline.events.iter().take(MOST_EVENTS);
    rows.extend(events.map(|(at, event)| {
        let because = if event.because.is_empty() { String::new() } else { format!(": {}", event.because) };
        (*at, event.node.as_str(), format!("{} {}{because}", event.subject, event.what))
    }));
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut table = "\n| ms | who | what |\n|---:|---|---|\n".to_owned();
    for (at, who, what) in rows {
        let _ = writeln!(table, "| {at:.0} | {who} | {} |", what.replace('|', "\\|").replace('\n', " "));
    }
    let left = timeline.events.len().saturating_sub(MOST_EVENTS);
    if left > 0 {
        let _ = writeln!(table, "\n{left} later events are left out; `mainstay events` shows all.");
    }
    table
}

#[cfg(test)]
mod tests {
    use model::event::{Event, Severity};

    use super::super::catalogue::drill;
    use super::*;
    use crate::drill::Run;

    #[test]
    fn the_page_of_a_drill() {
        let event = Event {
            at_us: 0,
            node: "w1".into(),
            severity: Severity::Warning,
            subject: "database/orders".to_owned(),
            what: "term 2 begins".to_owned(),
            because: "e1 is silent | for w1 and n1".to_owned(),
        };
        let timeline = Timeline {
            outage: Some((-2.0, 398.0)),
            deeds: vec![(0.0, "take the power from e1".to_owned())],
            events: vec![(310.0, event)],
            ..Timeline::default()
        };
        let run = Run {
            outage_ms: Some(400.0),
            evidence: vec!["take the power from e1: all 17 processes are dead".to_owned()],
            passed: true,
            timeline,
            ..Run::default()
        };
        let report = Report::new(drill("node-kill"), vec![run]);
        insta::assert_snapshot!(markdown(drill("node-kill"), &report, "timeline.svg"));
    }
}
