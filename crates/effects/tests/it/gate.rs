//! The kernel gate with real nftables: when it closes, what it stops, and what happens when others change the rules.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use effects::clock;
use effects::network::gate::{Gate, GateError, Protection};
use effects::network::probe::{self, Reach};
use effects::process::{Signal, ToolCommand, facts_of, run_tool};
use model::time::Moment;

use crate::namespace::{Namespace, nft, ports};
use crate::roles::{self, Actor};

const TABLE: &str = "mainstay_gate";

/// Echoes every byte on every connection; lives as long as the test.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || echo(connection));
        }
    });
    address
}

fn echo(mut connection: TcpStream) {
    let _ = connection.set_nodelay(true);
    let mut byte = [0];
    while connection.read_exact(&mut byte).is_ok() && connection.write_all(&byte).is_ok() {}
}

fn connect(address: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let connection = TcpStream::connect_timeout(&address, patience)?;
    connection.set_nodelay(true)?;
    connection.set_read_timeout(Some(patience))?;
    Ok(connection)
}

fn ask(connection: &mut TcpStream) -> std::io::Result<()> {
    connection.write_all(b"?")?;
    connection.read_exact(&mut [0])
}

fn signed_ms(later: Moment, earlier: Moment) -> f64 {
    (later.as_micros() as f64 - earlier.as_micros() as f64) / 1000.0
}

/// Asks over one established connection about every millisecond and remembers when the last answer came.
struct Pinger {
    last: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

impl Pinger {
    fn start(address: SocketAddr) -> Self {
        let pinger = Self { last: Arc::default(), stop: Arc::default() };
        let (last, stop) = (Arc::clone(&pinger.last), Arc::clone(&pinger.stop));
        let mut connection = connect(address, Duration::from_secs(1)).expect("the gate is open");
        thread::spawn(move || {
            connection.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut waiting = false;
            while !stop.load(Ordering::Relaxed) {
                if !waiting && connection.write_all(b"?").is_err() {
                    return;
                }
                waiting = connection.read_exact(&mut [0]).is_err();
                if !waiting {
                    last.store(clock::now().as_micros(), Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(1));
                }
            }
        });
        while pinger.last.load(Ordering::Relaxed) == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        pinger
    }

    fn last_answer(&self) -> Moment {
        Moment::from_micros(self.last.load(Ordering::Relaxed))
    }

