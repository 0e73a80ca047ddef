//! What it costs. Printed for people; the bounds are only there to notice disasters on a loaded machine.

use std::time::{Duration, Instant};

use coordination::Txn;
use model::NodeName;

use crate::group::{Group, PATIENCE};

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_is_fast() {
    let group = Group::of(3).await;
    let leader = group.leader().await;
    let follower = group.others(&leader)[0].clone();
    for (at, name) in [(leader, "leader"), (follower, "follower")] {
        let commit = measure(&group, &at, true).await;
        let read = measure(&group, &at, false).await;
        println!(
            "at the {name}: commit p50 {:?} p99 {:?}; linearizable read p50 {:?} p99 {:?}",
            commit[100], commit[198], read[100], read[198]
        );
        assert!(commit[100] < Duration::from_millis(500), "{:?}", commit[100]);
    }
}

/// 200 durations in order.
async fn measure(group: &Group, at: &NodeName, write: bool) -> Vec<Duration> {
    let store = group.store(at);
    let mut taken = Vec::new();
    for number in 0..200 {
        let since = Instant::now();
        if write {
            let value = format!("{{\"number\":{number},\"text\":\"{}\"}}", "x".repeat(300));
            store.txn(Txn::new().put("figure", value), PATIENCE).await.unwrap();
        } else {
            store.get("figure", PATIENCE).await.unwrap();
        }
        taken.push(since.elapsed());
    }
    taken.sort();
    taken
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_group_costs_little() {
    let group = Group::of(3).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (before, since) = (cpu_time(), Instant::now());
    tokio::time::sleep(Duration::from_secs(4)).await;
    let share = (cpu_time() - before).as_secs_f64() / since.elapsed().as_secs_f64() * 100.0;
    println!("three idle nodes in one process: {share:.1} % of a core, resident {} MiB", resident_mib());
    assert!(share < 40.0, "{share:.1} %");
    drop(group);
}

fn cpu_time() -> Duration {
    let usage = std::fs::read_to_string("/proc/self/stat").unwrap();
    // proc_pid_stat(5): after the name in parentheses, utime and stime are the 12th and 13th field, in ticks of 10 ms.
    let fields: Vec<&str> = usage.rsplit_once(')').unwrap().1.split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 10)
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}
