//! Files that must be accepted, and what becomes of them.

use model::system::{System, parse};

use super::{announced, files, read_valid};

fn read(name: &str) -> System {
    parse(name, read_valid(name).as_bytes()).unwrap().system
}

#[test]
fn every_valid_file_is_accepted_with_exactly_its_warnings() {
    for path in files("valid") {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let checked = parse(name, text.as_bytes()).unwrap_or_else(|invalid| panic!("{name}:\n{invalid}"));
        let found: Vec<&str> = checked.warnings.iter().map(|w| w.code.as_str()).collect();
        assert_eq!(found, announced(&text, "warns"), "{name}: {:#?}", checked.warnings);
    }
}

#[test]
fn the_description_survives_being_stored() {
    for path in files("valid") {
        let checked = parse("x", &std::fs::read(&path).unwrap()).unwrap();
        let stored = serde_json::to_string(&checked.system).unwrap();
        assert_eq!(serde_json::from_str::<System>(&stored).unwrap(), checked.system, "{stored}");
    }
}

#[test]
fn every_default_is_filled_in() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&read("shop")).unwrap());
}

#[test]
fn everything_that_is_said_is_kept() {
    insta::assert_snapshot!(serde_json::to_string_pretty(&read("everything")).unwrap());
}

#[test]
fn voters_and_members_are_spread_over_the_sites() {
    let six = read("six-nodes");
    let voters: Vec<&str> = six.voters().map(|name| name.as_str()).collect();
    assert_eq!(voters, ["a1", "a2", "b1", "b2", "c1"]);
    let members: Vec<&str> =
        six.databases.values().flat_map(|db| &db.members).map(|name| name.as_str()).collect();
    assert_eq!(members, ["a1", "b1", "c1"]);
}

#[test]
fn the_first_line_named_is_preferred() {
    let lines = read("ipv6-and-lines");
    for node in lines.nodes.values() {
        assert_eq!(node.preferred_line.as_str(), "wire");
        assert_eq!(node.address(), node.lines["wire"]);
    }
}
