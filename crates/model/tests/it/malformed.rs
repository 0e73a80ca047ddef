//! Files that must be refused. Their first line says with which codes; how a person sees them is snapshotted by the
//! command line's own tests.

use std::collections::BTreeSet;

use model::system::problem::MAX_PROBLEMS;
use model::system::{Code, MAX_SIZE, parse};

use super::{announced, files};

#[test]
fn every_malformed_file_is_refused_for_exactly_what_is_wrong_with_it() {
    for path in files("malformed") {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let Err(invalid) = parse(name, text.as_bytes()) else {
            panic!("{name} was accepted");
        };
        let mut found: Vec<&str> = invalid.problems.iter().map(|p| p.code.as_str()).collect();
        let mut expected = announced(&text, "expect");
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{name}:\n{invalid}");
    }
}

#[test]
fn every_problem_says_what_where_and_why() {
    for path in files("malformed") {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        let invalid = parse(name, text.as_bytes()).unwrap_err();
        for problem in &invalid.problems {
            assert!(!problem.message.is_empty() && !problem.why.is_empty(), "{problem}");
            let before = &text[..problem.span.start];
            assert_eq!(problem.line, before.matches('\n').count() + 1, "{problem}");
            assert!(problem.span.end <= text.len(), "{problem}");
        }
    }
}

/// Codes that need a file which nobody keeps in a folder; each has a test of its own.
const ELSEWHERE: [Code; 6] =
    [Code::TooLarge, Code::TooMany, Code::NotUtf8, Code::InvalidHost, Code::InvalidRange, Code::SharedListen];

#[test]
fn every_code_is_shown_by_a_file() {
    let read = |folder| files(folder).into_iter().map(|path| std::fs::read_to_string(path).unwrap());
    let refused = read("malformed").flat_map(|text| announced(&text, "expect"));
    let warned = read("valid").flat_map(|text| announced(&text, "warns"));
    let seen: BTreeSet<String> = refused.chain(warned).collect();
    let shown = |code: &Code| seen.contains(code.as_str()) || ELSEWHERE.contains(code);
    let missing: Vec<&Code> = Code::ALL.iter().filter(|code| !shown(code)).collect();
    assert!(missing.is_empty(), "no file shows {missing:?}");
}

/// The only code that refuses `bytes`.
fn only_code(bytes: &[u8]) -> Code {
    let invalid = parse("x.toml", bytes).unwrap_err();
    assert_eq!(invalid.problems.len(), 1, "{invalid}");
    invalid.problems[0].code
}

#[test]
fn a_file_that_is_no_text_is_refused() {
    assert_eq!(only_code(b"[system]\nname = \"\xff\""), Code::NotUtf8);
    let invalid = parse("x.toml", b"[system]\nname = \"\xff\"").unwrap_err();
    assert_eq!((invalid.problems[0].line, invalid.problems[0].column), (2, 9));
}

#[test]
fn a_file_that_is_too_large_is_refused() {
    assert_eq!(only_code(&vec![b'#'; MAX_SIZE + 1]), Code::TooLarge);
}

#[test]
fn a_system_has_bounds() {
    let mut text = "[system]\nname = \"many\"\n".to_owned();
    for i in 0..300 {
        text += &format!("[nodes.n{i}]\naddress = \"10.0.{}.{}\"\n", i / 200, i % 200 + 1);
    }
    assert_eq!(only_code(text.as_bytes()), Code::TooMany);
    let mut text = "[system]\nname = \"many\"\n[nodes.e1]\naddress = \"10.0.0.1\"\n".to_owned();
    for i in 0..1001 {
        text += &format!("[routes.r{i}]\nlisten = \":{}\"\n", i + 1);
    }
    assert_eq!(only_code(text.as_bytes()), Code::TooMany);
}

#[test]
fn no_more_problems_are_listed_than_a_person_reads() {
    let text: String = (0..5000).map(|i| format!("key{i} = 1\n")).collect();
    let invalid = parse("x.toml", text.as_bytes()).unwrap_err();
    assert_eq!(invalid.problems.len(), MAX_PROBLEMS);
    assert_eq!(invalid.left_out, 5000 + 2 - MAX_PROBLEMS);
}

/// What the file says after the hint of its only problem was pasted at its end.
fn pasted(name: &str) -> Result<model::system::Checked, model::system::Invalid> {
    let path = files("malformed").into_iter().find(|path| path.file_stem().unwrap() == name).unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let invalid = parse(name, text.as_bytes()).unwrap_err();
    let paste = invalid.problems[0].hint.as_ref().and_then(|hint| hint.paste.clone()).unwrap();
    parse(name, format!("{text}\n{paste}\n").as_bytes())
}

#[test]
fn what_a_hint_says_can_be_pasted() {
    for name in ["even-voters", "impossible-rpo-default", "same-site-only"] {
        pasted(name).unwrap_or_else(|invalid| panic!("{name}:\n{invalid}"));
    }
}

#[test]
fn a_line_that_a_hint_shows_puts_the_file_right() {
    for name in [
        "even-voters-chosen",
        "unknown-key",
        "unknown-references",
        "unknown-placeholder",
        "invalid-name",
        "numbers",
        "durations",
    ] {
        let path = files("malformed").into_iter().find(|path| path.file_stem().unwrap() == name).unwrap();
        let mut lines: Vec<String> =
            std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
        let problems = parse(name, lines.join("\n").as_bytes()).unwrap_err().problems;
        let mut shown: Vec<_> =
            problems.iter().filter(|p| p.hint.as_ref().is_some_and(|h| h.paste.is_some())).collect();
        // Two problems of one line show it twice, each with its own part put right.
        shown.dedup_by_key(|problem| problem.line);
        for problem in &shown {
            lines[problem.line - 1] = problem.hint.clone().unwrap().paste.unwrap();
        }
        let left = parse(name, lines.join("\n").as_bytes()).err().map_or(vec![], |invalid| invalid.problems);
        for problem in shown {
            let same = left
                .iter()
                .find(|l| l.line == problem.line && l.code == problem.code && l.message == problem.message);
            assert!(same.is_none(), "{problem}");
        }
    }
}
