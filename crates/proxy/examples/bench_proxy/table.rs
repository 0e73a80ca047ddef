//! What was measured, as a table and as `target/bench/proxy.json`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::front::{KINDS, Kind};

/// One figure in several runs.
#[derive(Default)]
pub(crate) struct Figures {
    /// In the order measured.
    rows: Vec<Row>,
    /// What could not be measured, and why.
    missing: Vec<(String, String)>,
}

/// One metric.
struct Row {
    metric: String,
    unit: &'static str,
    /// What each run measured, by proxy.
    values: BTreeMap<&'static str, Vec<f64>>,
}

impl Figures {
    pub(crate) fn note(&mut self, metric: &str, unit: &'static str, kind: Kind, value: f64) {
        let place = self.rows.iter().position(|row| row.metric == metric);
        let place = place.unwrap_or_else(|| {
            self.rows.push(Row { metric: metric.to_owned(), unit, values: BTreeMap::new() });
            self.rows.len() - 1
        });
        self.rows[place].values.entry(kind.name()).or_default().push(value);
    }

    pub(crate) fn missing(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.missing.push((what.into(), why.into()));
    }

    /// Every proxy a column, every metric a row: median and range.
    pub(crate) fn markdown(&self) -> String {
        let mut text = format!("| |{}\n|---|", KINDS.map(|kind| format!(" {} |", kind.name())).concat());
        text += &"---|".repeat(KINDS.len());
        text.push('\n');
        for Row { metric, unit, values } in &self.rows {
            text += &format!("| {metric}, {unit} |");
            for kind in KINDS {
                text += &values
                    .get(kind.name())
                    .map_or(" - |".to_owned(), |runs| format!(" {} |", Spread::of(runs)));
            }
            text.push('\n');
        }
        for (what, why) in &self.missing {
            text += &format!("\nNot measured: {what}: {why}.\n");
        }
        text
    }

    /// The same as the project's list of comparisons.
    pub(crate) fn json(&self) -> Value {
        let mut list = vec![];
        for Row { metric, unit, values } in &self.rows {
            let Some(ours) = values.get(Kind::Ours.name()) else { continue };
            for (peer_name, peer) in values.iter().filter(|(name, _)| **name != Kind::Ours.name()) {
                let (ours, peer) = (Spread::of(ours), Spread::of(peer));
                list.push(json!({
                    "metric": metric, "unit": unit, "better": "lower",
                    "ours": ours.median, "peer": peer.median, "peer_name": peer_name,
                    "ratio": if peer.median > 0.0 { json!(ours.median / peer.median) } else { Value::Null },
                    "ours_range": [ours.lowest, ours.highest], "peer_range": [peer.lowest, peer.highest],
                    "runs": ours.runs,
                }));
            }
        }
        let missing =
            self.missing.iter().map(|(metric, why)| json!({ "metric": metric, "not_measured": why }));
        list.extend(missing);
        Value::Array(list)
    }
}

struct Spread {
    lowest: f64,
    median: f64,
    highest: f64,
    runs: usize,
}

impl Spread {
    fn of(values: &[f64]) -> Self {
        let mut values = values.to_vec();
        values.sort_by(f64::total_cmp);
        Self {
            lowest: values[0],
            median: values[values.len() / 2],
            highest: values[values.len() - 1],
            runs: values.len(),
        }
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let short = |value: f64| {
            if value < 100.0 && value.fract() != 0.0 { format!("{value:.1}") } else { format!("{value:.0}") }
        };
        if self.runs == 1 {
            return f.write_str(&short(self.median));
        }
        write!(f, "{} ({} - {})", short(self.median), short(self.lowest), short(self.highest))
    }
}
