//! Nodes with clocks of their own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lab::fault::Clocks;
use lab::{Data, Lab, Options};

use crate::support::{Bench, inside, node, wait_for_answers};

/// By how many seconds the wall clock of a program in the node is ahead of ours.
fn ahead(lab: &Lab, name: &str) -> i64 {
    let theirs: i64 = inside(lab, name, "date", &["+%s"]).parse().unwrap();
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    theirs - i64::try_from(ours).unwrap()
}

#[test]
fn a_nodes_clocks_are_wrong_for_it_alone_and_right_again() {
    let bench = Bench::new();
    let options = Options { own_clocks: true, ..bench.options() };
    let mut lab = Lab::up(&bench.system, &bench.file, &options).unwrap();
    wait_for_answers(&lab);
    let e1 = node("e1");
    assert!(ahead(&lab, "e1").abs() <= 1);
    println!("{}", lab.set_clocks(&e1, &Clocks { ahead: 3600, ..Clocks::default() }).unwrap());
    assert!((ahead(&lab, "e1") - 3600).abs() <= 1);
    assert!(ahead(&lab, "w1").abs() <= 1, "another node's clock moved");
    assert!(!std::path::Path::new("/etc/ld.so.preload").exists(), "it got out of the node");
    lab.set_clocks(&e1, &Clocks { ahead: -3600, ..Clocks::default() }).unwrap();
    assert!((ahead(&lab, "e1") + 3600).abs() <= 1);
    let strobe = Clocks { strobe: Some((3_600_000, 200)), ..Clocks::default() };
    lab.set_clocks(&e1, &strobe).unwrap();
    let look = |_| {
        std::thread::sleep(Duration::from_millis(30));
        ahead(&lab, "e1")
    };
    let seen: Vec<i64> = (0..30).map(look).collect();
    assert!(seen.iter().any(|by| *by > 3000) && seen.iter().any(|by| *by < 1000), "{seen:?}");

    let slow = Clocks { monotonic_ppm: -50_000, wall_ppm: -50_000, ..Clocks::default() };
    println!("{}", lab.set_clocks(&e1, &slow).unwrap());
    // What was lost is lost, and it goes on at the right rate; rates are judged by what the injection itself has read.
    println!("{}", lab.set_clocks(&e1, &Clocks::default()).unwrap());
    assert!(ahead(&lab, "e1").abs() <= 1);
    // A machine that is switched on again has the right time.
    lab.set_clocks(&e1, &Clocks { ahead: 3600, ..Clocks::default() }).unwrap();
    lab.kill_node(&e1).unwrap();
    lab.start_node(&e1).unwrap();
    wait_for_answers(&lab);
    assert!(ahead(&lab, "e1").abs() <= 1);
    bench.down(Data::Remove);
}

#[test]
fn waiting_inside_takes_as_long_as_the_nodes_own_clock_says() {
    let bench = Bench::new();
    let options = Options { own_clocks: true, ..bench.options() };
    let lab = Lab::up(&bench.system, &bench.file, &options).unwrap();
    let e1 = node("e1");
    let wait = || inside(&lab, "e1", crate::support::STAND_IN, &["wait", "500"]).parse::<u64>().unwrap();
    assert!(wait().abs_diff(500) < 250, "{}", wait());
    // A monotonic clock that is seconds away from the real one: whoever waits until a moment of it must not notice.
    lab.set_clocks(&e1, &Clocks { monotonic_ppm: 900_000, ..Clocks::default() }).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    lab.set_clocks(&e1, &Clocks::default()).unwrap();
    assert!(wait().abs_diff(500) < 250, "{}", wait());
    bench.down(Data::Remove);
}

#[test]
fn a_node_with_the_machines_clocks_refuses_to_have_them_changed() {
    let bench = Bench::new();
    let lab = bench.up();
    let error = lab.set_clocks(&node("e1"), &Clocks { ahead: 1, ..Clocks::default() }).unwrap_err();
    assert!(error.to_string().contains("--own-clocks"), "{error}");
    bench.down(Data::Remove);
}
