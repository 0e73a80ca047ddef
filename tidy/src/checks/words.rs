//! Words that must not be in the tree.

use crate::code;
use crate::problem::Problem;
use crate::tree::{SourceFile, Tree};

/// A forbidden text, why, and what to do instead.
struct Ban {
    text: &'static str,
    why: &'static str,
    hint: &'static str,
}

const UNFINISHED: &str =
    "what is committed works; unfinished work is tracked where work is tracked, not in the code";
const SKIPPED: &str = "a test that never runs proves nothing and looks as if it did";
const MACHINE: &str = "the tree must build and run on any machine, for any user";
const REGISTRY: &str = "where packages come from is the business of the machine's own package clients";

/// Forbidden in Rust code (comments and strings do not count).
const IN_CODE: [Ban; 3] = [
    Ban {
        text: concat!("todo", "!"),
        why: UNFINISHED,
        hint: "write it, or return an error that says what is missing",
    },
    Ban { text: concat!("unimplemented", "!"), why: UNFINISHED, hint: "write it, or leave the item out" },
    Ban { text: concat!("#[ign", "ore"), why: SKIPPED, hint: "make it run, or delete it" },
];

/// Forbidden everywhere as a word of its own.
const ANYWHERE: [Ban; 2] = [
    Ban { text: concat!("FIX", "ME"), why: UNFINISHED, hint: "repair it now" },
    Ban { text: concat!("XX", "X"), why: UNFINISHED, hint: "say in plain words what a reader must know" },
];

/// Forbidden everywhere as the beginning of an absolute path.
const PATHS: [&str; 4] =
    [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/Us", "ers/")];

/// Forbidden everywhere: hosts that serve packages.
const HOSTS: [&str; 9] = [
    concat!("crates", ".io"),
    concat!("pypi", ".org"),
    concat!("pythonhosted", ".org"),
    concat!("npmjs", ".org"),
    concat!("deb.debian", ".org"),
    concat!("security.debian", ".org"),
    concat!("apt.postgresql", ".org"),
    concat!("proxy.golang", ".org"),
    concat!("get.nexte", ".st"),
];

/// Files that others generate or that are quoted whole.
const EXEMPT: [&str; 3] = ["Cargo.lock", "LICENSE-APACHE", "LICENSE-MIT"];

/// Reports every forbidden word.
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    let mut problems = Vec::new();
    for file in tree.files().filter(|file| !EXEMPT.contains(&file.path.as_str())) {
        if file.path.ends_with(".rs") {
            problems.extend(in_code(file));
        }
        problems.extend(anywhere(file));
    }
    problems
}

fn in_code(file: &SourceFile) -> Vec<Problem> {
    let masked = code::mask(&file.text);
    let hits = |ban: &'static Ban| {
        let at = masked.match_indices(ban.text).map(|(at, _)| at);
        at.map(|at| problem(file, code::line_of(&masked, at), ban.text, ban.why, ban.hint))
            .collect::<Vec<_>>()
    };
    IN_CODE.iter().flat_map(hits).collect()
}

fn anywhere(file: &SourceFile) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (number, line) in file.lines() {
        for ban in ANYWHERE.iter().filter(|ban| code::words(line, ban.text).next().is_some()) {
            problems.push(problem(file, number, ban.text, ban.why, ban.hint));
        }
        for path in PATHS.into_iter().filter(|path| begins_a_path(line, path)) {
            problems.push(problem(
                file,
                number,
                path,
                MACHINE,
                "take the directory from an argument or the environment",
            ));
        }
        for host in HOSTS.into_iter().filter(|host| line.contains(host)) {
            problems.push(problem(file, number, host, REGISTRY, "use the client's own configuration"));
        }
    }
    problems
}

/// Whether an absolute path in `line` begins with `start` (inside `target` or `{dir}` it does not).
fn begins_a_path(line: &str, start: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | '}' | ')' | '~');
    line.match_indices(start).any(|(at, _)| !line[..at].ends_with(inside))
}

fn problem(file: &SourceFile, line: usize, text: &str, why: &'static str, hint: &str) -> Problem {
    Problem {
        path: file.path.clone(),
        line,
        what: format!("`{text}` stands here"),
        why,
        hint: hint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tree;

    fn lines_found(path: &str, text: &str) -> Vec<usize> {
        check(&tree(&[(path, text)])).into_iter().map(|p| p.line).collect()
    }

    #[test]
    fn each_forbidden_word_is_found_in_its_place() {
        for ban in &IN_CODE {
            let text = format!("\nfn a() {{}} {}", ban.text);
            assert_eq!(lines_found("crates/a/src/lib.rs", &text), [2], "{}", ban.text);
            assert_eq!(lines_found("crates/a/src/lib.rs", &format!("// {}\n", ban.text)), [0; 0]);
        }
        for text in ANYWHERE.iter().map(|ban| ban.text).chain(HOSTS) {
            assert_eq!(lines_found("docs/a.md", &format!("one\nsee {text} there")), [2], "{text}");
        }
        for start in PATHS {
            assert_eq!(lines_found("scripts/a.sh", &format!("cd {start}me")), [1], "{start}");
            assert_eq!(lines_found("scripts/a.sh", &format!("cd a{start}me $dir/b")), [0; 0], "{start}");
        }
    }

    #[test]
    fn a_template_of_many_letters_is_not_a_word() {
        assert_eq!(lines_found("scripts/a.sh", &format!("mktemp a.{}", "X".repeat(6))), [0; 0]);
    }
}
