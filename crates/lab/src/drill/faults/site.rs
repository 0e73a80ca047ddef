//! Faults of whole sites and lines.

use std::time::Duration;

use super::super::act::{Act, EXPIRES, Ends, Needs};
use super::super::catalogue::{Drill, Layer};
use super::super::plan::{Change, Expectation, failover, nothing_happens};
use super::super::step::Step;
use super::network::HEAL_NODE;
use crate::fault::{CutOptions, Lines};
use crate::lab::Lab;

static CUT_FIRST_LINE: Act = Act {
    name: "cut-first-line",
    words: "cut {} from its first line",
    means: "the switch drops all it sends and should get there (nftables set elements with a timeout)",
    ends: Ends::ByKernel(EXPIRES),
    needs: Needs::TwoLines,
    inject: |lab, _, node| lab.cut_node(node, &cut_of(lab, 0)),
    ..Act::until(&HEAL_NODE)
};

static CUT_SECOND_LINE: Act = Act {
    name: "cut-second-line",
    words: "cut {} from its second line",
    means: "the switch drops all it sends and should get there (nftables set elements with a timeout)",
    ends: Ends::ByKernel(EXPIRES),
    needs: Needs::TwoLines,
    inject: |lab, _, node| lab.cut_node(node, &cut_of(lab, 1)),
    ..Act::until(&HEAL_NODE)
};

/// The cut of the system's line of this number.
fn cut_of(lab: &Lab, number: usize) -> CutOptions {
    let line = lab.manifest().lines.get(number).map(|line| line.name.clone());
    CutOptions { lines: Lines::Only(line.into_iter().collect()), ..CutOptions::whole().lasting(EXPIRES) }
}

pub(super) const ACTS: &[&Act] = &[&CUT_FIRST_LINE, &CUT_SECOND_LINE];

const SITE: Drill = Drill { layer: Layer::Site, ..Drill::PLAIN };

pub(super) static DRILLS: &[Drill] = &[
    Drill {
        name: "site-loss",
        summary: "takes the power from every node of the primary's site",
        expectation: failover("a standby at another site takes over, and the site comes back", 900),
        acts: |cast| vec![Step::KillNodes(cast.site_of(&cast.primary))],
        ..SITE
    },
    Drill {
        name: "site-cut",
        summary: "cuts the primary's site from the others; inside it everybody hears each other, and clients hear all",
        expectation: failover(
            "a standby at another site takes over, and the healed site disturbs nobody",
            2000,
        )
        .within(5),
        acts: |cast| vec![Step::CutApart(cast.site_of(&cast.primary))],
        ..SITE
    },
    Drill {
        name: "standby-site-loss",
        summary: "takes the power from every node of a standby's site",
        expectation: Expectation {
            primary: Change::Stays,
            ..failover("writes go on with the standbys elsewhere, and the site comes back", 200)
        },
        acts: |cast| {
            let site = cast.standbys.iter().map(|node| cast.site_of(node));
            site.filter(|site| !site.contains(&cast.primary)).take(1).map(Step::KillNodes).collect()
        },
        ..SITE
    },
    Drill {
        name: "line-cut-first",
        summary: "cuts the first line of all nodes, the one that is used when nothing is wrong",
        expectation: LINE_CUT,
        acts: |cast| cast.on_all(&CUT_FIRST_LINE),
        ..SITE
    },
    Drill {
        name: "line-cut-second",
        summary: "cuts the second line of all nodes",
        expectation: Expectation {
            must_notice: true,
            ..nothing_happens(
                "clients notice nothing: everything goes over the first line; status names the dead one",
            )
        },
        acts: |cast| cast.on_all(&CUT_SECOND_LINE),
        ..SITE
    },
    Drill {
        name: "line-cut-primary",
        summary: "cuts the primary's node from its first line",
        expectation: LINE_CUT,
        acts: |cast| cast.on_primary(&CUT_FIRST_LINE),
        ..SITE
    },
];

const LINE_CUT: Expectation = Expectation {
    primary: Change::Any,
    outage: Some(Duration::from_secs(2)),
    worst: 1,
    ..failover("everything goes on over the other line", 2000)
};
