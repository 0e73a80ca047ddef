//! Documents say what is true: commands exist, targets exist, the changelog is kept.

use std::collections::BTreeSet;

use crate::code;
use crate::problem::Problem;
use crate::tree::{SourceFile, Tree};

const DRIFT: &str = "a command that does not exist costs the reader's trust in the rest of the page";

/// What clap adds to every command line by itself.
const BUILT_IN: [&str; 1] = ["help"];

/// Where the binary's subcommands are listed, and below which each may list its own.
const CLI: &str = "crates/mainstay/src/cli";

/// Reports commands in code blocks that do not exist, and a changelog without a place for what comes next.
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    let targets = make_targets(tree);
    let pages = tree.files().filter(|f| f.path.ends_with(".md") && f.path != "CHANGELOG.md");
    let mut problems: Vec<Problem> = pages.flat_map(|page| drift(tree, page, &targets)).collect();
    problems.extend(changelog(tree));
    problems
}

fn drift(tree: &Tree, page: &SourceFile, targets: &BTreeSet<String>) -> Vec<Problem> {
    let wrong = prompts(page).filter_map(|(line, command)| {
        let words: Vec<&str> = command.split_whitespace().filter(|word| *word != "sudo").collect();
        let (what, known) = match words[..] {
            ["mainstay", ..] => unknown_command(tree, &words)?,
            ["make", name, ..]
                if !name.starts_with('-') && !name.contains('=') && !targets.contains(name) =>
            {
                (format!("make {name}"), targets.clone())
            }
            _ => return None,
        };
        let names: Vec<&str> = known.iter().map(String::as_str).collect();
        Some(Problem {
            path: page.path.clone(),
            line,
            what: format!("`{what}` does not exist"),
            why: DRIFT,
            hint: format!("there are: {}", names.join(" ")),
        })
    });
    wrong.collect()
}

/// The first of a command line's subcommands that does not exist, and those that do.
fn unknown_command(tree: &Tree, words: &[&str]) -> Option<(String, BTreeSet<String>)> {
    let top = commands_of(tree, &format!("{CLI}/mod.rs"));
    let is_name = |word: &&&str| !word.starts_with('-');
    let name = words.get(1).filter(is_name)?;
    if !top.contains(*name) {
        return Some((format!("mainstay {name}"), top));
    }
    let below = commands_of(tree, &format!("{CLI}/{}.rs", name.replace('-', "_")));
    let second = words.get(2).filter(is_name).filter(|_| below.len() > BUILT_IN.len())?;
    (!below.contains(*second)).then(|| (format!("mainstay {name} {second}"), below))
}

/// The commands after a `$ ` prompt inside fenced blocks, with their lines.
fn prompts(page: &SourceFile) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    page.lines().filter_map(move |(number, line)| {
        let line = line.trim();
        fenced ^= line.starts_with("```");
        line.strip_prefix("$ ").filter(|_| fenced).map(|command| (number, command))
    })
}

/// The subcommands that a source file lists: the variants of its `enum Command`.
fn commands_of(tree: &Tree, path: &str) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = BUILT_IN.map(str::to_owned).into();
    let Some(file) = tree.file(path) else { return names };
    let masked = code::mask(&file.text);
    for at in code::words(&masked, "enum") {
        let after = masked[at + 4..].trim_start();
        let open = masked.len() - after.len() + after.find('{').unwrap_or(0);
        if code::identifier(after) == "Command" && masked[open..].starts_with('{') {
            let end = code::closing(&masked, open).unwrap_or(masked.len());
            names.extend(variants(&file.text[open + 1..end - 1], &masked[open + 1..end - 1]));
        }
    }
    names
}

