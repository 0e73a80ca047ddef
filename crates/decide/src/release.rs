//! How does a new release of a service take over, and is it as good as the one before?
//!
//! A rollout is a list of steps, each of which says how many instances of the new and the old release there are and which
//! part of the requests the new one gets. A step is over when all new instances are ready, every proxy obeys, they have
//! worked for a while, and requests have fared as well with them as with the old ones on the same proxies meanwhile.
//! Anything else ends in a rollback, for which the old instances that still run get all requests again at once.

pub mod before;

use std::time::Duration;

use model::NodeName;
use model::release::{FailedRun, Phase, Rollout, Service, Strategy};
use model::routes::Tally;

use before::Errand;

/// How long the copies to all nodes may take.
const STAGE_LIMIT: Duration = Duration::from_secs(120);

/// A step without enough requests to compare is over after so many times its time.
const PATIENCE: u32 = 5;

/// In one step of a rolling release at most this part of the instances is replaced.
const PARTS: u32 = 4;

/// Fewer failures than this are chance.
const FEWEST_FAILURES: u64 = 5;

/// How many times as long the middle request may take.
const SLOWER: u64 = 2;

/// And how much longer at least, in microseconds, so that what a scheduler adds to quick answers is no slowness.
const SLOWER_US: u64 = 2_000;

/// What there is of a service in one step of a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Instances of the new release.
    pub new: u32,
    /// Instances of the old one.
    pub old: u32,
    /// The part of all requests, of a thousand, that the new ones get; `None`: as many as any other instance.
    pub share: Option<u16>,
    /// Of a hundred, how much of the time of the rollout's bake the step takes.
    pub bake: u32,
}

/// The steps of a rollout of a service with so many instances.
pub fn steps(strategy: &Strategy, instances: u32) -> Vec<Step> {
    let all = instances.max(1);
    match strategy {
        Strategy::Rolling => {
            let batch = all.div_ceil(PARTS);
            let begins = (0..all.div_ceil(batch)).map(|part| part * batch);
            begins
                .map(|before| Step {
                    new: (before + batch).min(all),
                    old: all - before,
                    share: None,
                    bake: if before == 0 { 100 } else { 33 },
                })
                .collect()
        }
        Strategy::Canary(percents) => {
            let part = |percent: u8| (all * u32::from(percent)).div_ceil(100).clamp(1, all);
            let steps = percents.iter().map(|percent| Step {
                new: part(*percent),
                old: all,
                share: Some(u16::from(*percent) * 10),
                bake: 100,
            });
            steps.chain([Step { new: all, old: all, share: Some(1000), bake: 50 }]).collect()
        }
        Strategy::BlueGreen => vec![
            Step { new: all, old: all, share: Some(0), bake: 0 },
            Step { new: all, old: all, share: Some(1000), bake: 100 },
        ],
    }
}

/// The step that a rollout is in; `None` while nothing has changed yet, or everything goes back.
pub fn step(rollout: &Rollout, instances: u32) -> Option<Step> {
    match rollout.phase {
        Phase::Staging | Phase::Before | Phase::RollingBack => None,
        Phase::Step(number) => {
            let steps = steps(&rollout.strategy, instances);
            let last = steps.len().saturating_sub(1);
            steps.get(usize::try_from(number).unwrap_or(usize::MAX).min(last)).copied()
        }
    }
}

/// How the instances of the new release do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// How many take requests.
    pub ready: u32,
    /// Those that ended by themselves.
    pub ended: Vec<String>,
    /// Those that were ready and are not any more.
    pub sick: Vec<String>,
    /// Whether any is left.
    pub any: bool,
}

/// What is known of a rollout.
pub struct Question<'a> {
    /// The releases of the service.
    pub service: &'a Service,
    /// How many instances shall run.
    pub instances: u32,
    /// Nodes that take part and have not got the artefact yet.
    pub unstaged: &'a [NodeName],
    /// The instances of the new release.
    pub news: &'a News,
    /// Whether every proxy obeys the placement in force.
    pub obeyed: bool,
    /// How long this leader has been seeing the step.
    pub waited: Duration,
    /// How long of it all new instances were ready, and every proxy obeyed.
    pub baked: Duration,
    /// What old instances did with requests since then.
    pub old: &'a Tally,
    /// What they did since the rollout's first step, as far as this leader has seen it.
    pub earlier: &'a Tally,
    /// What new instances did with requests since then.
    pub new: &'a Tally,
    /// How far the run is that must succeed before the first step.
    pub errand: Option<&'a Errand>,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing for now; one sentence says what is waited for.
    Wait(String),
    /// The record changes.
    Next(Box<Service>),
}

