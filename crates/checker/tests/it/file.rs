//! Histories from strangers' files.

use checker::append::Level;
use checker::file::History;
use proptest::prelude::*;

use crate::generate::bank::Amounts;
use crate::generate::register::Values;
use crate::generate::{self, USUAL};
use crate::rng::Rng;

fn every_kind(seed: u64) -> [History; 4] {
    let mut rng = Rng::new(seed);
    let (bank, transfers) = generate::bank::generate(&mut rng, Amounts::Any);
    let (append, lists) = generate::append::generate(&mut rng, Level::RepeatableRead, USUAL);
    [
        History::Set(generate::set::generate(&mut rng)),
        History::Bank(bank, transfers),
        History::Append(append, lists),
        History::Register(generate::register::generate(&mut rng, Values::Few, 2, USUAL)),
    ]
}

#[test]
fn what_was_written_is_read_again() {
    for seed in 0..50 {
        for history in every_kind(seed) {
            assert_eq!(History::parse(&history.to_text()), Ok(history));
        }
    }
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let add = r#"{"client":1,"from":10,"is":"ok","until":20,"do":{"add":1}}"#;
    let second = |line: &str| format!("{{\"set\":{{}}}}\n{add}\n{line}\n");
    let cases = [
        (String::new(), "line 1: the file is empty"),
        ("{\"sets\":{}}".to_owned(), "line 1: unknown variant `sets`"),
        (second("nonsense"), "line 3: expected"),
        (
            second(r#"{"client":1,"from":10,"is":"ok","do":{"add":2}}"#),
            "line 3: an acknowledged operation needs `until`",
        ),
        (
            second(r#"{"client":1,"from":10,"is":"ok","until":9,"do":{"add":2}}"#),
            "line 3: `until` lies before `from`",
        ),
        (
            second(r#"{"client":1,"from":10,"is":"failed","until":11,"do":{"add":2}}"#),
            "line 3: only an acknowledged operation has `until`",
        ),
        (
            second(r#"{"client":1,"from":10,"is":"ok","until":11,"do":{"read":null}}"#),
            "line 3: an acknowledged read needs its answer",
        ),
        (
            second(r#"{"client":1,"from":10,"is":"perhaps","do":{"add":2}}"#),
            "line 3: unknown variant `perhaps`",
        ),
        (second(r#"{"client":1,"from":10,"is":"unknown","do":{"add":-2}}"#), "line 3: invalid value"),
        (
            second(r#"{"client":1,"from":10,"is":"unknown","do":{"add":2},"x":1}"#),
            "line 3: unknown field `x`",
        ),
        (second(&"[".repeat(100_000)), "line 3: "),
    ];
    for (text, expected) in cases {
        let error = History::parse(&text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error:?} instead of {expected:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_answered(text in any::<String>()) {
        let _ = History::parse(&text);
        let _ = History::parse(&format!("{{\"set\":{{}}}}\n{text}"));
    }

    /// Real files with bytes changed, cut and repeated: read or refused, and what is read is judged.
    #[test]
    fn a_damaged_file_is_read_or_refused(seed in 0_u64..1000, kind in 0_usize..4, damage in prop::collection::vec((any::<u32>(), 0_u8..5, any::<u8>()), 1..12)) {
        let mut bytes = every_kind(seed)[kind].to_text().into_bytes();
        for (place, how, with) in damage {
            let place = place as usize % bytes.len().max(1);
            match how {
                0 => bytes.truncate(place.max(200)),
                1 => bytes[place] = with,
                2 => bytes[place] = b'0' + with % 10,
                3 => { bytes.remove(place); }
                _ => bytes.insert(place, b"0123456789,[]{}\"-"[usize::from(with) % 17]),
            }
        }
        if let Ok(history) = History::parse(&String::from_utf8_lossy(&bytes)) {
            let _ = history.verdict();
            prop_assert_eq!(History::parse(&history.to_text()), Ok(history));
        }
    }
}
