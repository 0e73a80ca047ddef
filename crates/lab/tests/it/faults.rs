//! Faults of links, nodes and processes, and that they really happen.

use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use lab::drill::{Cast, Drill, act};
use lab::fault::{CutOptions, Direction, Target};
use lab::{Data, Lab, LabError};
use model::DatabaseName;

use crate::support::{Bench, at, dial, dial_from, eventually, inside, line, node};

#[test]
fn a_cut_is_silent_with_the_carrier_up_and_ends_by_itself() {
    let bench = Bench::new();
    let lab = bench.up();
    let e1 = at(&lab, "e1", "fibre");
    assert!(dial(&lab, e1).is_ok());
    let began = Instant::now();
    let lasting = Duration::from_millis(1500);
    let evidence = lab.cut_node(&node("e1"), &CutOptions::whole().lasting(lasting)).unwrap();
    println!("{evidence}");
    assert!(evidence.what.contains("from and to e1"), "{evidence}");
    assert!(dial(&lab, e1).is_err(), "the cut node answers");
    assert!(dial_from(&lab, "e1", at(&lab, "w1", "radio")).is_err(), "the cut node reaches others");
    assert!(dial_from(&lab, "w1", at(&lab, "n1", "fibre")).is_ok(), "others are cut too");
    assert_eq!(inside(&lab, "e1", "cat", &["/proc/self/net/dev"]).matches("line").count(), 3);
    let state = inside(&lab, "e1", "ip", &["-o", "link", "show", "line0"]);
    assert!(state.contains("LOWER_UP"), "the carrier is gone: {state}");
    let cuts = lab.cuts().unwrap();
    assert_eq!(cuts.len(), 6);
    assert!(cuts.iter().map(|cut| cut.packets).sum::<u64>() > 0, "nothing was dropped: {cuts:?}");
    assert!(cuts.iter().all(|cut| cut.expires.is_some_and(|left| left <= lasting)));
    eventually("the cut ends", String::new, || dial(&lab, e1).is_ok());
    let lasted = began.elapsed();
    assert!(lasted >= Duration::from_millis(1400) && lasted < Duration::from_secs(5), "{lasted:?}");
    bench.down(Data::Remove);
}

#[test]
fn a_cut_can_spare_lines_and_directions_and_is_healed() {
    let bench = Bench::new();
    let lab = bench.up();
    let e1 = node("e1");
    lab.cut_node(&e1, &CutOptions::whole().on([line("fibre")])).unwrap();
    assert!(dial(&lab, at(&lab, "e1", "fibre")).is_err());
    assert!(dial(&lab, at(&lab, "e1", "radio")).is_ok());
    let healed = lab.heal_node(&e1).unwrap();
    assert!(healed.what.starts_with("2 cuts of e1 healed"), "{healed}");
    assert!(dial(&lab, at(&lab, "e1", "fibre")).is_ok());

    lab.cut_node(&e1, &CutOptions::whole().only(Direction::FromNode)).unwrap();
    assert_eq!(datagram(&lab), (true, false), "it hears and its answer is lost");
    lab.heal_node(&e1).unwrap();
    lab.cut_node(&e1, &CutOptions::whole().only(Direction::ToNode)).unwrap();
    assert_eq!(datagram(&lab), (false, false), "it hears nothing");
    lab.heal_all().unwrap();
    assert_eq!(datagram(&lab), (true, true));

    lab.cut_between(&e1, &node("w1"), None).unwrap();
    assert!(dial_from(&lab, "e1", at(&lab, "w1", "fibre")).is_err());
    assert!(dial_from(&lab, "w1", at(&lab, "e1", "radio")).is_err());
    assert!(dial_from(&lab, "e1", at(&lab, "n1", "fibre")).is_ok());
    assert!(lab.cuts().unwrap()[0].peer.is_some());
    lab.heal_node(&e1).unwrap();
    assert!(dial_from(&lab, "e1", at(&lab, "w1", "fibre")).is_ok());
    assert!(lab.cut_node(&e1, &CutOptions::whole().on([line("none")])).is_err());
    bench.down(Data::Remove);
}