/// What a rollout does next; `None` when there is none.
pub fn decide(question: &Question<'_>) -> Option<Decision> {
    let rollout = question.service.rollout.as_ref()?;
    Some(match rollout.phase {
        Phase::Staging => staging(question, rollout),
        Phase::Before => before_it(question),
        Phase::Step(number) => in_step(question, rollout, number),
        Phase::RollingBack => rolling_back(question),
    })
}

fn staging(question: &Question<'_>, rollout: &Rollout) -> Decision {
    match question.unstaged {
        [] if rollout.before.is_some() => {
            changed(question, Phase::Before, "every node has the artefact, and a job must run first")
        }
        [] => to_step(question, 0, "every node has the artefact"),
        nodes if question.waited >= STAGE_LIMIT => {
            let within = STAGE_LIMIT.as_secs();
            let because = format!("{} did not get the artefact within {within} s", listed(nodes));
            not_begun(question, &because, None)
        }
        nodes => {
            Decision::Wait(format!("{} to be copied to {}", rollout.release.digest.short(), listed(nodes)))
        }
    }
}

/// Nothing has changed yet: a run that did not succeed ends the release, and leaves everything as it is.
fn before_it(question: &Question<'_>) -> Decision {
    match question.errand {
        None => to_step(question, 0, "no job has to run first"),
        Some(Errand::Open(awaited)) => Decision::Wait(awaited.clone()),
        Some(Errand::Done(run)) => to_step(question, 0, &format!("run {run} of its job succeeded")),
        Some(Errand::Failed { because, run }) => not_begun(question, because, run.clone()),
    }
}

fn not_begun(question: &Question<'_>, because: &str, failed_run: Option<FailedRun>) -> Decision {
    let mut next = question.service.clone();
    if let Some(rollout) = &mut next.rollout {
        because.clone_into(&mut rollout.because);
    }
    next.abandoned_after(failed_run);
    Decision::Next(Box::new(next))
}

fn in_step(question: &Question<'_>, rollout: &Rollout, number: u32) -> Decision {
    let Some(step) = step(rollout, question.instances) else {
        return Decision::Wait("it is not in a step".to_owned());
    };
    if let Some(because) = fault(question, rollout, step) {
        return back(question, because);
    }
    let ready = question.news.ready;
    if ready < step.new {
        return Decision::Wait(format!("{ready} of {} new instances are ready", step.new));
    }
    if !question.obeyed {
        return Decision::Wait("not every proxy obeys the new routes yet".to_owned());
    }
    let bake = bake(rollout, step);
    if question.baked < bake {
        return Decision::Wait(format!(
            "watching {ready} new instances for {} s: {}",
            bake.as_secs_f32(),
            compared(question)
        ));
    }
    let few = question.new.all().min(question.old.all()) < rollout.sample;
    let compares = step.bake == 100 && matches!(rollout.strategy, Strategy::Canary(_));
    if compares && few && question.old.all() > 0 && question.baked < bake * PATIENCE {
        return Decision::Wait(format!("too few requests to compare: {}", compared(question)));
    }
    let last = steps(&rollout.strategy, question.instances).len();
    if usize::try_from(number + 1).unwrap_or(usize::MAX) < last {
        return to_step(
            question,
            number + 1,
            &format!("step {} went well: {}", number + 1, compared(question)),
        );
    }
    let mut next = question.service.clone();
    next.completed();
    Decision::Next(Box::new(next))
}

/// For how long the instances of a step must have worked.
fn bake(rollout: &Rollout, step: Step) -> Duration {
    Duration::from_millis(rollout.bake_ms) * step.bake / 100
}

