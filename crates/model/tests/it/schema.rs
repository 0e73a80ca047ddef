//! The schema agrees with what is read.

use std::collections::BTreeSet;

use model::system::{parse, schema};
use serde_json::Value;

use super::read_valid;

/// A file in which every key with a default may stand.
const BASE: &str = r#"
[system]
name = "base"
[objectives]
[sites.east]
[nodes.e1]
address = "10.0.1.11"
[nodes.e2]
address = "10.0.1.12"
[nodes.e3]
address = "10.0.1.13"
[databases.orders]
[services.web]
command = ["./shop", "{port}"]
[services.web.health]
[routes.orders]
listen = ":5432"
database = "orders"
[alarms]
[backups.orders]
repository = "file:///srv/backup"
"#;

/// Every default the schema names, written into `table`, which `schema` describes. Returns how many.
fn write_defaults(table: &mut toml::Table, schema: &Value, root: &Value) -> usize {
    let schema =
        schema.get("$ref").and_then(Value::as_str).map_or(schema, |r| root.pointer(&r[1..]).unwrap());
    let mut written = 0;
    if let Some(each) = schema.get("additionalProperties").filter(|each| each.is_object()) {
        for (_, entry) in table.iter_mut() {
            if let toml::Value::Table(entry) = entry {
                written += write_defaults(entry, each, root);
            }
        }
    }
    for (key, property) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if let Some(default) = property.get("default") {
            assert!(!table.contains_key(key), "the base file says {key}");
            table.insert(key.clone(), toml::Value::try_from(default).unwrap());
            written += 1;
        } else if let Some(toml::Value::Table(inner)) = table.get_mut(key) {
            written += write_defaults(inner, property, root);
        }
    }
    written
}

#[test]
fn a_default_that_is_written_changes_nothing() {
    let root = schema();
    let mut table: toml::Table = BASE.parse().unwrap();
    let written = write_defaults(&mut table, &root, &root);
    assert!(written > 20, "only {written} defaults were found");
    let said = parse("said", toml::to_string(&table).unwrap().as_bytes())
        .unwrap_or_else(|invalid| panic!("{invalid}"));
    let unsaid = parse("unsaid", BASE.as_bytes()).unwrap();
    assert_eq!(said.system, unsaid.system);
}

/// Every key the schema knows, as `Table.key`.
fn known_keys(root: &Value) -> BTreeSet<String> {
    let tables = root["$defs"].as_object().unwrap().iter();
    let keys = |(table, schema): (&String, &Value)| -> Vec<String> {
        schema["properties"].as_object().unwrap().keys().map(|key| format!("{table}.{key}")).collect()
    };
    tables.flat_map(keys).collect()
}

/// Every key of `table` that the schema knows, as `Table.key`.
fn used_keys(table: &toml::Table, schema: &Value, root: &Value, used: &mut BTreeSet<String>) {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/"));
    let schema = name.map_or(schema, |name| &root["$defs"][name]);
    for (key, value) in table {
        if let (Some(name), true) = (name, schema["properties"].get(key).is_some()) {
            used.insert(format!("{name}.{key}"));
        }
        let inner = schema["properties"].get(key).or(schema.get("additionalProperties"));
        if let (toml::Value::Table(table), Some(inner)) = (value, inner) {
            used_keys(table, inner, root, used);
        }
    }
}

#[test]
fn every_key_of_the_schema_stands_in_a_valid_file() {
    let root = schema();
    let mut used = BTreeSet::new();
    for name in ["everything", "etcd", "shop", "carriage"] {
        used_keys(&read_valid(name).parse().unwrap(), &root, &root, &mut used);
    }
    let unused: Vec<String> = known_keys(&root).into_iter().filter(|key| !used.contains(key)).collect();
    assert!(unused.is_empty(), "no valid file says {unused:?}");
}

#[test]
fn every_key_is_documented() {
    let root = schema();
    let tables = root["$defs"].as_object().unwrap().values().chain([&root]);
    for (key, property) in tables.flat_map(|table| table["properties"].as_object().unwrap()) {
        assert!(property["description"].as_str().is_some_and(|text| text.ends_with('.')), "{key}");
    }
}