/// Whether a datagram from outside was heard by e1, and whether its answer came back.
fn datagram(lab: &Lab) -> (bool, bool) {
    let heard = lab.root(&node("e1")).join("heard");
    let count = || std::fs::metadata(&heard).map_or(0, |m| m.len());
    let before = count();
    let target = at(lab, "e1", "fibre");
    let answered = lab.client_network().unwrap().run(move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket.send_to(b"there?", target).unwrap();
        socket.recv(&mut [0; 16]).is_ok()
    });
    (count() > before, answered.unwrap())
}

#[test]
fn a_frozen_node_stands_still_and_goes_on() {
    let bench = Bench::new();
    let lab = bench.up();
    let e1 = node("e1");
    let address = at(&lab, "e1", "fibre");
    let before = dial(&lab, address).unwrap();
    println!("{}", lab.freeze_node(&e1, false).unwrap());
    assert!(lab.is_frozen(&e1).unwrap());
    // The kernel accepts, the program says nothing.
    let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(300)).is_ok();
    assert!(lab.client_network().unwrap().run(connect).unwrap());
    assert!(dial(&lab, address).is_err());
    lab.thaw_node(&e1).unwrap();
    assert!(!lab.is_frozen(&e1).unwrap());
    eventually("it answers again", String::new, || dial(&lab, address).is_ok_and(|now| now == before));

    lab.freeze_node(&e1, true).unwrap();
    assert!(!lab.client_network().unwrap().run(connect).unwrap(), "a silent node's kernel answers");
    lab.thaw_node(&e1).unwrap();
    eventually("it answers again", String::new, || dial(&lab, address).is_ok_and(|now| now == before));
    // Also the frozen must die.
    lab.freeze_node(&e1, true).unwrap();
    bench.down(Data::Remove);
}

#[test]
fn a_killed_node_says_no_goodbye_and_comes_back() {
    let bench = Bench::new();
    let mut lab = bench.up();
    let e1 = node("e1");
    let address = at(&lab, "e1", "fibre");
    let connection = lab.client_network().unwrap().run(|| TcpStream::connect(address).unwrap()).unwrap();
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.starts_with("e1 "));
    std::fs::write(lab.root(&e1).join("kept"), "data").unwrap();

    let evidence = lab.kill_node(&e1).unwrap();
    println!("{evidence}");
    assert!(evidence.what.contains("dead"), "{evidence}");
    assert!(!lab.node(&e1).unwrap().is_on());
    reader.get_ref().set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let silent = reader.read_line(&mut line).unwrap_err();
    assert_eq!(silent.kind(), ErrorKind::WouldBlock, "the dead node closed its connection");
    assert!(dial(&lab, address).is_err());
    assert!(matches!(lab.kill_node(&e1), Err(LabError::NodeOff { .. })));

    let started = lab.start_node(&e1).unwrap();
    println!("{started}");
    assert!(started.seen.since(started.begun) < Duration::from_secs(5), "{started}");
    eventually("it answers again", String::new, || dial(&lab, address).is_ok());
    assert_eq!(std::fs::read_to_string(lab.root(&e1).join("kept")).unwrap(), "data");
    assert!(matches!(lab.start_node(&e1), Err(LabError::NodeOn { .. })));
    // Another handle, as another command would have, sees the new node.
    let other = Lab::open_in(&bench.base(), bench.name()).unwrap();
    assert!(other.node(&e1).unwrap().is_on());
    assert!(dial_from(&other, "e1", at(&lab, "w1", "radio")).is_ok());
    bench.down(Data::Remove);
}

#[test]
fn a_killed_agent_is_started_again() {
    let bench = Bench::new();
    let lab = bench.up();
    let e1 = node("e1");
    let address = at(&lab, "e1", "fibre");
    let first = dial(&lab, address).unwrap();
    let began = Instant::now();
    lab.kill_process(&e1, &Target::Agent).unwrap();
    eventually("another answers", String::new, || dial(&lab, address).is_ok_and(|now| now != first));
    assert!(began.elapsed() >= Duration::from_millis(100), "it must wait a moment before it tries again");
    assert!(lab.node(&e1).unwrap().is_on(), "the node itself lived on");
    let missing = lab.kill_process(&e1, &Target::Proxy).unwrap_err().to_string();
    assert!(missing.contains("does not run"), "{missing}");
    bench.down(Data::Remove);
}

