//! Several clients read, write and swap a few keys while nodes die, come back and are cut off; what they saw must have an
//! order, each operation between its beginning and its end.

use std::time::Duration;

use checker::Verdict;
use model::NodeName;

use crate::clients::{Reads, Run, start, stop};
use crate::group::{Group, PATIENCE};

/// How long a node is without power.
const PAUSE: Duration = Duration::from_millis(200);

/// Nobody hears the node for so many acknowledged operations of the clients, who go on using it too.
async fn cut(group: &Group, run: &Run, node: &NodeName, operations: u64) {
    group.network.isolate(node, true);
    run.progress(operations).await;
    group.network.isolate(node, false);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_clients_see_through_deaths_and_cuts_is_linearizable() {
    let mut group = Group::of(3).await;
    let (run, clients) = start(&group, Reads::Linearizable).await;
    let term = group.node(&group.leader().await).status().term;
    for round in 0..2 {
        let leader = group.leader().await;
        group.power_loss(&run, std::slice::from_ref(&leader), PAUSE).await;
        run.progress(60).await;

        let leader = group.leader().await;
        cut(&group, &run, &leader, 60).await;

        let follower = group.others(&group.leader().await)[round].clone();
        group.power_loss(&run, &[follower], PAUSE).await;
        run.progress(60).await;

        let next = group.others(&group.leader().await)[0].clone();
        // It may be refused when the lead has just changed by itself, which serves the purpose as well.
        let _ = group.node(&next).transfer_leadership(&next, PATIENCE).await;
        run.progress(60).await;

        let all = group.names.clone();
        group.power_loss(&run, &all, PAUSE).await;
        run.progress(60).await;
    }
    stop(&run, clients).await;
    let terms = group.node(&group.leader().await).status().term - term;
    println!("{terms} terms went by");
    assert!(terms >= 4, "the lead changed: {terms}");
    let verdict = run.judge("linearizable.jsonl");
    assert_eq!(verdict, Verdict::Valid, "{verdict}");
}

/// The control: reads that a node answers out of what it has seen by itself are found out.
#[tokio::test(flavor = "multi_thread")]
async fn local_reads_are_found_not_to_be_linearizable() {
    let group = Group::of(3).await;
    let (run, clients) = start(&group, Reads::Local).await;
    let follower = group.others(&group.leader().await)[0].clone();
    cut(&group, &run, &follower, 200).await;
    stop(&run, clients).await;
    let verdict = run.judge("local-reads.jsonl");
    assert!(matches!(verdict, Verdict::Violated(_)), "{verdict}");
    println!("{verdict}");
}
