//! Files that mean harm, or that a slip of the hand has made: never a panic, never a wrong place, never long.

use std::time::{Duration, Instant};

use model::system::{MAX_SIZE, parse, parse_change};
use proptest::prelude::*;

use super::read_valid;

/// Checks what must hold for any bytes.
fn must_hold(bytes: &[u8]) {
    let begin = Instant::now();
    let running = parse("running", read_valid("everything").as_bytes()).unwrap().system;
    let problems = match parse("x.toml", bytes) {
        Ok(checked) => {
            let again = serde_json::to_string(&checked.system).unwrap();
            assert_eq!(serde_json::from_str::<model::system::System>(&again).unwrap(), checked.system);
            checked.warnings
        }
        Err(invalid) => {
            assert!(!invalid.problems.is_empty());
            invalid.problems.into_iter().chain(invalid.warnings).collect()
        }
    };
    let lines = String::from_utf8_lossy(bytes).matches('\n').count() + 1;
    for problem in problems {
        assert!(problem.span.start <= problem.span.end && problem.span.end <= bytes.len(), "{problem:?}");
        assert!((1..=lines).contains(&problem.line) && problem.column >= 1, "{problem:?}");
        if let Ok(text) = std::str::from_utf8(bytes) {
            let spans = problem.others.iter().map(|other| &other.span).chain([&problem.span]);
            spans.for_each(|span| assert!(text.get(span.clone()).is_some(), "{span:?} of {problem:?}"));
        }
        let said = [&problem.message, &problem.why];
        said.into_iter()
            .for_each(|text| assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}"));
    }
    drop(parse_change("x.toml", bytes, &running));
    // A debug build on a busy machine; what is bounded takes a fraction of this, what is not takes minutes.
    assert!(begin.elapsed() < Duration::from_secs(20), "it took {:?}", begin.elapsed());
}

/// Texts that mean something to the reader.
const TOKENS: [&str; 24] = [
    "[",
    "]",
    "[[",
    "=",
    "\"",
    "\"\"\"",
    "'",
    "{",
    "}",
    "\n",
    ".",
    ",",
    "#",
    "-1",
    "99999999999999999999",
    "true",
    "1979-05-27",
    "nodes",
    "[nodes.e1]",
    "\u{1b}[31m",
    "ä",
    "\0",
    "{port}",
    "1e400",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_valid_file_with_slips_never_breaks_the_reader(
        file in prop::sample::select(vec!["everything", "shop", "etcd", "ipv6-and-lines", "two-sites"]),
        slips in prop::collection::vec((any::<prop::sample::Index>(), 0..6_usize, prop::sample::select(TOKENS.to_vec())), 1..8),
    ) {
        let mut text: Vec<char> = read_valid(file).chars().collect();
        for (place, removed, inserted) in slips {
            let at = place.index(text.len() + 1);
            let end = (at + removed).min(text.len());
            text.splice(at..end, inserted.chars());
        }
        must_hold(text.into_iter().collect::<String>().as_bytes());
    }

    #[test]
    fn lines_of_a_valid_file_in_any_order_never_break_the_reader(order in prop::collection::vec(any::<prop::sample::Index>(), 0..60)) {
        let text = read_valid("everything");
        let lines: Vec<&str> = text.lines().collect();
        let mixed: Vec<&str> = order.iter().map(|index| lines[index.index(lines.len())]).collect();
        must_hold(mixed.join("\n").as_bytes());
    }

    #[test]
    fn any_bytes_never_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        must_hold(&bytes);
    }
}

/// `unit` as often as a file may hold it, behind `head`.
fn full(head: &str, unit: impl Fn(usize) -> String) -> Vec<u8> {
    let mut text = head.to_owned();
    for i in 0.. {
        let next = unit(i);
        if text.len() + next.len() > MAX_SIZE {
            break;
        }
        text += &next;
    }
    text.into_bytes()
}

const HEAD: &str = "[system]\nname = \"x\"\n[nodes.e1]\naddress = \"10.0.0.1\"\n";

#[test]
fn deep_files_are_bounded() {
    for unit in ["[", "{a=", "a.", "[a.", "\"\"\"", "[["] {
        must_hold(&full("x = ", |_| unit.to_owned()));
        must_hold(&full("[", |_| unit.to_owned()));
    }
}

#[test]
fn wide_files_are_bounded() {
    must_hold(&full("", |i| format!("k{i}=1\n")));
    must_hold(&full(HEAD, |i| format!("[routes.r{i}]\nlisten=\":80\"\n")));
    must_hold(&full("[system]\nname=\"x\"\n", |i| format!("[nodes.n{i}]\n")));
    must_hold(&full(&format!("{HEAD}[databases.d]\nmembers=["), |i| format!("\"n{i}\",")));
    must_hold(&full(&format!("{HEAD}[services.s]\ncommand=[\""), |_| "{x}".to_owned()));
    must_hold(&full(&format!("{HEAD}[\"{}\"]\n", "y".repeat(MAX_SIZE / 2)), |i| format!("k{i}=1\n")));
}

#[test]
fn many_of_everything_is_bounded() {
    let many = |section: &str, body: &str| -> String {
        (0..1000).map(|i| format!("[{section}.n{i}]\n{body}\n")).collect()
    };
    let nodes: String = (0..256).map(|i| format!("[nodes.m{i}]\naddress=\"10.0.1.{i}\"\n")).collect();
    let text = format!(
        "[system]\nname=\"x\"\n{nodes}{}{}{}",
        many("databases", ""),
        many("services", "command=[\"./s\"]\nenv.A=\"{route.zzz.dsn}\""),
        many("routes", "listen=\"127.0.0.9:80\"\ndatabase=\"nope\""),
    );
    must_hold(text.as_bytes());
}
