//! What is told while a database changes its primary.

use model::leadership::Term;

use super::*;
use crate::cli::testkit::{healthy, member, seen, shop};

const BEFORE: Term = Term(0);

fn missing(change: impl FnOnce(&mut decide::agent::Overview)) -> Option<String> {
    let mut overview = healthy(&shop(), "e1");
    change(&mut overview);
    Before { database: "orders".into(), term: BEFORE }.takeover_missing(&seen(shop(), overview))
}

#[test]
fn a_new_term_that_serves_everywhere_is_done() {
    assert_eq!(missing(|_| {}), None);
}

#[test]
fn every_step_on_the_way_is_told() {
    let record = |change: fn(&mut model::leadership::Leadership)| {
        missing(|overview| change(overview.databases.get_mut("orders").unwrap()))
    };
    assert_eq!(
        record(|record| record.phase = Phase::HandingOver { from: "e1".into(), to: "w1".into() }).unwrap(),
        "e1 is shutting down, w1 receives the rest"
    );
    assert_eq!(
        missing(|overview| {
            overview.databases.get_mut("orders").unwrap().phase =
                Phase::Revoking { former: "e1".into(), prefer: None, forced: None };
            overview.because.insert(
                "database/orders leadership".to_owned(),
                "e1 has been silent on every line for 310 ms".to_owned(),
            );
        })
        .unwrap(),
        "e1 has been silent on every line for some time"
    );
    assert_eq!(
        missing(|overview| member(overview, "orders", "e1").tenure = None).unwrap(),
        "term 1: e1 is being promoted"
    );
    assert_eq!(
        missing(|overview| {
            let target = &mut overview.routes.routes[1].target;
            let RouteTarget::Database(target) = target else {
                panic!("the second route leads to a database")
            };
            target.state = DatabaseRouteState::Parked { because: "it is not there yet".to_owned() };
        })
        .unwrap(),
        "e1 is promoted; the proxies of e1 do not lead to it yet"
    );
}

#[test]
fn the_old_term_is_not_taken_for_the_new_one() {
    let before = Before { database: "orders".into(), term: Term(1) };
    let view = seen(shop(), healthy(&shop(), "e1"));
    assert_eq!(before.takeover_missing(&view).unwrap(), "e1 still leads: commits are provably confirmed");
}

#[test]
fn redundancy_is_back_when_every_member_confirms() {
    let before = Before { database: "orders".into(), term: BEFORE };
    let mut overview = healthy(&shop(), "e1");
    assert_eq!(before.redundancy_missing(&seen(shop(), overview.clone())), None);
    member(&mut overview, "orders", "n1").server = Server::Busy { doing: "rejoining".to_owned() };
    let Server::Primary(facts) = &mut member(&mut overview, "orders", "e1").server else {
        panic!("e1 is the primary")
    };
    facts.standbys.remove("n1");
    assert_eq!(before.redundancy_missing(&seen(shop(), overview)).unwrap(), "n1 is rejoining");
}
