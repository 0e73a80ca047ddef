//! What people do.

use super::super::catalogue::{Drill, Layer};
use super::super::plan::{Expectation, failover};
use super::super::step::Step;

const OPERATOR: Drill = Drill { layer: Layer::Operator, ..Drill::PLAIN };

pub(super) static DRILLS: &[Drill] = &[Drill {
    name: "switchover",
    summary: "hands the primary over to a standby in an orderly way",
    expectation: Expectation {
        errors_allowed: false,
        must_notice: false,
        ..failover(
            "another member is the primary, and no client that came through the route saw an error",
            200,
        )
    },
    acts: |cast| vec![Step::Switchover(cast.primary.clone())],
    ..OPERATOR
}];
