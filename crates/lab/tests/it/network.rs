//! Nodes, lines and ways in.

use std::io::Read;
use std::time::{Duration, Instant};

use lab::{Data, Mode};

use crate::support::{Bench, PORT, at, dial, dial_from, eventually, inside, node};

#[test]
fn all_of_a_line_reach_each_other_with_the_addresses_of_the_file() {
    let bench = Bench::new();
    let lab = bench.up();
    assert_eq!(lab.mode(), Mode::Namespaces);
    // Different networks of one line, and two nodes of one network.
    for (from, to, on) in [
        ("e1", "w1", "fibre"),
        ("w1", "e1", "fibre"),
        ("e1", "n1", "fibre"),
        ("n1", "w1", "fibre"),
        ("e1", "w1", "radio"),
        ("w1", "e1", "radio"),
        ("n1", "w1", "radio"),
        ("e1", "w1", "mesh"),
        ("w1", "e1", "mesh"),
        ("e1", "e1", "mesh"),
    ] {
        let said = dial_from(&lab, from, at(&lab, to, on));
        assert!(said.as_ref().is_ok_and(|s| s.starts_with(&format!("{to} "))), "{from} to {to}: {said:?}");
    }
    for (to, on) in [("e1", "fibre"), ("e1", "radio"), ("w1", "radio"), ("n1", "radio"), ("w1", "mesh")] {
        assert!(dial(&lab, at(&lab, to, on)).unwrap().starts_with(to), "{to} {on}");
    }
    bench.down(Data::Remove);
}

#[test]
fn a_node_is_a_machine_of_its_own() {
    let bench = Bench::new();
    let lab = bench.up();
    assert_eq!(inside(&lab, "e1", "hostname", &[]), "e1");
    let processes = inside(&lab, "e1", "sh", &["-c", "ls /proc | grep -c '^[0-9]'"]);
    assert!(processes.parse::<u32>().unwrap() < 12, "the node sees the machine's processes: {processes}");
    let orphan = inside(&lab, "e1", "sh", &["-c", "grep -l '^sleep' /proc/[0-9]*/comm | head -1"]);
    let orphan = orphan.trim_end_matches("/comm");
    assert_eq!(
        inside(&lab, "e1", "sh", &["-c", &format!("awk '/^PPid/ {{print $2}}' {orphan}/status")]),
        "1"
    );
    assert_eq!(inside(&lab, "e1", "sh", &["-c", "ls /dev/shm | wc -l"]), "0");
    // What is mounted in a node stays there.
    inside(&lab, "e1", "mount", &["-t", "tmpfs", "private", "/mnt"]);
    assert!(!std::fs::read_to_string("/proc/self/mounts").unwrap().contains("private /mnt"));
    bench.down(Data::Remove);
}

#[test]
fn tasks_of_the_client_runtime_are_outside_clients() {
    let bench = Bench::new();
    let lab = bench.up();
    let runtime = lab.client_runtime().unwrap();
    let address = at(&lab, "w1", "fibre");
    let said = runtime.run(async move {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let source = stream.local_addr().unwrap().ip().to_string();
        let mut buffer = [0; 16];
        stream.readable().await.unwrap();
        let length = stream.try_read(&mut buffer).unwrap();
        // Names are looked up on other threads of the runtime: they must be inside as well.
        let blocking = tokio::task::spawn_blocking(move || std::net::TcpStream::connect(address).is_ok());
        (source, String::from_utf8_lossy(&buffer[..length]).into_owned(), blocking.await.unwrap())
    });
    assert_eq!(said.0, "10.0.1.254");
    assert!(said.1.starts_with("w1 "), "{said:?}");
    assert!(said.2);
    runtime.shutdown();
    bench.down(Data::Remove);
}

#[test]
fn the_machine_reaches_routes_through_the_door() {
    let mut bench = Bench::new();
    // The stand-in answers at one port only: the route is put there.
    let text = std::fs::read_to_string(&bench.file).unwrap();
    assert!(text.contains(&format!(":{}", bench.door)));
    let route = bench.system.routes.values_mut().next().unwrap();
    route.listen.port = bench.door;
    let mut options = bench.options();
    options.command.pop();
    options.command.push(bench.door.to_string());
    let mut lab = lab::Lab::up(&bench.system, &bench.file, &options).unwrap();
    let door = std::net::SocketAddr::from(([127, 0, 0, 1], bench.door));
    let ask = || {
        let mut stream = std::net::TcpStream::connect(door).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let mut buffer = [0; 3];
        stream.read_exact(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer).into_owned())
    };
    eventually("a node answers at the door", String::new, || ask().is_some());
    let first = ask().unwrap();
    lab.kill_node(&node(first.trim())).unwrap();
    let began = Instant::now();
    let second = ask().unwrap();
    assert_ne!(first, second, "another node answers");
    assert!(began.elapsed() < Duration::from_secs(2));
    assert_ne!(bench.door, PORT);
    bench.down(Data::Remove);
}