/// The names of an enum's variants as clap spells them; `name = "..."` in an attribute wins.
fn variants(text: &str, masked: &str) -> Vec<String> {
    let mut names = Vec::new();
    let (mut at, mut given) = (0, None);
    while at < masked.len() {
        let rest = &masked[at..];
        let name = code::identifier(rest);
        if rest.starts_with("#[") {
            let end = code::closing(masked, at + 1).unwrap_or(masked.len());
            given = given.or_else(|| renamed(&text[at..end]));
            at = end;
        } else if name.is_empty() {
            at += rest.chars().next().map_or(1, char::len_utf8);
        } else {
            names.push(given.take().unwrap_or_else(|| kebab(name)));
            at = variant_end(masked, at + name.len());
        }
    }
    names
}

/// The position after the comma that ends a variant.
fn variant_end(masked: &str, mut at: usize) -> usize {
    while let Some(b) = masked.as_bytes().get(at) {
        match b {
            b',' => return at + 1,
            b'{' | b'(' => at = code::closing(masked, at).unwrap_or(masked.len()),
            _ => at += 1,
        }
    }
    masked.len()
}

fn renamed(attribute: &str) -> Option<String> {
    let (_, after) = attribute.split_once("name = \"")?;
    after.split_once('"').map(|(name, _)| name.to_owned())
}

fn kebab(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push('-');
        }
        out.extend(c.to_lowercase());
    }
    out
}

/// The targets of the Makefile; `bench-%` patterns stand for all their names.
fn make_targets(tree: &Tree) -> BTreeSet<String> {
    let Some(makefile) = tree.file("Makefile") else { return BTreeSet::new() };
    let target = |line: &str| {
        let (names, after) = line.split_once(':')?;
        let rule = !line.starts_with(['\t', ' ', '#', '.']) && !after.starts_with('=');
        rule.then(|| names.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    };
    makefile.text.lines().filter_map(target).flatten().collect()
}

fn changelog(tree: &Tree) -> Option<Problem> {
    let kept =
        tree.file("CHANGELOG.md").is_some_and(|f| f.text.lines().any(|line| line == "## [Unreleased]"));
    (!kept).then(|| Problem {
        path: "CHANGELOG.md".to_owned(),
        line: 1,
        what: "there is no `## [Unreleased]` section".to_owned(),
        why: "release notes are written with the change, not remembered at the release",
        hint: "add `## [Unreleased]` above the newest release".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tree;

    const TOP: &str = "/// Commands.\n#[derive(Subcommand)]\nenum Command {\n    /// Starts, or not.\n    Up(Up),\n    \
                       #[command(name = \"ps\")]\n    Status { json: bool },\n    DrillAll,\n}\n";

    #[test]
    fn subcommands_are_read_from_the_source() {
        let names = commands_of(&tree(&[("a.rs", TOP)]), "a.rs");
        assert_eq!(names, ["drill-all", "help", "ps", "up"].map(str::to_owned).into());
    }

    #[test]
    fn commands_and_targets_that_do_not_exist_are_found() {
        let page = "```\n$ mainstay up shop.toml\n$ mainstay fly\n$ sudo mainstay ps --json\n$ make demo\n$ make tea\n\
                    $ mainstay drill-all run x\n$ mainstay drill-all walk x\n$ mainstay --version\n```\n\
                    $ mainstay outside a block\n";
        let source = tree(&[
            ("CHANGELOG.md", "## [Unreleased]\n"),
            ("Makefile", ".PHONY: a\ndemo: build ## shows\n\ttea: x\nA := b\n"),
            ("README.md", page),
            ("crates/mainstay/src/cli/drill_all.rs", "enum Command { Run(RunArgs) }"),
            ("crates/mainstay/src/cli/mod.rs", TOP),
        ]);
        let found: Vec<_> = check(&source).into_iter().map(|p| (p.line, p.what)).collect();
        let expected = [(3, "mainstay fly"), (6, "make tea"), (8, "mainstay drill-all walk")];
        assert_eq!(found, expected.map(|(line, what)| (line, format!("`{what}` does not exist"))));
    }

    #[test]
    fn a_changelog_without_unreleased_is_found() {
        assert_eq!(check(&tree(&[("CHANGELOG.md", "# Changes\n")])).len(), 1);
    }
}