/// What is wrong with the new release, if anything is.
fn fault(question: &Question<'_>, rollout: &Rollout, step: Step) -> Option<String> {
    let news = question.news;
    if !news.ended.is_empty() {
        return Some(format!("{} ended by itself", news.ended.join(", ")));
    }
    if !news.sick.is_empty() {
        return Some(format!("{} was ready and is not any more", news.sick.join(", ")));
    }
    let within = Duration::from_millis(rollout.ready_within_ms);
    if news.ready < step.new && question.waited >= within {
        let ready = news.ready;
        return Some(format!(
            "only {ready} of {} new instances were ready after {} s",
            step.new,
            within.as_secs()
        ));
    }
    let (old, new, sample) = (question.old, question.new, rollout.sample);
    // When all requests go to the new release, the old one's answers are of another time, and a busy moment is no slowness.
    let alone = step.share == Some(1000);
    let early = alone && question.baked < bake(rollout, step) / 2;
    let before = if alone { question.earlier } else { old };
    fails(old, new, sample).or_else(|| if early { None } else { slower(before, new, sample) })
}

/// Whether more requests fail with the new release, beyond chance.
pub fn fails(old: &Tally, new: &Tally, sample: u64) -> Option<String> {
    let is_enough = new.all() >= sample.clamp(FEWEST_FAILURES, 50);
    (is_enough && fails_more(old, new)).then(|| {
        format!(
            "{} of {} requests failed on the new release, {} of {} on the old one",
            new.bad,
            new.all(),
            old.bad,
            old.all()
        )
    })
}

/// Whether requests take longer with the new release, beyond chance.
pub fn slower(old: &Tally, new: &Tally, sample: u64) -> Option<String> {
    if new.good < sample.max(FEWEST_FAILURES) || old.good < sample {
        return None;
    }
    let (before, after) = (old.quantile_us(500)?, new.quantile_us(500)?);
    (after > before * SLOWER && after - before > SLOWER_US).then(|| {
        let ms = |us: u64| us as f64 / 1000.0;
        format!(
            "the middle request takes {:.1} ms on the new release, {:.1} ms on the old one",
            ms(after),
            ms(before)
        )
    })
}

/// A test of two proportions: the failures are more by 3 standard deviations, and by 15 of 1000 requests. Without
/// old requests to compare with, a twentieth is too many.
fn fails_more(old: &Tally, new: &Tally) -> bool {
    if new.bad < FEWEST_FAILURES {
        return false;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    let (ob, on, nb, nn) = (old.bad as f64, old.all() as f64, new.bad as f64, new.all() as f64);
    if on == 0.0 {
        return nb / nn >= 0.05;
    }
    let pooled = (ob + nb) / (on + nn);
    let deviation = (pooled * (1.0 - pooled) * (1.0 / on + 1.0 / nn)).sqrt();
    let difference = nb / nn - ob / on;
    difference > 0.015 && difference > 3.0 * deviation
}

fn rolling_back(question: &Question<'_>) -> Decision {
    if question.news.any {
        return Decision::Wait("the old release takes over again".to_owned());
    }
    let mut next = question.service.clone();
    next.abandoned();
    Decision::Next(Box::new(next))
}

fn to_step(question: &Question<'_>, number: u32, because: &str) -> Decision {
    changed(question, Phase::Step(number), because)
}

fn back(question: &Question<'_>, because: String) -> Decision {
    changed(question, Phase::RollingBack, &because)
}

fn changed(question: &Question<'_>, phase: Phase, because: &str) -> Decision {
    let mut next = question.service.clone();
    if let Some(rollout) = &mut next.rollout {
        rollout.phase = phase;
        because.clone_into(&mut rollout.because);
    }
    Decision::Next(Box::new(next))
}

fn compared(question: &Question<'_>) -> String {
    let said = |tally: &Tally| match tally.quantile_us(500) {
        Some(us) => {
            format!("{} requests, {} failed, middle {:.1} ms", tally.all(), tally.bad, us as f64 / 1000.0)
        }
        None => format!("{} requests, {} failed", tally.all(), tally.bad),
    };
    format!("new {}; old {}", said(question.new), said(question.old))
}

fn listed(nodes: &[NodeName]) -> String {
    nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
