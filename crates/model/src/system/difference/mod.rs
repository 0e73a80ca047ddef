//! What changes from one description to another, and what follows from it for what runs.

mod consequence;

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::System;
use consequence::Comparison;

/// One change and what follows from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What changes, as in the file: `databases.orders.parameters.work_mem`.
    pub path: String,
    /// What it was; `None`: it did not exist.
    pub from: Option<String>,
    /// What it shall be; `None`: it is removed.
    pub to: Option<String>,
    /// How much of what runs is touched.
    pub impact: Impact,
    /// What will happen, in one sentence.
    pub consequence: String,
}

/// How much of what runs a change touches, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Impact {
    /// Nothing restarts or moves.
    None,
    /// Settings are read again while everything runs on.
    Reload,
    /// Something new starts beside what runs.
    Start,
    /// Instances or members are replaced or restarted one after another, while the others serve.
    Rolling,
    /// Something stops for good.
    Stop,
    /// It cannot be done while the system runs; nothing of the file is applied.
    Refused,
}

/// Every change from `old` to `new`, by path.
pub fn difference(old: &System, new: &System) -> Vec<Change> {
    let (Ok(before), Ok(after)) = (serde_json::to_value(old), serde_json::to_value(new)) else {
        // A description is plain data with texts as keys, which JSON always holds.
        return vec![];
    };
    let mut changes = vec![];
    let comparison = Comparison { old, new };
    walk(&mut vec![], Some(&before), Some(&after), &comparison, &mut changes);
    changes
}

/// Stands for a whole entry, which would be too much for one line.
const ENTRY: &str = "all of it";

/// Parts that are shown as one value although they have keys of their own.
const WHOLE: [&str; 2] = ["listen", "ports"];

fn walk(
    path: &mut Vec<String>,
    from: Option<&Value>,
    to: Option<&Value>,
    comparison: &Comparison<'_>,
    changes: &mut Vec<Change>,
) {
    let (from, to) = (from.filter(|v| !v.is_null()), to.filter(|v| !v.is_null()));
    if from == to {
        return;
    }
    let whole = path.last().is_some_and(|key| WHOLE.contains(&key.as_str()));
    if let (Some(Value::Object(before)), Some(Value::Object(after)), false) = (from, to, whole)
        // A value with a kind is one choice, not several keys.
        && !before.contains_key("kind")
    {
        let added = after.keys().filter(|key| !before.contains_key(*key));
        let mut keys: Vec<&String> = before.keys().chain(added).collect();
        keys.sort();
        for key in keys {
            path.push(key.clone());
            walk(path, before.get(key), after.get(key), comparison, changes);
            path.pop();
        }
        return;
    }
    let keys: Vec<&str> = path.iter().map(String::as_str).collect();
    let Some((impact, consequence)) = comparison.consequence(&keys, from, to) else {
        return;
    };
    changes.push(Change {
        path: path.join("."),
        from: from.map(shown),
        to: to.map(shown),
        impact,
        consequence,
    });
}

/// A value as a person reads it.
fn shown(value: &Value) -> String {
    let is_small = value.as_object().is_some_and(|map| map.len() == 2);
    let port = |key: &str| value.get(key).filter(|_| is_small).and_then(Value::as_u64);
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Value::Object(map) if is_external(map) => {
            let text = |key: &str| map.get(key).and_then(Value::as_str);
            let address = text("address").unwrap_or_default().to_owned();
            text("site").map_or(address.clone(), |site| format!("{address} in {site}"))
        }
        Value::Object(_) => match (port("first"), port("last"), port("port"), value.get("kind")) {
            (Some(first), Some(last), _, _) => format!("{first}-{last}"),
            (_, _, Some(port), _) => match value.get("address").and_then(Value::as_str) {
                Some(address) if address.contains(':') => format!("[{address}]:{port}"),
                address => format!("{}:{port}", address.unwrap_or_default()),
            },
            (_, _, _, Some(kind)) => shown_choice(kind, value),
            (_, _, _, None) => ENTRY.to_owned(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// Whether it is an address of a service that others run.
fn is_external(map: &serde_json::Map<String, Value>) -> bool {
    let others = map.keys().filter(|key| *key != "site").count();
    others == 1 && map.get("address").is_some_and(Value::is_string)
}

/// A value with a kind: the kind and what it says besides.
fn shown_choice(kind: &Value, value: &Value) -> String {
    let others =
        value.as_object().into_iter().flatten().filter(|(key, value)| *key != "kind" && !value.is_null());
    others.fold(shown(kind), |text, (_, value)| format!("{text} {}", shown(value)))
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{}: {from} -> {to}: {}", self.path, self.consequence),
            (None, Some(to)) if to != ENTRY => write!(f, "{}: added {to}: {}", self.path, self.consequence),
            (None, _) => write!(f, "{}: added: {}", self.path, self.consequence),
            (Some(_), None) => write!(f, "{}: removed: {}", self.path, self.consequence),
        }
    }
}
