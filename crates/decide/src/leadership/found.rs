//! The first leadership: who creates the database, and when is it founded?

use model::NodeName;
use model::leadership::{Leadership, Phase, Term};
use model::status::Server;

use super::{Question, listed, word};
use crate::view::{Decision, Reach};

/// No record yet: somebody founds, but only once every member has said that it holds no data. Data without a record
/// belongs to somebody; it is never overwritten.
pub(super) fn first_record(question: &Question<'_>) -> Decision<Leadership> {
    let unheard: Vec<&NodeName> =
        question.rules.members.iter().filter(|node| !is_heard(question, node)).collect();
    if !unheard.is_empty() {
        let (it, holds) = (word(&unheard, "it", "they"), word(&unheard, "holds", "hold"));
        let who = listed(unheard);
        return Decision::wait(format!(
            "waiting for {who} to say whether {it} {holds} data before the database is created"
        ));
    }
    let holders: Vec<&NodeName> =
        question.rules.members.iter().filter(|node| !is_empty(question, node)).collect();
    if !holders.is_empty() {
        let holds = word(&holders, "holds", "hold");
        let who = listed(holders);
        return Decision::wait(format!(
            "{who} {holds} data although the system has no record of this database; move it away to create a new one"
        ));
    }
    let Some(by) = question.rules.members.first() else {
        return Decision::wait("the database has no members");
    };
    Decision::act(
        founding_record(question, Term(1), by),
        format!("no member holds data, {by} is first in the file"),
    )
}

fn founding_record(question: &Question<'_>, term: Term, by: &NodeName) -> Leadership {
    Leadership {
        term,
        phase: Phase::Founding { by: by.clone() },
        sync: question.rules.sync_set([]),
        sync_version: 1,
        previous_sync: vec![],
        system_identifier: None,
        lineage: vec![],
        restart: None,
        handed_on: 0,
        because: format!("{by} creates the database"),
    }
}

fn is_heard(question: &Question<'_>, node: &NodeName) -> bool {
    question.members.get(node).is_some_and(|view| view.is_present() && view.status.server != Server::Unknown)
}

fn is_empty(question: &Question<'_>, node: &NodeName) -> bool {
    question.members.get(node).is_some_and(|view| view.status.server == Server::Empty)
}

/// `by` is creating the database.
pub(super) fn founding(question: &Question<'_>, record: &Leadership, by: &NodeName) -> Decision<Leadership> {
    let Some(view) = question.members.get(by) else {
        return Decision::wait(format!("{by}, which creates the database, is not a member any more"));
    };
    if let Some(tenure) = view.tenure(record.term).filter(|_| view.is_present()) {
        let because = format!("{by} has created the database");
        let next = Leadership {
            phase: Phase::Led { primary: by.clone() },
            system_identifier: tenure.system_identifier,
            because: because.clone(),
            ..record.clone()
        };
        return Decision::act(next, because);
    }
    if let Reach::Dead { .. } = view.reach {
        return pass_on(question, record, by);
    }
    Decision::wait(format!("{by} is creating the database"))
}

/// The founder died: nothing was ever acknowledged, so another member may begin anew. What the first one left has another
/// system identifier and is put aside when it returns.
fn pass_on(question: &Question<'_>, record: &Leadership, by: &NodeName) -> Decision<Leadership> {
    let next = question
        .rules
        .members
        .iter()
        .find(|node| *node != by && is_heard(question, node) && is_empty(question, node));
    match next {
        Some(node) => Decision::act(
            founding_record(question, record.term.next(), node),
            format!("{by} died while it created the database; {node} begins anew"),
        ),
        None => {
            Decision::wait(format!("{by} died while it created the database, and no empty member is there"))
        }
    }
}
