//! What Patroni says of itself, node by node, and how it is asked for a switchover.

use std::time::Duration;

use model::NodeName;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Outcome;
use crate::http;
use crate::layout::{at, members};

use super::REST;

/// How long one node may take to answer.
const ANSWER: Duration = Duration::from_millis(700);

/// How long a switchover may take: Patroni answers when it is done.
const SWITCHOVER: Duration = Duration::from_secs(60);

/// Asks every node what it is; who does not answer is missing.
pub(crate) async fn ask_all() -> Vec<(NodeName, Value)> {
    let mut asked = JoinSet::new();
    for (node, address) in members() {
        asked.spawn(async move { (node, http::get(at(address, REST), "/patroni", ANSWER).await) });
    }
    let answers = asked.join_all().await;
    answers.into_iter().filter_map(|(node, answer)| Some((node, answer.ok()?))).collect()
}

/// Hands over from the primary's node to whichever standby Patroni chooses.
pub(crate) async fn switch_over(from: NodeName) -> Outcome<String> {
    let address = members().find(|(node, _)| *node == from).map(|(_, address)| address);
    let address = address.ok_or_else(|| format!("{from} has no member"))?;
    let body = json!({ "leader": from.as_str() }).to_string();
    match http::ask(at(address, REST), "POST", "/switchover", &body, SWITCHOVER).await? {
        (200, words) => Ok(words),
        (status, words) => Err(format!("Patroni refused with {status}: {words}")),
    }
}

/// The node that says that it is the primary and runs.
pub(crate) fn primary(answers: &[(NodeName, Value)]) -> Option<NodeName> {
    let leads = |answer: &Value| {
        matches!(answer["role"].as_str(), Some("primary" | "master"))
            && answer["state"].as_str() == Some("running")
    };
    answers.iter().find(|(_, answer)| leads(answer)).map(|(node, _)| node.clone())
}

/// What is missing from full redundancy, by the word of the nodes themselves.
pub(crate) fn missing(answers: &[(NodeName, Value)]) -> Option<String> {
    if let Some((silent, _)) = members().find(|(node, _)| !answers.iter().any(|(known, _)| known == node)) {
        return Some(format!("{silent} does not answer"));
    }
    let Some(primary) = primary(answers) else { return Some("there is no primary".to_owned()) };
    let (_, leader) = answers.iter().find(|(node, _)| *node == primary)?;
    for (node, answer) in answers.iter().filter(|(node, _)| *node != primary) {
        if answer["role"].as_str() != Some("replica") || answer["timeline"] != leader["timeline"] {
            return Some(format!("{node} does not follow {primary}"));
        }
    }
    let streams = |sender: &&Value| {
        sender["state"].as_str() == Some("streaming")
            && matches!(sender["sync_state"].as_str(), Some("sync" | "quorum"))
    };
    let confirming = leader["replication"].as_array().into_iter().flatten().filter(streams).count();
    (confirming + 1 < answers.len()).then(|| format!("{confirming} standbys confirm commits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Vec<(NodeName, Value)> {
        let sender = json!({ "state": "streaming", "sync_state": "quorum" });
        let replica = json!({ "role": "replica", "state": "running", "timeline": 2 });
        vec![
            ("n1".into(), replica.clone()),
            (
                "n2".into(),
                json!({ "role": "primary", "state": "running", "timeline": 2, "replication": [sender, sender] }),
            ),
            ("n3".into(), replica),
        ]
    }

    #[test]
    fn a_whole_system_lacks_nothing() {
        assert_eq!(missing(&whole()), None);
        assert_eq!(primary(&whole()), Some("n2".into()));
    }

    #[test]
    fn what_is_missing_is_named() {
        let told = |change: fn(&mut Vec<(NodeName, Value)>)| {
            let mut answers = whole();
            change(&mut answers);
            missing(&answers).unwrap()
        };
        assert_eq!(told(|answers| _ = answers.pop()), "n3 does not answer");
        assert_eq!(told(|answers| answers[1].1["state"] = json!("stopping")), "there is no primary");
        assert_eq!(told(|answers| answers[0].1["timeline"] = json!(1)), "n1 does not follow n2");
        assert_eq!(
            told(|answers| answers[1].1["replication"] =
                json!([{ "state": "streaming", "sync_state": "quorum" }])),
            "1 standbys confirm commits"
        );
        assert_eq!(
            told(|answers| answers[1].1["replication"][0]["sync_state"] = json!("async")),
            "1 standbys confirm commits"
        );
    }
}
