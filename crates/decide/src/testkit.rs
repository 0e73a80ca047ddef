//! Short words for tests: members, records and views in one line each.

use std::collections::BTreeMap;

use model::NodeName;
use model::leadership::{Leadership, Phase, SyncSet, Term};
use model::postgres::{Lsn, Timeline, WalPosition};
use model::status::{
    Holdings, MemberStatus, PrimaryFacts, Report, Server, StandbyFacts, StandbyLink, Tenure,
};
use model::time::Moment;

use crate::view::{LEASE, MemberView, Members, Reach, Rules};

pub(crate) fn at(ms: u64) -> Moment {
    Moment::from_millis(ms)
}

pub(crate) fn rules() -> Rules {
    Rules { members: ["a", "b", "c"].map(NodeName::from).to_vec(), k: 1, lease: LEASE }
}

pub(crate) fn any_one(members: &[&str]) -> SyncSet {
    SyncSet { k: 1, members: members.iter().map(|m| NodeName::from(*m)).collect() }
}

pub(crate) fn led(term: u64, primary: &str, sync: &[&str]) -> Leadership {
    record(term, Phase::Led { primary: primary.into() }, sync)
}

pub(crate) fn revoking(term: u64, former: &str, sync: &[&str]) -> Leadership {
    record(term, Phase::Revoking { former: former.into(), prefer: None, forced: None }, sync)
}

pub(crate) fn record(term: u64, phase: Phase, sync: &[&str]) -> Leadership {
    Leadership {
        term: Term(term),
        phase,
        sync: any_one(sync),
        sync_version: 1,
        previous_sync: vec![],
        system_identifier: Some(1),
        lineage: vec![],
        restart: None,
        handed_on: 0,
        because: String::new(),
    }
}

pub(crate) fn position(timeline: u32, lsn: u64) -> WalPosition {
    WalPosition { timeline: Timeline(timeline), lsn: Lsn(lsn) }
}

pub(crate) fn standby(promised: u64, lsn: u64) -> MemberStatus {
    let facts = StandbyFacts {
        position: position(1, lsn),
        replayed: Lsn(lsn),
        streaming: true,
        follows: Term(promised),
        started_us: 1,
    };
    MemberStatus { promised: Term(promised), server: Server::Standby(facts), ..MemberStatus::unknown() }
}

pub(crate) fn reported(term: u64, lsn: u64) -> MemberStatus {
    let mut status = standby(term, lsn);
    status.report = Some(Report { term: Term(term), holds: Holdings::Upto(position(1, lsn)) });
    status
}

pub(crate) fn primary(term: u64, lsn: u64, links: &[(&str, StandbyLink)], applied: u64) -> MemberStatus {
    let standbys = links.iter().map(|(name, link)| (NodeName::from(*name), link.clone())).collect();
    let facts = PrimaryFacts { position: position(1, lsn), standbys, waiting_commits: 0, started_us: 1 };
    MemberStatus {
        promised: Term(term),
        server: Server::Primary(facts),
        led: Some(Term(term)),
        tenure: Some(Tenure {
            term: Term(term),
            timeline: Timeline(1),
            begins: Lsn(0),
            made_in: None,
            system_identifier: Some(1),
            sync_applied: Some(applied),
        }),
        ..MemberStatus::unknown()
    }
}

pub(crate) fn streams(lsn: u64) -> StandbyLink {
    StandbyLink { streaming: true, flushed: Lsn(lsn), stalled_ms: 0 }
}

pub(crate) fn alive(status: MemberStatus) -> MemberView {
    MemberView { reach: Reach::Alive, status }
}

pub(crate) fn dead(status: MemberStatus) -> MemberView {
    MemberView { reach: Reach::Dead { since: at(0) }, status }
}

pub(crate) fn members(views: [(&str, MemberView); 3]) -> Members {
    BTreeMap::from(views.map(|(name, view)| (NodeName::from(name), view)))
}
