//! Nodes that come and go while the others run.

use lab::{Data, Lab, LabError};

use crate::support::{Bench, Traces, at, dial, dial_from, eventually, inside, node};

/// The bench's system with one node more, on one of the lines that there are and one that is new.
fn larger(bench: &Bench) -> model::system::System {
    let text = std::fs::read_to_string(&bench.file).unwrap()
        + "[nodes.w2]\nsite = \"west\"\nlines = { fibre = \"10.0.2.12\", dark = \"172.16.0.2\" }\n";
    std::fs::write(&bench.file, &text).unwrap();
    match model::system::parse_change("test.toml", text.as_bytes(), &bench.system) {
        Ok(checked) => checked.system,
        Err(invalid) => panic!("the test's file is wrong: {invalid:?}"),
    }
}

#[test]
fn a_node_joins_and_leaves_without_touching_the_others() {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    let mut lab = bench.up();
    let first = dial(&lab, at(&lab, "e1", "fibre")).unwrap();
    let system = larger(&bench);
    let added = lab.add_nodes(&system, &bench.file, &bench.options()).unwrap();
    assert_eq!(added, [node("w2")]);
    let w2 = at(&lab, "w2", "fibre");
    eventually("the new node answers", String::new, || dial(&lab, w2).is_ok());
    assert!(dial(&lab, at(&lab, "w2", "dark")).is_ok());
    assert!(dial_from(&lab, "e1", w2).unwrap().starts_with("w2 "));
    assert!(dial_from(&lab, "w2", at(&lab, "n1", "fibre")).unwrap().starts_with("n1 "));
    assert_eq!(dial(&lab, at(&lab, "e1", "fibre")).unwrap(), first, "the others were restarted");
    // A node that is switched on again knows the newcomer, too.
    lab.kill_node(&node("w1")).unwrap();
    lab.start_node(&node("w1")).unwrap();
    assert!(dial_from(&lab, "w1", w2).is_ok());
    assert!(lab.add_nodes(&system, &bench.file, &bench.options()).unwrap().is_empty());

    lab.remove_node(&node("w2")).unwrap();
    assert!(dial(&lab, w2).is_err());
    assert!(!lab.root(&node("w2")).exists());
    assert!(Lab::open_in(&bench.base(), bench.name()).unwrap().node(&node("w2")).is_err());
    bench.down(Data::Remove);
    assert_eq!(Traces::of(&bench), before);
}

#[test]
fn a_running_node_keeps_its_addresses() {
    let bench = Bench::new();
    let mut lab = bench.up();
    let mut system = bench.system.clone();
    let lines = &mut system.nodes.get_mut(&node("e1")).unwrap().lines;
    *lines.values_mut().next().unwrap() = "10.0.1.99".parse().unwrap();
    let error = lab.add_nodes(&system, &bench.file, &bench.options()).unwrap_err();
    assert!(matches!(error, LabError::NotPossible { .. }), "{error}");
    assert_eq!(inside(&lab, "e1", "echo", &["alive"]), "alive");
    bench.down(Data::Remove);
}

#[test]
fn what_is_prepared_is_there_before_the_node_and_goes_with_the_lab() {
    let bench = Bench::new();
    let before = Traces::of(&bench);
    let mut options = bench.options();
    options.prepare.push(Box::new(|ground| {
        std::fs::write(ground.directory.join("common"), "x").map_err(|e| e.to_string())?;
        std::fs::write(ground.root.join("prepared"), ground.name.as_str()).map_err(|e| e.to_string())
    }));
    let lab = Lab::up(&bench.system, &bench.file, &options).unwrap();
    for (name, _) in lab.nodes() {
        assert_eq!(std::fs::read_to_string(lab.root(name).join("prepared")).unwrap(), name.as_str());
    }
    // The service's own program, where the agent expects it; not on the witness, which runs none.
    assert!(lab.root(&node("e1")).join("services/web/web").is_file());
    assert!(!lab.root(&node("n1")).join("services").exists());
    bench.down(Data::Remove);
    options.prepare.push(Box::new(|_| Err("no certificate".to_owned())));
    let error = Lab::up(&bench.system, &bench.file, &options).unwrap_err();
    assert!(error.to_string().ends_with("did not start: no certificate"), "{error}");
    assert_eq!(Traces::of(&bench), before);
}
