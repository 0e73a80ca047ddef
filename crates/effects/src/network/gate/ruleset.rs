//! The gate's rules: how they are written, and how they are recognised again.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use super::GateError;
use super::netlink::Rule;
use crate::process::{ToolCommand, run_tool};

/// The set of ports behind the gate.
pub(super) const GUARDED: &str = "guarded";

/// The set of ports that are open now, each with its lease as the time-out.
pub(super) const OPEN: &str = "open";

/// The chains, each with exactly one rule.
const CHAINS: [&str; 2] = ["input", "output"];

/// Comment of every rule. Its version changes when the rules do, so that those of another version are replaced.
const TAG: &str = "mainstay gate 1";

/// How long `nft` may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Makes the table anew in one transaction, `ports` behind it and none open.
pub(super) async fn create(table: &str, ports: &BTreeSet<u16>) -> Result<(), GateError> {
    let failed = |because: String| GateError::Install { table: table.to_owned(), because };
    let stdin = text(table, ports).into_bytes();
    let command = ToolCommand { stdin, ..ToolCommand::new("nft", ["-f", "-"], DEADLINE) };
    let output = run_tool(command).await.and_then(crate::process::ToolOutput::checked);
    output.map(|_| ()).map_err(|error| failed(format!("{error} (nftables is Debian package nftables)")))
}

/// The ruleset in nft's language. Priority -300 (raw) comes before connection tracking and everybody else's filters.
fn text(table: &str, ports: &BTreeSet<u16>) -> String {
    // Adding the table first lets the deletion succeed also when there is none.
    let mut text = format!("table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
    let _ = writeln!(text, "  set {GUARDED} {{ type inet_service; }}");
    let _ = writeln!(text, "  set {OPEN} {{ type inet_service; flags timeout; }}");
    for (chain, port) in CHAINS.iter().zip(["dport", "sport"]) {
        let _ = writeln!(
            text,
            "  chain {chain} {{ type filter hook {chain} priority -300; policy accept; \
             tcp {port} @{GUARDED} tcp {port} != @{OPEN} drop comment \"{TAG}\"; }}"
        );
    }
    text.push_str("}\n");
    for port in ports {
        let _ = writeln!(text, "add element inet {table} {GUARDED} {{ {port} }}");
    }
    text
}

/// Whether exactly our rules are in the table. The kernel keeps a rule's comment with the rule, and a rule cannot be changed
/// without being replaced; so its comment stands for its content.
pub(super) fn check(rules: &[Rule]) -> Result<(), String> {
    for chain in CHAINS {
        let own: Vec<&Rule> = rules.iter().filter(|rule| rule.chain == chain).collect();
        match own.as_slice() {
            [rule] if is_tagged(rule) => {}
            [] => return Err(format!("the rule of its chain {chain} is gone")),
            [_] => return Err(format!("the rule of its chain {chain} is not this version's")),
            [_, _, ..] => return Err(format!("its chain {chain} holds rules of somebody else")),
        }
    }
    Ok(())
}

fn is_tagged(rule: &Rule) -> bool {
    // nft stores a comment as type, length, text and a zero byte.
    rule.comment.windows(TAG.len() + 1).any(|part| part.strip_suffix(b"\0") == Some(TAG.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(chain: &str, comment: &str) -> Rule {
        let length = u8::try_from(comment.len() + 1).unwrap();
        let comment = [&[0, length][..], comment.as_bytes(), b"\0"].concat();
        Rule { chain: chain.to_owned(), comment }
    }

    #[test]
    fn the_ruleset_replaces_whatever_was_there_in_one_transaction() {
        let expected = "table inet gate_e1
delete table inet gate_e1
table inet gate_e1 {
  set guarded { type inet_service; }
  set open { type inet_service; flags timeout; }
  chain input { type filter hook input priority -300; policy accept; tcp dport @guarded tcp dport != @open drop comment \"mainstay gate 1\"; }
  chain output { type filter hook output priority -300; policy accept; tcp sport @guarded tcp sport != @open drop comment \"mainstay gate 1\"; }
}
add element inet gate_e1 guarded { 5432 }
";
        assert_eq!(text("gate_e1", &BTreeSet::from([5432])), expected);
    }

    #[test]
    fn only_exactly_our_rules_are_intact() {
        let (input, output) = (rule("input", TAG), rule("output", TAG));
        let says = |rules: &[Rule]| check(rules).unwrap_err();
        assert_eq!(check(&[input.clone(), output.clone()]), Ok(()));
        assert_eq!(says(&[]), "the rule of its chain input is gone");
        assert_eq!(says(std::slice::from_ref(&input)), "the rule of its chain output is gone");
        assert_eq!(
            says(&[rule("input", "x"), input.clone(), output.clone()]),
            "its chain input holds rules of somebody else"
        );
        assert_eq!(
            says(&[rule("input", "mainstay gate 10"), output]),
            "the rule of its chain input is not this version's"
        );
    }
}
