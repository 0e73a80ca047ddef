//! `down` leaves nothing, whatever happened before.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lab::fault::CutOptions;
use lab::{Data, Lab, LabError};

use crate::support::{Bench, PORT, STAND_IN, Traces, node};

#[test]
fn down_leaves_nothing_after_use_and_faults() {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    let began = Instant::now();
    let mut lab = Lab::up(&bench.system, &bench.file, &bench.options()).unwrap();
    let up = began.elapsed();
    let during = Traces::of(&bench);
    assert_eq!(during.namespaces.len(), 5, "{during:?}");
    assert!(!during.processes.is_empty() && !during.files.is_empty());
    assert_eq!(during.links, before.links, "the machine's own network was changed");
    lab.cut_node(&node("e1"), &CutOptions::whole()).unwrap();
    lab.kill_node(&node("w1")).unwrap();
    lab.freeze_node(&node("n1"), false).unwrap();
    // Somebody who entered and stayed.
    let mut guest = lab.spawn_as_client(Command::new("sleep").arg("1000").stdin(Stdio::null())).unwrap();
    let began = Instant::now();
    bench.down(Data::Remove);
    println!("up {up:?}, down {:?}", began.elapsed());
    guest.wait().unwrap();
    assert_eq!(Traces::of(&bench), before);
    assert!(up < Duration::from_secs(5), "up took {up:?}");
    // Twice in a row says that there is nothing.
    let again = Lab::down_in(&bench.base(), bench.name(), Data::Remove);
    assert!(matches!(again, Err(LabError::Unknown { .. })), "{again:?}");
}

#[test]
fn an_up_that_was_killed_at_any_moment_is_cleaned_or_continued() {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    let mut interrupted = 0;
    for step in 0..14 {
        let mut command = Command::new(STAND_IN);
        command.args(["up".as_ref(), bench.base().as_os_str(), bench.file.as_os_str()]);
        command.arg(PORT.to_string()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut up = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(step * 12));
        up.kill().unwrap();
        interrupted += u32::from(!up.wait().unwrap().success());
        if step % 2 == 0 {
            match Lab::up(&bench.system, &bench.file, &bench.options()) {
                Ok(_) | Err(LabError::AlreadyRunning { .. }) => {}
                Err(error) => panic!("after {step} steps: {error}"),
            }
        }
        match Lab::down_in(&bench.base(), bench.name(), Data::Remove) {
            Ok(()) | Err(LabError::Unknown { .. }) => {}
            Err(error) => panic!("after {step} steps: {error}"),
        }
        let after = Traces::of(&bench);
        assert_eq!(after.namespaces, before.namespaces, "after {step} steps");
        assert_eq!(after.processes, before.processes, "after {step} steps");
        assert_eq!(after.groups, before.groups, "after {step} steps");
        assert_eq!(after.files, before.files, "after {step} steps");
    }
    assert!(interrupted >= 3, "only {interrupted} were interrupted: the delays no longer fit");
    assert_eq!(Traces::of(&bench), before);
}

#[test]
fn a_down_that_was_killed_is_finished_by_the_next() {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    for step in 0..6 {
        bench.up();
        let mut command = Command::new(STAND_IN);
        command.args(["down".as_ref(), bench.base().as_os_str()]).arg(bench.name().as_str());
        let mut down = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(step * 10));
        down.kill().unwrap();
        down.wait().unwrap();
        match Lab::down_in(&bench.base(), bench.name(), Data::Remove) {
            Ok(()) | Err(LabError::Unknown { .. }) => {}
            Err(error) => panic!("after {step} steps: {error}"),
        }
        assert_eq!(Traces::of(&bench), before);
    }
}

#[test]
fn a_lab_without_a_record_is_removed_by_its_name() {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    let lab = bench.up();
    std::fs::write(lab.directory().join("lab.json"), "{ half").unwrap();
    assert!(matches!(Lab::open_in(&bench.base(), bench.name()), Err(LabError::Damaged { .. })));
    bench.down(Data::Remove);
    assert_eq!(Traces::of(&bench), before);
}
