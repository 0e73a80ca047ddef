//! What a person sees, as snapshots.

use model::leadership::{Phase, Term};
use model::status::Server;

use super::*;
use crate::cli::output::Color;
use crate::cli::testkit::{healthy, member, set, shop, silence, view};

fn shown(view: &View) -> String {
    text(view, &Verdict::of(view), Output::new(Color::Never))
}

#[test]
fn a_healthy_system() {
    let system = shop();
    let answers = ["e1", "w1", "n1"].map(|me| healthy(&system, me));
    insta::assert_snapshot!(shown(&view(system, answers)));
}

#[test]
fn a_standby_is_being_copied() {
    let system = shop();
    let mut overview = healthy(&system, "e1");
    overview.databases.get_mut("orders").unwrap().sync = set(1, &["w1"]);
    let member = member(&mut overview, "orders", "n1");
    member.server = Server::Busy { doing: "copying the primary".to_owned() };
    let mut copied = healthy(&system, "n1");
    copied.members.clone_from(&overview.members);
    let because = "n1 has no data, so it copies the primary e1".to_owned();
    copied.because.insert("database/orders on n1".to_owned(), because);
    insta::assert_snapshot!(shown(&view(system, [overview, copied])));
}

#[test]
fn both_standbys_are_gone() {
    let system = shop();
    let mut overview = healthy(&system, "e1");
    silence(&mut overview, "n1");
    silence(&mut overview, "w1");
    insta::assert_snapshot!(shown(&view(system, [overview])));
}

#[test]
fn a_failover_seen_from_both_sides_of_a_cut() {
    let system = shop();
    let mut isolated = healthy(&system, "e1");
    silence(&mut isolated, "w1");
    silence(&mut isolated, "n1");
    let rest = ["w1", "n1"].map(|me| {
        let mut overview = healthy(&system, me);
        overview.leader = Some("w1".into());
        silence(&mut overview, "e1");
        let record = overview.databases.get_mut("orders").unwrap();
        record.term = Term(2);
        record.phase = Phase::Revoking { former: "e1".into(), prefer: None, forced: None };
        record.because = "e1 has been silent on every line for 310 ms".to_owned();
        overview.because.insert(
            "database/orders leadership".to_owned(),
            "nobody is promoted yet: n1 may hold acknowledged writes and has not reported".to_owned(),
        );
        overview
    });
    insta::assert_snapshot!(shown(&view(system, rest.into_iter().chain([isolated]))));
}
