//! What the leader sees to: runs that are due, runs that releases need, and the nodes that they are given to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use coordination::Revision;
use decide::agent::{Agent, Overview};
use decide::jobs::{self, Question};
use decide::release::before;
use effects::clock::wall_us;
use model::event::Severity;
use model::jobs::{JobRecord, RunState};
use model::release::Digest;
use model::system::{Job, System};
use model::{JobName, NodeName};
use tokio::time::Instant;

use super::{Keeper, Records, RunKey, commit, tell};

/// What the leader knows beside the records.
struct Circumstances {
    overview: Overview,
    lost: BTreeSet<NodeName>,
    /// Which nodes have the artefacts of releases.
    artefacts: BTreeMap<Digest, BTreeSet<NodeName>>,
}

impl Keeper {
    /// Decides what only the leader may.
    pub(super) async fn lead(&mut self, system: &System, known: &Records) {
        let me = self.shared.me.clone();
        let ask = move |agent: &Agent| (agent.leader() == Some(&me)).then(|| circumstances(agent));
        let Some(now) = self.shared.inputs.ask(ask).await.flatten() else { return self.unbegun.clear() };
        if now.overview.paused.is_some() {
            return;
        }
        self.note_unbegun(known);
        self.ask_for_releases(system, known, &now.overview).await;
        for (name, job) in &system.jobs {
            self.lead_job(system, known, &now, name, job).await;
        }
    }

    async fn lead_job(
        &self,
        system: &System,
        known: &Records,
        now: &Circumstances,
        name: &JobName,
        job: &Job,
    ) {
        let stored = known.get(name);
        let record = stored.map(|(_, record)| record);
        let able = able(system, now, name, job, record);
        let standing = record.map_or(jobs::Standing::Wanted, |record| self.standing(now, name, record));
        let (now_us, lost) = (wall_us(), &now.lost);
        let question = Question { job, record, now_us, able: &able, lost, standing: &standing };
        let Some(decision) = jobs::lead(&question) else { return };
        let revision = stored.map_or(Revision(0), |(revision, _)| *revision);
        if commit(&self.shared, name, revision, &decision.next).await
            && let Some(because) = decision.because
        {
            let is_unknown =
                matches!(decision.next.last().map(|run| &run.state), Some(RunState::Unknown { .. }));
            let severity = if is_unknown { Severity::Warning } else { Severity::Info };
            tell(&self.shared, name, severity, "a run of a job is decided on", &because);
        }
    }

    /// Asks for the runs that releases need. Those that have theirs get no second one.
    async fn ask_for_releases(&self, system: &System, known: &Records, overview: &Overview) {
        for (name, by) in before::needed(&overview.releases) {
            if !system.jobs.contains_key(name) {
                continue;
            }
            let stored = known.get(name);
            let asked = jobs::request(name, stored.map(|(_, record)| record), &by, false);
            // While another run is under way it is asked again at the next look.
            if let Ok((Some(next), number)) = asked {
                let revision = stored.map_or(Revision(0), |(revision, _)| *revision);
                if commit(&self.shared, name, revision, &next).await {
                    let what = format!("run {number} is asked for");
                    tell(&self.shared, name, Severity::Info, &what, &format!("{by} needs it"));
                }
            }
        }
    }

    /// Remembers since when runs wait for their beginning.
    fn note_unbegun(&mut self, known: &Records) {
        let open = known.iter().filter_map(|(name, (_, record))| Some((name, record.last()?)));
        let keys: BTreeSet<RunKey> = open
            .filter(|(_, run)| run.state.times().0.is_none() && run.state.is_open())
            .map(|(name, run)| (name.clone(), run.number))
            .collect();
        self.unbegun.retain(|key, _| keys.contains(key));
        for key in keys {
            self.unbegun.entry(key).or_insert_with(Instant::now);
        }
    }

    /// Whether the newest run of a job is still to begin.
    fn standing(&self, now: &Circumstances, name: &JobName, record: &JobRecord) -> jobs::Standing {
        let waiting = before::needed(&now.overview.releases).into_iter().map(|(_, by)| by).collect();
        let since = record.last().and_then(|run| self.unbegun.get(&(name.clone(), run.number)));
        jobs::standing(record, &waiting, since.map_or(Duration::ZERO, Instant::elapsed))
    }
}

fn circumstances(agent: &Agent) -> Circumstances {
    let overview = agent.overview();
    let digests = overview.releases.values().flat_map(model::release::Service::kept);
    let holders = |digest: &Digest| {
        let nodes = overview.nodes.keys().filter(|node| agent.has_artefact(node, digest));
        nodes.cloned().collect()
    };
    let artefacts = digests.map(|digest| (digest.clone(), holders(&digest))).collect();
    Circumstances { lost: agent.lost_nodes(), artefacts, overview }
}

/// The nodes that can run a job now, in the order of their names.
fn able(
    system: &System,
    now: &Circumstances,
    name: &JobName,
    job: &Job,
    record: Option<&JobRecord>,
) -> Vec<NodeName> {
    let is_heard = |node: &NodeName| {
        now.overview.nodes.get(node).is_some_and(|node| node.heard && node.silent.is_none())
    };
    let by = record.and_then(|record| jobs::asked_by(record, record.last()?));
    let artefact = before::artefact(&now.overview.releases, system, name, by).filter(|_| job.needs_release());
    let has_it = |node: &NodeName| {
        artefact.and_then(|digest| now.artefacts.get(digest)).is_none_or(|nodes| nodes.contains(node))
    };
    system
        .workers()
        .filter(|(node, at)| job.placement.allows(node, &at.site) && is_heard(node) && has_it(node))
        .filter(|(node, _)| !now.overview.upkeep.is_drained(node))
        .map(|(node, _)| node.clone())
        .collect()
}