    /// Waits until nothing was answered for `silence`; when the last answer came.
    fn until_silent(&self, silence: Duration) -> Moment {
        while clock::now().since(self.last_answer()) < silence {
            thread::sleep(Duration::from_millis(5));
        }
        self.last_answer()
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_port_is_closed_until_its_first_renewal_and_closes_by_itself() {
    Namespace::new().run(|| async {
        let server = echo_server();
        let gate = Gate::install(TABLE, &ports(&[server.port()])).await.unwrap();
        let patience = Duration::from_millis(100);
        assert_eq!(probe::tcp(server, patience).await, Reach::Silent { after: patience });
        assert_eq!(gate.remaining(server.port()).unwrap(), None);

        let mut late = Vec::new();
        for _ in 0..5 {
            let deadline = clock::now() + Duration::from_millis(300);
            let granted = gate.renew_until(server.port(), deadline).unwrap();
            assert!(
                granted <= Duration::from_millis(300) && granted > Duration::from_millis(200),
                "{granted:?}"
            );
            let left = gate.remaining(server.port()).unwrap().expect("open");
            assert!(left <= granted, "{left:?} of {granted:?}");
            let pinger = Pinger::start(server);
            late.push(signed_ms(pinger.until_silent(Duration::from_millis(200)), deadline));
        }
        println!("last answer after the end of a 300 ms lease: {late:.1?} ms");
        assert!(late.iter().all(|ms| (-25.0..=60.0).contains(ms)), "{late:?}");
        assert_eq!(gate.remaining(server.port()).unwrap(), None);
        assert_eq!(
            gate.renew_until(server.port(), clock::now()).unwrap(),
            Duration::ZERO,
            "a deadline that has passed"
        );
        assert_eq!(probe::tcp(server, patience).await, Reach::Silent { after: patience });
    });
}

#[test]
fn nothing_is_lost_while_a_lease_is_renewed_and_renewals_are_cheap() {
    Namespace::new().run(|| async {
        let server = echo_server();
        let gate = Arc::new(Gate::install(TABLE, &ports(&[server.port()])).await.unwrap());
        gate.renew(server.port(), Duration::from_secs(2)).unwrap();
        let end = Instant::now() + Duration::from_secs(6);
        let renewing = Arc::clone(&gate);
        let renewer = thread::spawn(move || {
            let mut costs = Vec::new();
            while Instant::now() < end {
                let begin = Instant::now();
                renewing.renew(server.port(), Duration::from_secs(2)).unwrap();
                costs.push(begin.elapsed());
                thread::sleep(Duration::from_millis(250));
            }
            costs
        });
        let (mut asked, mut lost) = (0, 0);
        let mut kept = connect(server, Duration::from_secs(1)).unwrap();
        while Instant::now() < end {
            let fresh =
                connect(server, Duration::from_secs(1)).and_then(|mut connection| ask(&mut connection));
            asked += 2;
            lost += i32::from(fresh.is_err()) + i32::from(ask(&mut kept).is_err());
            thread::sleep(Duration::from_millis(5));
        }
        let mut costs = renewer.join().unwrap();
        costs.sort();
        println!(
            "{lost} of {asked} probes lost; renewal min/median/max {:?} {:?} {:?}",
            costs[0],
            costs[costs.len() / 2],
            costs[costs.len() - 1]
        );
        assert_eq!(lost, 0);
        assert!(asked > 100, "{asked}");
        // A process start costs a millisecond and more.
        assert!(costs[costs.len() / 2] < Duration::from_millis(1), "{costs:?}");
    });
}

/// What the last answer was, counted from the end of the last lease, when the renewing process got `signal`.
async fn silenced_by(signal: Signal, server: SocketAddr) -> f64 {
    let gate = Gate::install(TABLE, &ports(&[server.port()])).await.unwrap();
    let port = server.port().to_string();
    let arguments = [("PORT", port.as_str()), ("TABLE", TABLE), ("LEASE", "500"), ("EVERY", "50")];
    let renewer = Actor::start("renew", &arguments);
    let begin = Instant::now();
    while !probe::tcp(server, Duration::from_millis(20)).await.is_connected() {
        assert!(begin.elapsed() < Duration::from_secs(10), "the renewer never opened the gate");
    }
    let pinger = Pinger::start(server);
    thread::sleep(Duration::from_millis(300));
    renewer.0.signal(signal).unwrap();
    if signal == Signal::STOP {
        while facts_of(renewer.0.id().pid).unwrap().state != 'T' {
            thread::sleep(Duration::from_millis(1));
        }
    } else {
        renewer.0.exited().await;
    }
    let left = gate.remaining(server.port()).unwrap().expect("the last lease still runs");
    assert!(left <= Duration::from_millis(500));
    let deadline = clock::now() + left;
    signed_ms(pinger.until_silent(Duration::from_millis(300)), deadline)
}

#[test]
fn the_kernel_fences_a_frozen_or_killed_agent() {
    Namespace::new().run(|| async {
        let server = echo_server();
        for (name, signal) in [("frozen", Signal::STOP), ("killed", Signal::KILL)] {
            let mut late = Vec::new();
            for _ in 0..5 {
                late.push(silenced_by(signal, server).await);
            }
            println!("renewer {name}: last answer after the end of the lease {late:.1?} ms");
            assert!(late.iter().all(|ms| (-25.0..=60.0).contains(ms)), "{late:?}");
        }
    });
}

#[test]
fn closing_is_immediate_for_established_connections_and_for_answers_under_way() {
    Namespace::new().run(|| async {
        let server = echo_server();
        let gate = Gate::install(TABLE, &ports(&[server.port()])).await.unwrap();
        gate.renew(server.port(), Duration::from_secs(60)).unwrap();
        let pinger = Pinger::start(server);
        let before = clock::now();
        gate.close(server.port()).unwrap();
        let closed = clock::now();
        let late = signed_ms(pinger.until_silent(Duration::from_millis(200)), closed);
        println!("closing took {:.3} ms; last answer {late:.1} ms after it", signed_ms(closed, before));
        assert!(late < 5.0, "{late}");

        // A request that the server received before the gate closed must not be answered after it.
        gate.renew(server.port(), Duration::from_secs(60)).unwrap();
        let slow = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = slow.local_addr().unwrap();
        gate.guard(&ports(&[server.port(), address.port()])).unwrap();
        gate.renew(address.port(), Duration::from_secs(60)).unwrap();
        let mut client = connect(address, Duration::from_millis(300)).unwrap();
        let (mut connection, _) = slow.accept().unwrap();
        client.write_all(b"?").unwrap();
        connection.read_exact(&mut [0]).unwrap();
        gate.close(address.port()).unwrap();
        connection.write_all(b"!").unwrap();
        let error = client.read_exact(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock, "no answer came");
        // It was not lost: the kernel sends it again once the gate is open.
        gate.renew(address.port(), Duration::from_secs(60)).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        client.read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn both_internet_protocols_are_stopped() {
    Namespace::new().run(|| async {
        let listener = TcpListener::bind("[::1]:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert!(probe::tcp(address, Duration::from_secs(1)).await.is_connected());
        let gate = Gate::install(TABLE, &ports(&[address.port()])).await.unwrap();
        let patience = Duration::from_millis(50);
        assert_eq!(probe::tcp(address, patience).await, Reach::Silent { after: patience });
        gate.renew(address.port(), Duration::from_secs(60)).unwrap();
        assert!(probe::tcp(address, Duration::from_secs(1)).await.is_connected());
    });
}

#[test]
fn unix_sockets_and_other_ports_are_not_touched() {
    Namespace::new().run(|| async {
        let (server, other) = (echo_server(), echo_server());
        let gate = Gate::install(TABLE, &ports(&[server.port()])).await.unwrap();
        gate.close(server.port()).unwrap();
        let (mut near, mut far) = UnixStream::pair().unwrap();
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
        assert!(probe::tcp(other, Duration::from_secs(1)).await.is_connected());
        // A connection FROM the closed member's host to elsewhere works too: only the guarded port itself is closed.
        ask(&mut connect(other, Duration::from_secs(1)).unwrap()).unwrap();
    });
}

#[test]
fn a_restarted_agent_takes_the_gate_over_without_closing_it() {
    Namespace::new().run(|| async {
        let server = echo_server();
        let first = Gate::install(TABLE, &ports(&[server.port()])).await.unwrap();
        first.renew(server.port(), Duration::from_secs(60)).unwrap();
        drop(first);
        let second = Gate::install(TABLE, &ports(&[server.port()])).await.unwrap();
        let left = second.remaining(server.port()).unwrap().expect("still open");
        assert!(left > Duration::from_secs(50));
        ask(&mut connect(server, Duration::from_secs(1)).unwrap()).unwrap();
    });
}

#[test]
fn a_flushed_ruleset_is_noticed_and_repaired() {
    Namespace::new().run(|| async {
        let server = echo_server();
        let guarded = ports(&[server.port()]);
        let gate = Gate::install(TABLE, &guarded).await.unwrap();
        gate.renew(server.port(), Duration::from_secs(60)).unwrap();
        for (damage, expected) in [
            ("flush ruleset".to_owned(), "its table is gone, so its ports are open to everybody"),
            (format!("flush chain inet {TABLE} output"), "the rule of its chain output is gone"),
            (
                format!("insert rule inet {TABLE} input accept"),
                "its chain input holds rules of somebody else",
            ),
            (format!("flush set inet {TABLE} guarded"), "is no longer behind it"),
            (format!("add table inet {TABLE} {{ flags dormant; }}"), "its table was switched off"),
        ] {
            nft(&damage);
            let error = gate.renew(server.port(), Duration::from_secs(60)).unwrap_err();
            println!("after `{damage}`: {error}");
            assert!(matches!(error, GateError::Damaged { .. }), "{error}");
            assert!(error.to_string().contains(expected), "{error}");
            assert!(matches!(gate.verify(), Err(GateError::Damaged { .. })));
            assert!(matches!(gate.close(server.port()), Err(GateError::Damaged { .. })));
            let repaired = Gate::install(TABLE, &guarded).await.unwrap();
            let patience = Duration::from_millis(50);
            if damage.contains("set") && !damage.contains("ruleset") {
                // Its rules were intact: the port went behind it again with its lease.
                assert!(repaired.remaining(server.port()).unwrap().is_some());
            } else {
                assert_eq!(probe::tcp(server, patience).await, Reach::Silent { after: patience });
            }
            // The gate that met the damage works again too.
            gate.renew(server.port(), Duration::from_secs(60)).unwrap();
            assert!(probe::tcp(server, Duration::from_secs(1)).await.is_connected());
        }
    });
}

#[test]
fn changes_of_others_that_do_not_concern_the_gate_are_fine() {
    Namespace::new().run(|| async {
        let server = echo_server();
        let gate = Gate::install(TABLE, &ports(&[server.port()])).await.unwrap();
        let other = Gate::install("mainstay_gate_2", &ports(&[1])).await.unwrap();
        for number in 0..20 {
            nft(&format!("add table inet somebody{number}"));
            other.renew(1, Duration::from_secs(60)).unwrap();
            gate.renew(server.port(), Duration::from_secs(60)).unwrap();
        }
        gate.verify().unwrap();
        other.uninstall().unwrap();
        other.uninstall().unwrap();
        gate.renew(server.port(), Duration::from_secs(60)).unwrap();
        let tables = nft("list tables");
        assert!(tables.contains("inet mainstay_gate\n") && !tables.contains("mainstay_gate_2"), "{tables}");
    });
}

#[test]
fn ports_come_and_go() {
    Namespace::new().run(|| async {
        let (one, two) = (echo_server(), echo_server());
        let gate = Gate::install(TABLE, &ports(&[one.port()])).await.unwrap();
        let error = gate.renew(two.port(), Duration::from_secs(1)).unwrap_err();
        assert_eq!(error.to_string(), format!("port {} is not behind the gate mainstay_gate", two.port()));
        gate.guard(&ports(&[two.port()])).unwrap();
        let patience = Duration::from_millis(50);
        assert!(probe::tcp(one, Duration::from_secs(1)).await.is_connected());
        assert_eq!(probe::tcp(two, patience).await, Reach::Silent { after: patience });
        gate.uninstall().unwrap();
        assert!(probe::tcp(two, Duration::from_secs(1)).await.is_connected());
        assert!(!nft("list ruleset").contains(TABLE));
    });
}

#[test]
fn several_leases_are_renewed_at_the_same_time() {
    Namespace::new().run(|| async {
        let all: Vec<u16> = (7000..7008).collect();
        let gate = Arc::new(Gate::install(TABLE, &ports(&all)).await.unwrap());
        let threads: Vec<_> = all
            .iter()
            .map(|&port| {
                let gate = Arc::clone(&gate);
                thread::spawn(move || {
                    for _ in 0..200 {
                        gate.renew(port, Duration::from_secs(5)).unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let left: BTreeMap<u16, _> = all.iter().map(|&port| (port, gate.remaining(port).unwrap())).collect();
        assert!(left.values().all(Option::is_some), "{left:?}");
    });
}

#[test]
fn what_is_missing_is_said_in_words() {
    Namespace::new().run(|| async {
        assert_eq!(Gate::probe(), Protection::Full);
        // The same program without the right.
        let mut arguments = vec!["--bounding-set=-net_admin".to_owned(), roles::program()];
        arguments.extend(roles::self_arguments());
        let command = ToolCommand { env: vec![roles::role_variable("probe")], ..ToolCommand::new("setpriv", arguments, Duration::from_secs(20)) };
        let output = run_tool(command).await.unwrap().checked().unwrap();
        assert!(output.stdout.contains("PROTECTION no kernel gate before the database's port: the agent has no right to change packet filter rules; run it as root or give it CAP_NET_ADMIN"), "{}", output.stdout);
    });
}
