//! Resources that run out, and that they really do.

use std::process::Command;
use std::time::Duration;

use lab::fault::Target;
use lab::{Data, Lab};

use crate::support::{Bench, Traces, at, dial, eventually, node, processes_with};

/// A program inside that starts others again and again, or only counts.
fn shell(lab: &Lab, script: &str) -> std::process::Child {
    lab.spawn_in_node(&node("e1"), Command::new("sh").args(["-c", script])).unwrap()
}

#[test]
fn a_node_that_may_have_no_further_process_gets_none_and_lives_on() {
    let bench = Bench::new();
    let lab = bench.up();
    let e1 = node("e1");
    let mut forker = shell(&lab, "while :; do sleep 1 & sleep 0.05 || exit 1; done");
    let evidence = lab.limit_processes(&e1).unwrap();
    println!("{evidence}");
    assert!(!evidence.what.contains("; 0 were refused"), "{evidence}");
    assert!(!forker.wait().unwrap().success(), "it could start a process");
    assert!(lab.node(&e1).unwrap().is_on());
    lab.free_processes(&e1).unwrap();
    assert!(lab.free_processes(&e1).unwrap().what.contains("no limit"), "it is harmless to repeat");
    assert!(dial(&lab, at(&lab, "e1", "fibre")).is_ok(), "it serves as before");
    bench.down(Data::Remove);
}

#[test]
fn a_starved_node_is_held_back_by_the_kernel() {
    let bench = Bench::new();
    let lab = bench.up();
    let e1 = node("e1");
    let mut busy = shell(&lab, "while :; do :; done");
    let evidence = lab.limit_cpu(&e1, 5).unwrap();
    println!("{evidence}");
    let ticks = || {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", busy.id())).unwrap();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_ascii_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks() - before <= 20, "it had {} hundredths of a second", ticks() - before);
    lab.free_cpu(&e1).unwrap();
    assert!(dial(&lab, at(&lab, "e1", "fibre")).is_ok());
    // Also a node that is limited goes without a trace.
    lab.limit_cpu(&e1, 1).unwrap();
    bench.down(Data::Remove);
    busy.wait().unwrap();
    assert!(Traces::of(&bench).groups.is_empty());
}

#[test]
fn busy_processes_end_by_themselves_or_when_they_are_told_to() {
    let bench = Bench::new();
    let lab = bench.up();
    let e1 = node("e1");
    let hogs = || processes_with("MAINSTAY_LAB_FAULT", &format!("{}/e1/hog", lab.directory().display()));
    println!("{}", lab.hog_processors(&e1, 2, Duration::from_secs(60)).unwrap());
    assert_eq!(hogs(), 2);
    lab.end_hogs(&e1).unwrap();
    assert_eq!(hogs(), 0);
    lab.hog_processors(&e1, 2, Duration::from_secs(1)).unwrap();
    eventually("they end", String::new, || hogs() == 0);
    bench.down(Data::Remove);
}

#[test]
fn an_agent_without_files_left_takes_no_connection() {
    let bench = Bench::new();
    let lab = bench.up();
    let e1 = node("e1");
    let address = at(&lab, "e1", "fibre");
    assert!(dial(&lab, address).is_ok());
    // The connection is closed on both sides.
    std::thread::sleep(Duration::from_millis(500));
    println!("{}", lab.limit_files(&e1, &Target::Agent).unwrap());
    // The kernel gives a number to the next connection before it comes: one more is let in.
    let _ = dial(&lab, address);
    assert!(dial(&lab, address).is_err());
    lab.free_files(&e1, &Target::Agent).unwrap();
    eventually("it answers again", String::new, || dial(&lab, address).is_ok());
    let error = lab.flood_connections(&e1, Duration::from_secs(1)).unwrap_err().to_string();
    assert!(error.contains("how clients get to the primary"), "{error}");
    bench.down(Data::Remove);
}