#[test]
fn a_hanging_agent_hangs_alone() {
    let bench = Bench::new();
    let lab = bench.up();
    let e1 = node("e1");
    let address = at(&lab, "e1", "fibre");
    let agent = lab.find_process(&e1, &Target::Agent).unwrap();
    let (hung, _) = lab.hang_process(&e1, &Target::Agent).unwrap();
    assert_eq!(hung, agent);
    assert!(dial(&lab, address).is_err());
    assert_eq!(inside(&lab, "e1", "echo", &["alive"]), "alive");
    assert!(lab.resume_process(agent));
    assert!(dial(&lab, address).is_ok());
    bench.down(Data::Remove);
}

#[test]
fn a_node_that_is_told_to_stop_ends_its_agent_and_everything_else() {
    let bench = Bench::new();
    let mut lab = bench.up();
    let e1 = node("e1");
    lab.stop_node(&e1).unwrap();
    let log = std::fs::read_to_string(lab.log(&e1)).unwrap();
    assert!(log.contains("lab-node: ending"), "{log}");
    assert!(!lab.node(&e1).unwrap().is_on());
    lab.start_node(&e1).unwrap();
    eventually("it answers again", String::new, || dial(&lab, at(&lab, "e1", "fibre")).is_ok());
    bench.down(Data::Remove);
}

#[test]
fn what_a_killed_drill_left_is_known_and_taken_back_when_it_is_asked_for() {
    let bench = Bench::new();
    let mut lab = bench.up();
    // Ended by a guard, by the kernel, and by what carries the packets.
    strike(&mut lab, "node-kill");
    strike(&mut lab, "standby-slim");
    strike(&mut lab, "standby-slow");
    let mut later = Lab::open_in(&bench.base(), lab.system()).unwrap();
    let words: Vec<String> = later.lasting().unwrap().iter().map(|(_, undo)| undo.to_string()).collect();
    println!("{words:?}");
    assert!(words.len() == 3 && words[2] == "start e1", "the last fault comes first: {words:?}");
    assert!(!later.node(&node("e1")).unwrap().is_on() && !later.flaws().unwrap().is_empty());

    let taken = later.take_back().unwrap();
    assert!(taken.iter().all(|taken| taken.because.is_none()), "{taken:?}");
    later.refresh().unwrap();
    assert!(later.node(&node("e1")).unwrap().is_on(), "it was not started");
    assert_eq!(later.flaws().unwrap().len(), 0, "the links still lose packets");
    assert!(later.lasting().unwrap().is_empty() && later.take_back().unwrap().is_empty());
    assert_eq!(later.manifest().guards, [], "a guard would meddle with what comes next");
    strike(&mut later, "standby-slow");
    bench.down(Data::Remove);
}

#[test]
fn what_was_taken_back_by_a_drill_or_by_hand_does_not_last() {
    let bench = Bench::new();
    let mut lab = bench.up();
    strike(&mut lab, "network-cut");
    let undo = lab.lasting().unwrap();
    for (database, step) in &undo {
        act(&mut lab, database, step).unwrap();
    }
    assert!(undo.len() == 1 && lab.lasting().unwrap().is_empty(), "{undo:?}");
    strike(&mut lab, "node-kill");
    lab.start_node(&node("e1")).unwrap();
    assert_eq!(lab.lasting().unwrap(), []);
    bench.down(Data::Remove);
}

/// Does the fault of a drill to the primary e1 or its standby w1, and nothing afterwards.
fn strike(lab: &mut Lab, drill: &str) {
    let drill: &Drill = drill.parse().unwrap();
    for step in drill.plan(&Cast::of("e1", &["w1"])).fault {
        act(lab, &DatabaseName::from("orders"), &step).unwrap();
    }
}
