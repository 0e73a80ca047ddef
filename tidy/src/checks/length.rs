//! Files and functions stay short.

use std::collections::BTreeMap;

use crate::code;
use crate::problem::Problem;
use crate::ratchet::{self, Ratchet};
use crate::tree::Tree;

/// Lines of a Rust file, all of them.
pub(crate) const FILE_LIMIT: usize = 600;

/// Lines of code in a function's body.
pub(crate) const FUNCTION_LIMIT: usize = 60;

const WHY: &str = "a reader must be able to hold a file in mind and to see a function whole";

/// Reports what is too long, what grew beyond its ratchet, and ratchet entries that can go down.
pub(crate) fn check(tree: &Tree, ratchet: &Ratchet) -> Vec<Problem> {
    let mut problems: Vec<Problem> = tree
        .rust()
        .filter_map(|file| {
            too_long(&file.path, 1, "file", file.text.lines().count(), FILE_LIMIT, &ratchet.files)
        })
        .collect();
    for file in tree.rust() {
        problems.extend(code::functions(&file.text).into_iter().filter_map(|function| {
            let key = format!("{}::{}", file.path, function.name);
            too_long(&key, function.line, "function", function.lines, FUNCTION_LIMIT, &ratchet.functions)
        }));
    }
    problems.extend(stale(&ratchet.files, &file_sizes(tree), FILE_LIMIT));
    problems.extend(stale(&ratchet.functions, &function_sizes(tree), FUNCTION_LIMIT));
    problems
}

/// Lines of every Rust file.
pub(crate) fn file_sizes(tree: &Tree) -> BTreeMap<String, usize> {
    tree.rust().map(|file| (file.path.clone(), file.text.lines().count())).collect()
}

/// The longest function of each `path::name`.
pub(crate) fn function_sizes(tree: &Tree) -> BTreeMap<String, usize> {
    let mut sizes = BTreeMap::new();
    for file in tree.rust() {
        for function in code::functions(&file.text) {
            let size = sizes.entry(format!("{}::{}", file.path, function.name)).or_insert(0);
            *size = function.lines.max(*size);
        }
    }
    sizes
}

fn too_long(
    key: &str,
    line: usize,
    kind: &str,
    size: usize,
    limit: usize,
    allowed: &BTreeMap<String, usize>,
) -> Option<Problem> {
    let most = allowed.get(key).copied().unwrap_or(limit).max(limit);
    let path = key.split_once("::").map_or(key, |(path, _)| path);
    (size > most).then(|| Problem {
        path: path.to_owned(),
        line,
        what: format!("{kind} `{key}` has {size} lines, {most} are allowed"),
        why: WHY,
        hint: "split it where its own headings would stand".to_owned(),
    })
}

fn stale(
    listed: &BTreeMap<String, usize>,
    now: &BTreeMap<String, usize>,
    limit: usize,
) -> impl Iterator<Item = Problem> {
    listed.iter().filter_map(move |(key, was)| {
        let size = now.get(key).copied().unwrap_or(0);
        (size < *was || *was <= limit).then(|| Problem {
            path: ratchet::PATH.to_owned(),
            line: 1,
            what: format!("`{key}` is listed with {was} lines and has {size}"),
            why: "what was won must not be lost again",
            hint: "run `cargo run -p tidy -- --lower`".to_owned(),
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tree;

    fn function_of(lines: usize) -> String {
        format!("fn long() {{\n{}}}\n", "    step();\n".repeat(lines))
    }

    #[test]
    fn limits_hold_at_the_line() {
        let ok =
            tree(&[("a/src/lib.rs", &function_of(FUNCTION_LIMIT)), ("a/src/b.rs", &"\n".repeat(FILE_LIMIT))]);
        assert_eq!(check(&ok, &Ratchet::default()), []);
        let bad = tree(&[
            ("a/src/lib.rs", &function_of(FUNCTION_LIMIT + 1)),
            ("a/src/b.rs", &"\n".repeat(FILE_LIMIT + 1)),
        ]);
        let found: Vec<String> = check(&bad, &Ratchet::default()).into_iter().map(|p| p.what).collect();
        assert_eq!(
            found,
            [
                "file `a/src/b.rs` has 601 lines, 600 are allowed",
                "function `a/src/lib.rs::long` has 61 lines, 60 are allowed"
            ]
        );
    }

    #[test]
    fn a_listed_sinner_may_stay_but_neither_grow_nor_keep_room() {
        let source = tree(&[("a/src/lib.rs", &function_of(70))]);
        let listed = |size| Ratchet {
            functions: [("a/src/lib.rs::long".to_owned(), size)].into(),
            ..Ratchet::default()
        };
        assert_eq!(check(&source, &listed(70)), []);
        assert_eq!(check(&source, &listed(69))[0].path, "a/src/lib.rs");
        assert_eq!(check(&source, &listed(71))[0].path, ratchet::PATH);
    }
}
