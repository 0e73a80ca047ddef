//! Reads what the nodes tell each other and holds them to Raft's promises.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use coordination::embedded::Embedded;
use serde_json::Value;

/// A candidature: its term and the candidate, ordered so.
type Ballot = (u64, u64);

/// What was seen, once it has begun to look: reading every message costs time that some tests measure.
#[derive(Default)]
pub(crate) struct Referee(Mutex<Seen>, AtomicBool);

#[derive(Default)]
struct Seen {
    /// The highest ballot that each node has answered for.
    promised: BTreeMap<u64, Ballot>,
    /// What each leader has sent as its log, and is not known to be committed.
    sent: BTreeMap<Ballot, BTreeMap<u64, Value>>,
    committed: BTreeMap<u64, Value>,
    /// The two sets of voters of the last change seen under way.
    joint: Option<Vec<BTreeSet<u64>>>,
    violations: Vec<String>,
}

impl Referee {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }

    pub(crate) fn begin(&self) {
        self.1.store(true, Ordering::Relaxed);
    }

    /// A request has reached a node.
    pub(crate) fn sent(&self, request: &Bytes) {
        if !self.1.load(Ordering::Relaxed) {
            return;
        }
        let Some(header) = header(request) else { return };
        if let Some(append) = header["body"].get("Append") {
            self.lock().appended(append);
        }
    }

    /// A node has answered.
    pub(crate) fn answered(&self, request: &Bytes, answer: &Bytes) {
        if !self.1.load(Ordering::Relaxed) {
            return;
        }
        let (Some(request), Some(answer)) = (header(request), header(answer)) else { return };
        let (Some(node), answer) = (request["to"].as_u64(), &answer["Answer"]) else { return };
        let promised = match &request["body"] {
            body if body.get("Vote").is_some() && answer["vote_granted"] == true => &body["Vote"]["vote"],
            body if body.get("Append").is_some() && *answer == "Success" => &body["Append"]["vote"],
            _ => return,
        };
        self.lock().promise(node, ballot(promised));
    }

    /// Whether two sets of voters were in force at once since this was asked last.
    pub(crate) fn take_joint(&self) -> Option<Vec<BTreeSet<u64>>> {
        self.lock().joint.take()
    }

    /// A node that has just started, and hears nobody yet, must remember what it promised.
    pub(crate) async fn check_memory(&self, node: &Embedded) {
        let promised = self.lock().promised.get(&node.status().incarnation).copied();
        let Some((term, _)) = promised else { return };
        let since = Instant::now();
        // Raft publishes what it has read a moment after its start.
        while node.status().term < term {
            if since.elapsed() > Duration::from_secs(2) {
                let (name, found) = (&node.status().node, node.status().term);
                let problem = format!("{name} promised term {term}, and after its restart knows {found}");
                self.lock().violations.push(problem);
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// All that was wrong.
    pub(crate) fn violations(&self) -> Vec<String> {
        let seen = self.lock();
        let mut violations = seen.violations.clone();
        violations.extend(seen.unsafe_changes());
        violations
    }

    /// How many entries are known to be committed, and how many of them changed the voters.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let seen = self.lock();
        let changes = seen.committed.values().filter(|entry| voters(entry).is_some()).count();
        (seen.committed.len(), changes)
    }
}

impl Seen {
    fn appended(&mut self, append: &Value) {
        let leader = ballot(&append["vote"]);
        for entry in append["entries"].as_array().into_iter().flatten() {
            if let Some(configs) = voters(entry).filter(|configs| configs.len() > 1) {
                self.joint = Some(configs);
            }
            let index = entry["log_id"]["index"].as_u64().unwrap();
            self.sent.entry(leader).or_default().insert(index, entry.clone());
        }
        let Some(upto) = append["leader_commit"]["index"].as_u64() else { return };
        let Some(log) = self.sent.get_mut(&leader) else { return };
        let rest = log.split_off(&(upto + 1));
        for (index, entry) in std::mem::replace(log, rest) {
            let known = self.committed.entry(index).or_insert_with(|| entry.clone());
            if *known != entry {
                self.violations.push(format!("two entries were committed at {index}: {known} and {entry}"));
            }
        }
    }

    fn promise(&mut self, node: u64, ballot: Ballot) {
        let before = self.promised.entry(node).or_insert(ballot);
        if ballot < *before {
            self.violations.push(format!("{node} voted for {ballot:?} after {before:?}"));
        }
        *before = ballot.max(*before);
    }

    /// Pairs of successive memberships that could have decided apart from each other.
    fn unsafe_changes(&self) -> Vec<String> {
        let memberships: Vec<_> = self.committed.values().filter_map(voters).collect();
        let pairs = memberships.windows(2).filter(|pair| !overlap(&pair[0], &pair[1]));
        pairs.map(|pair| format!("{:?} was followed by {:?}", pair[0], pair[1])).collect()
    }
}

/// Whether every majority of the one (of all its sets, when there are several) meets every majority of the other.
fn overlap(one: &[BTreeSet<u64>], other: &[BTreeSet<u64>]) -> bool {
    let everybody: Vec<u64> =
        one.iter().chain(other).flatten().copied().collect::<BTreeSet<u64>>().into_iter().collect();
    let decides = |sets: &[BTreeSet<u64>], group: &BTreeSet<u64>| {
        sets.iter().all(|set| set.intersection(group).count() * 2 > set.len())
    };
    // If some group decides for the one, the rest must not decide for the other.
    (0..1u32 << everybody.len()).all(|mask| {
        let chosen = |number: &usize| mask & (1 << number) != 0;
        let (group, rest): (Vec<usize>, Vec<usize>) = (0..everybody.len()).partition(chosen);
        let named = |numbers: Vec<usize>| numbers.into_iter().map(|number| everybody[number]).collect();
        !(decides(one, &named(group)) && decides(other, &named(rest)))
    })
}

fn ballot(vote: &Value) -> Ballot {
    let part = |name: &str| vote["leader_id"][name].as_u64().unwrap();
    (part("term"), part("node_id"))
}

/// The sets of voters that an entry names, if it is a change of the membership.
fn voters(entry: &Value) -> Option<Vec<BTreeSet<u64>>> {
    let configs = entry["payload"].get("Membership")?["configs"].as_array()?;
    let set = |ids: &Value| ids.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    Some(configs.iter().map(set).collect())
}

/// The JSON at the beginning of a message.
pub(crate) fn header(message: &Bytes) -> Option<Value> {
    let length = u32::from_be_bytes(message.get(..4)?.try_into().unwrap()) as usize;
    serde_json::from_slice(message.get(4..4 + length)?).ok()
}

#[test]
fn disjoint_majorities_are_recognised() {
    let sets = |sets: &[&[u64]]| sets.iter().map(|set| set.iter().copied().collect()).collect::<Vec<_>>();
    assert!(overlap(&sets(&[&[1, 2, 3]]), &sets(&[&[1, 2, 4], &[1, 2, 3]])));
    assert!(overlap(&sets(&[&[1, 2, 3]]), &sets(&[&[1, 2, 3, 4]])));
    assert!(!overlap(&sets(&[&[1, 2, 3]]), &sets(&[&[1, 4, 5]])));
}
