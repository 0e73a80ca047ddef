//! `docs/system-file.md` says what the schema says. `UPDATE_DOCS=1` rewrites it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use model::system::{Code, schema};
use serde_json::Value;

const BEGIN: &str =
    "<!-- What follows is made from the source: UPDATE_DOCS=1 cargo nextest run -p model reference -->\n";

/// The sections in the order in which a person writes them.
const SECTIONS: [(&str, &str); 20] = [
    ("[system]", "SystemTable"),
    ("[objectives]", "ObjectivesTable"),
    ("[sites.NAME]", "SiteTable"),
    ("[nodes.NAME]", "NodeTable"),
    ("[databases.NAME]", "DatabaseTable"),
    ("[services.NAME]", "ServiceTable"),
    ("[services.NAME.health]", "HealthTable"),
    ("[services.NAME.traffic]", "TrafficTable"),
    ("[services.NAME.ready]", "ReadyTable"),
    ("[services.NAME.tls]", "InstanceTlsTable"),
    ("[services.NAME.release]", "ReleaseTable"),
    ("[services.NAME.scale]", "ScaleTable"),
    ("[jobs.NAME]", "JobTable"),
    ("[routes.NAME]", "RouteTable"),
    ("[routes.NAME.tls]", "TlsTable"),
    ("[routes.NAME.limits]", "LimitsTable"),
    ("[alarms]", "AlarmsTable"),
    ("[backups.DATABASE]", "BackupTable"),
    ("[coordination]", "CoordinationTable"),
    ("[coordination.etcd]", "EtcdTable"),
];

/// What a key takes, in words.
fn kind(property: &Value) -> String {
    let limits = match (property["minimum"].as_u64(), property["maximum"].as_u64()) {
        (Some(min), Some(max)) => format!(", {min} to {max}"),
        (Some(min), None) => format!(", at least {min}"),
        (None, _) => String::new(),
    };
    if let Some(words) = property["enum"].as_array() {
        return words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
    }
    if let Some(format) = property["format"].as_str() {
        return format.to_owned();
    }
    if property.get("$ref").is_some() {
        return "section".to_owned();
    }
    match &property["type"] {
        Value::String(kind) => match kind.as_str() {
            "integer" => format!("whole number{limits}"),
            "boolean" => "`true` or `false`".to_owned(),
            "array" => "list of texts".to_owned(),
            "object" => format!("section: name = {}", kind_of_each(property)),
            _ => "text".to_owned(),
        },
        Value::Array(_) => "text or list of texts".to_owned(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => panic!("{property}"),
    }
}

fn kind_of_each(property: &Value) -> String {
    let each = &property["additionalProperties"];
    if each["type"].is_array() { "text, number or boolean".to_owned() } else { kind(each) }
}

/// A JSON value as TOML writes it in one line.
fn in_toml(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{key} = {}", in_toml(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(in_toml).collect::<Vec<_>>().join(", ")),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}

fn one_line(text: &Value) -> String {
    text.as_str().unwrap().replace('\n', " ")
}

fn write_section(out: &mut String, title: &str, table: &Value) {
    writeln!(
        out,
        "\n### `{title}`\n\n{}\n\n| key | takes | default | meaning |\n|---|---|---|---|",
        one_line(&table["description"])
    )
    .unwrap();
    let required: BTreeSet<&str> =
        table["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, property) in table["properties"].as_object().unwrap() {
        let default = match property.get("default") {
            Some(default) => format!("`{}`", in_toml(default)),
            None if required.contains(key.as_str()) => "must be given".to_owned(),
            None => String::new(),
        };
        let examples: Vec<String> = property["examples"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|example| format!("`{}`", in_toml(example)))
            .collect();
        let examples = if examples.is_empty() {
            String::new()
        } else {
            format!(" For example {}.", examples.join(", "))
        };
        writeln!(
            out,
            "| `{key}` | {} | {default} | {}{examples} |",
            kind(property),
            one_line(&property["description"])
        )
        .unwrap();
    }
}

fn reference() -> String {
    let schema = schema();
    let mut out = "\n## Every section and key\n".to_owned();
    let tables = schema["$defs"].as_object().unwrap();
    assert_eq!(tables.len(), SECTIONS.len(), "a section is missing in the list above");
    for (title, table) in SECTIONS {
        write_section(&mut out, title, &tables[table]);
    }
    out += "\n## Every message\n\nThe code stands in the output of `mainstay check --json`.\n\n| code | meaning |\n|---|---|\n";
    for code in Code::ALL {
        writeln!(out, "| `{code}` | {} |", code.meaning()).unwrap();
    }
    out
}

#[test]
fn the_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/system-file.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, written) =
        text.split_once(BEGIN).expect("docs/system-file.md has lost the line that begins the reference");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{BEGIN}{}", reference())).unwrap();
    } else {
        assert!(
            written == reference(),
            "docs/system-file.md is out of date: run UPDATE_DOCS=1 cargo nextest run -p model reference"
        );
    }
}

#[test]
fn the_example_of_the_reference_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/system-file.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let example = text.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    model::system::parse("docs/system-file.md", example.as_bytes())
        .unwrap_or_else(|invalid| panic!("{invalid}"));
}
