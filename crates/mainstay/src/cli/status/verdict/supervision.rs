//! What the supervisors of instances report: crash loops with the last words, memory that is not limited.

use model::ServiceName;
use model::status::InstanceNote;

use super::troubles::trouble;
use super::{Level, Trouble};
use crate::cli::status::view::View;

/// Everything that is wrong with the instances of a service beyond their being ready or not.
pub(super) fn all(view: &View, service: &ServiceName) -> Vec<Trouble> {
    let mut all = vec![];
    for instance in view.instances(service) {
        let Some(note) = view.note(&instance) else { continue };
        let subject = format!("service/{service}");
        if note.crash_loop {
            let mut what = format!("{} is in a crash loop: it {}", instance.id, sentence(note));
            if !note.last_lines.is_empty() {
                what += &format!("; it said last: {}", note.last_lines.join(" | "));
            }
            let doing = "it is started again after ever longer pauses, of 30 s at most";
            let unblock = format!("`mainstay logs {}` shows the rest", short(&instance.id));
            all.push(
                trouble(Level::Degraded, subject.clone(), what).doing(Some(doing)).unblock(Some(unblock)),
            );
        }
        if let Some(because) = &note.unlimited {
            let what = format!("the memory of {} is not limited: {because}", instance.id);
            let unblock =
                "let the agent run where it may make control groups, or remove `memory` from the file";
            all.push(trouble(Level::Degraded, subject, what).unblock(Some(unblock)));
        }
    }
    all
}

/// What is said of an instance, to follow its name.
pub(super) fn sentence(note: &InstanceNote) -> String {
    // States that are no verbs.
    let is_noun =
        ["starting", "not ready", "stopping", "stopped", "ready"].iter().any(|s| note.state.starts_with(s));
    if is_noun { format!("is {}", note.state) } else { note.state.clone() }
}

fn short(id: &str) -> &str {
    id.split('@').next().unwrap_or(id)
}
