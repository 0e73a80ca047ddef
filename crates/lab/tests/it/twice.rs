//! A second `up`, an `up` in the way of others, and an `up` after an end.

use std::net::TcpListener;

use lab::{Data, Lab, LabError, Phase, Problem};

use crate::support::{Bench, Traces, at, dial, node};

#[test]
fn a_second_up_says_so_and_changes_nothing() {
    let bench = Bench::new();
    let lab = bench.up();
    let before = dial(&lab, at(&lab, "e1", "fibre")).unwrap();
    let error = Lab::up(&bench.system, &bench.file, &bench.options()).unwrap_err();
    assert_eq!(error.to_string(), format!("system {} is already running here (3 nodes)", bench.name()));
    assert!(error.hint().unwrap().contains(&format!("mainstay down {}", bench.name())));
    assert_eq!(dial(&lab, at(&lab, "e1", "fibre")).unwrap(), before);
    let listed = Lab::list_in(&bench.base());
    assert_eq!(listed.len(), 1);
    assert_eq!((listed[0].phase, listed[0].nodes), (Some(Phase::Up), (3, 3)));
    bench.down(Data::Remove);
    assert!(Lab::list_in(&bench.base()).is_empty());
}

#[test]
fn a_stopped_system_starts_again_with_its_data() {
    let bench = Bench::new();
    let lab = bench.up();
    let kept = lab.root(&node("w1")).join("kept");
    std::fs::write(&kept, "data").unwrap();
    bench.down(Data::Keep);
    let stopped = Traces::of(&bench);
    assert!(stopped.processes.is_empty() && stopped.namespaces.is_empty() && stopped.groups.is_empty());
    bench.down(Data::Keep);
    let lab = bench.up();
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "data");
    // All nodes dead is stopped, too.
    let mut lab = lab;
    for name in ["e1", "w1", "n1"] {
        lab.kill_node(&node(name)).unwrap();
    }
    bench.up();
    assert_eq!(std::fs::read_to_string(&kept).unwrap(), "data");
    bench.down(Data::Remove);
}

#[test]
fn who_stands_in_the_way_is_named_before_anything_is_made() {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    let taken = TcpListener::bind(("127.0.0.1", bench.door)).unwrap();
    std::fs::remove_file(bench.directory.path().join("web")).unwrap();
    let mut options = bench.options();
    options.program = "/nowhere/mainstay".into();
    options.checks.push(Box::new(|system| {
        let what = format!("{} needs PostgreSQL", system.name);
        vec![Problem { what, hint: "`make setup`".to_owned() }]
    }));
    let error = Lab::up(&bench.system, &bench.file, &options).unwrap_err();
    let LabError::NotReady(problems) = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 4, "{problems:?}");
    let words = error.to_string();
    assert!(
        words.contains(&format!("127.0.0.1:{} is taken by process {}", bench.door, std::process::id())),
        "{words}"
    );
    assert!(
        words.contains("/nowhere/mainstay")
            && words.contains("needs PostgreSQL")
            && words.contains("./web of service web"),
        "{words}"
    );
    assert_eq!(Traces::of(&bench), before);
    drop(taken);
}

#[test]
fn a_node_that_cannot_start_takes_everything_back() {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    let mut options = bench.options();
    // A program that is no lab node ends without the word that it is ready.
    options.program = "/bin/true".into();
    let error = Lab::up(&bench.system, &bench.file, &options).unwrap_err();
    assert!(matches!(error, LabError::NodeStart { .. }), "{error}");
    let after = Traces::of(&bench);
    assert_eq!(
        (after.namespaces, after.processes, after.groups),
        (before.namespaces, before.processes, before.groups)
    );
    assert_eq!(after.files, before.files);
}
