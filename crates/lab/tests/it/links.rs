//! Links that are bad or slow, and that they really are.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use effects::process::{ProcessId, Signal, facts_of, signal_process};
use lab::fault::{CutOptions, Flaw, Pace};
use lab::{Data, Lab};

use crate::support::{Bench, at, dial, dial_from, eventually, inside, node};

const LASTING: Duration = Duration::from_secs(60);

/// How many of so many datagrams of this size come back from there, 20 at a time.
fn echoes(lab: &Lab, target: SocketAddr, count: usize, size: usize) -> usize {
    let ask = move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect(target).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut back = 0;
        for _ in 0..count / 20 {
            (0..20).for_each(|_| _ = socket.send(&vec![7; size]).unwrap());
            back += (0..20).take_while(|_| socket.recv(&mut [0; 2000]).is_ok()).count();
        }
        back
    };
    lab.client_network().unwrap().run(ask).unwrap()
}

/// The middle of ten round trips; a question that gets lost is asked again.
fn round_trip(lab: &Lab, target: SocketAddr) -> Duration {
    let ask = move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let trip = |number: u8| {
            let begun = Instant::now();
            socket.send_to(&[number], target).unwrap();
            let mut echo = [0; 16];
            while echo[0] != number {
                socket.recv(&mut echo).ok()?;
            }
            Some(begun.elapsed())
        };
        let mut trips: Vec<Duration> = (1..=50).filter_map(trip).take(10).collect();
        trips.sort();
        trips[trips.len() / 2]
    };
    lab.client_network().unwrap().run(ask).unwrap()
}

/// How long it takes to get so many bytes back over one connection.
fn transfer(lab: &Lab, target: SocketAddr, bytes: usize) -> Duration {
    let ask = move || {
        let mut stream = TcpStream::connect(target).unwrap();
        let mut writer = stream.try_clone().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut byte = [0];
        while byte != *b"\n" {
            stream.read_exact(&mut byte).unwrap();
        }
        let begun = Instant::now();
        let sender = std::thread::spawn(move || writer.write_all(&vec![7; bytes]).unwrap());
        let mut echo = vec![0; bytes];
        stream.read_exact(&mut echo).unwrap();
        sender.join().unwrap();
        assert!(echo.iter().all(|byte| *byte == 7), "what came back is not what was sent");
        begun.elapsed()
    };
    lab.client_network().unwrap().run(ask).unwrap()
}

#[test]
fn a_lossy_link_loses_every_fifth_packet_and_a_narrow_one_the_long_ones() {
    let bench = Bench::new();
    let lab = bench.up();
    let (e1, target) = (node("e1"), at(&lab, "e1", "fibre"));
    println!("{}", lab.spoil_links(&e1, Flaw::Lossy, LASTING).unwrap());
    let back = echoes(&lab, target, 500, 100);
    // 0.8 each way; six standard deviations.
    assert!((256..384).contains(&back), "{back} of 500 came back, 320 were to");
    assert!(dial_from(&lab, "w1", at(&lab, "n1", "fibre")).is_ok(), "others lose packets too");
    let flaws = lab.flaws().unwrap();
    assert!(flaws.iter().all(|f| f.node == e1 && f.flaw == Flaw::Lossy && f.expires.is_some()), "{flaws:?}");
    let mended = lab.mend_links(&e1).unwrap();
    assert!(mended.what.contains("3 bad links of e1 mended after"), "{mended}");
    assert_eq!(echoes(&lab, target, 100, 100), 100);
    lab.spoil_links(&e1, Flaw::Leaky, LASTING).unwrap();
    let back = echoes(&lab, target, 500, 100);
    // 0.95 each way; four standard deviations.
    assert!((416..487).contains(&back), "{back} of 500 came back, 451 were to");
    lab.mend_links(&e1).unwrap();

    lab.spoil_links(&e1, Flaw::Narrow, LASTING).unwrap();
    assert_eq!(echoes(&lab, target, 100, 900), 100);
    assert_eq!(echoes(&lab, target, 20, 1100), 0);
    lab.mend_links(&e1).unwrap();
    assert_eq!(echoes(&lab, target, 20, 1100), 20);
    lab.spoil_links(&e1, Flaw::Narrow, LASTING).unwrap();
    assert!(lab.mend_links(&e1).unwrap().what.is_empty(), "what lost nothing is no evidence");
    bench.down(Data::Remove);
}

#[test]
fn a_slim_link_carries_so_much_in_a_second_and_ends_by_itself() {
    let bench = Bench::new();
    let lab = bench.up();
    let (e1, target) = (node("e1"), at(&lab, "e1", "fibre"));
    let before = transfer(&lab, target, 60_000);
    let lasting = Duration::from_secs(9);
    let begun = Instant::now();
    lab.spoil_links(&e1, Flaw::Slim, lasting).unwrap();
    let slim = transfer(&lab, target, 60_000);
    println!("60 kB and back: {before:?}, slim: {slim:?}");
    // All but what the bucket holds (the rate and the burst, 28 kB) at 20 kB in a second.
    assert!(slim > Duration::from_millis(1300), "{before:?}, {slim:?}");
    assert!(lab.flaws().unwrap().iter().any(|flaw| flaw.packets > 0));
    eventually("the flaw ends", String::new, || lab.flaws().unwrap().is_empty());
    assert!(begun.elapsed() < lasting + Duration::from_secs(5));
    bench.down(Data::Remove);
}

#[test]
fn a_blip_tells_what_it_dropped_and_is_over_at_once() {
    let bench = Bench::new();
    let lab = bench.up();
    let e1 = node("e1");
    let target = at(&lab, "e1", "fibre");
    let told = std::thread::scope(|scope| {
        let blip = scope.spawn(|| lab.blip(&e1, Duration::from_millis(600)).unwrap());
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(echoes(&lab, target, 20, 100), 0);
        blip.join().unwrap()
    });
    assert!(told.what.contains("packets so far"), "{told}");
    eventually("it is over", String::new, || lab.cuts().unwrap().is_empty());
    assert_eq!(echoes(&lab, target, 20, 100), 20);
    bench.down(Data::Remove);
}

const SLOW: Pace =
    Pace { delay: Duration::from_millis(50), jitter: Duration::from_millis(10), overtake: 0, double: 0 };

#[test]
fn a_slow_node_answers_late_carries_much_and_can_still_be_cut() {
    let bench = Bench::new();
    let lab = bench.up();
    let (e1, target) = (node("e1"), at(&lab, "e1", "fibre"));
    let (before, quick) = (round_trip(&lab, target), transfer(&lab, target, 4_000_000));
    println!("{}", lab.slow_node(&e1, SLOW, LASTING).unwrap());
    assert!(lab.slow_node(&e1, SLOW, LASTING).unwrap_err().to_string().contains("slow already"));
    let (during, slowly) = (round_trip(&lab, target), transfer(&lab, target, 4_000_000));
    assert!(
        during > Duration::from_millis(40) && during < Duration::from_millis(150),
        "{before:?}, {during:?}"
    );
    assert!(slowly < Duration::from_secs(20), "{slowly:?}");
    lab.cut_node(&e1, &CutOptions::whole().lasting(LASTING)).unwrap();
    assert!(dial(&lab, target).is_err(), "a slow node cannot be cut");
    lab.heal_node(&e1).unwrap();
    eventually("it answers again", String::new, || dial(&lab, target).is_ok());
    let told = lab.speed_node(&e1).unwrap();
    println!("{told}");
    assert!(told.what.contains("ms late in the mean"), "{told}");
    let (after, again) = (round_trip(&lab, target), transfer(&lab, target, 4_000_000));
    println!(
        "round trip {before:?}, slow {during:?}, after {after:?}; 4 MB {quick:?}, {slowly:?}, {again:?}"
    );
    assert!(after < Duration::from_millis(40), "{after:?}");
    bench.down(Data::Remove);
}

#[test]
fn what_comes_in_another_order_or_twice_is_put_right_by_tcp() {
    let bench = Bench::new();
    let lab = bench.up();
    let (e1, target) = (node("e1"), at(&lab, "e1", "fibre"));
    let pace =
        Pace { delay: Duration::from_millis(5), jitter: Duration::from_millis(5), overtake: 25, double: 10 };
    lab.slow_node(&e1, pace, LASTING).unwrap();
    assert!(echoes(&lab, target, 200, 100) > 200 - 20, "20 of a batch are awaited, some of them came twice");
    let took = transfer(&lab, target, 1_000_000);
    let told = lab.speed_node(&e1).unwrap();
    println!("{took:?}: {told}");
    assert!(!told.what.contains(" 0 overtook") && !told.what.contains(" 0 came twice"), "{told}");
    bench.down(Data::Remove);
}

#[test]
fn a_slow_node_is_fast_again_when_its_time_is_over_or_either_half_of_its_relay_dies() {
    let bench = Bench::new();
    let lab = bench.up();
    let (e1, target) = (node("e1"), at(&lab, "e1", "fibre"));
    let is_fast = || round_trip(&lab, target) < Duration::from_millis(30);
    lab.slow_node(&e1, SLOW, Duration::from_secs(2)).unwrap();
    assert!(!is_fast());
    eventually("its time is over", String::new, is_fast);
    let told = lab.speed_node(&e1).unwrap();
    assert!(told.what.contains("ms late"), "what ended by itself has given account: {told}");
    for half in ["relay", "carry"] {
        lab.slow_node(&e1, SLOW, LASTING).unwrap();
        assert!(!is_fast());
        let process = relay_process(&lab, half);
        assert!(signal_process(process, Signal::KILL));
        eventually(&format!("the links come back without {half}"), String::new, || {
            dial(&lab, target).is_ok() && is_fast()
        });
        let told = lab.speed_node(&e1).unwrap();
        assert_eq!(told.what.is_empty(), half == "carry", "only who carried knows what was carried: {told}");
    }
    assert!(inside(&lab, "e1", "ip", &["-o", "link", "show", "line0"]).contains("LOWER_UP"));
    bench.down(Data::Remove);
}

/// The process of this lab that does one half of the relay's work.
fn relay_process(lab: &Lab, half: &str) -> ProcessId {
    let switch = format!("ms-{}-net", lab.system());
    let is_it = |words: &str| words.contains(&format!("lab-node\0{half}\0")) && words.contains(&switch);
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let found = numbers.filter(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|words| is_it(&words))
    });
    let found: Vec<i32> = found.collect();
    assert_eq!(found.len(), 1, "{found:?}");
    facts_of(found[0]).unwrap().id
}

#[test]
fn a_slow_node_that_is_killed_comes_back_fast_and_down_leaves_nothing() {
    let bench = Bench::new();
    let mut lab = bench.up();
    let (e1, target) = (node("e1"), at(&lab, "e1", "fibre"));
    lab.slow_node(&e1, SLOW, LASTING).unwrap();
    lab.kill_node(&e1).unwrap();
    lab.start_node(&e1).unwrap();
    eventually("it answers again", String::new, || dial(&lab, target).is_ok());
    assert!(round_trip(&lab, target) < Duration::from_millis(30));
    lab.speed_node(&e1).unwrap();
    lab.slow_node(&e1, SLOW, LASTING).unwrap();
    let halves = ["relay", "carry"].map(|half| relay_process(&lab, half));
    bench.down(Data::Remove);
    for process in halves {
        eventually("its relay is gone", String::new, || {
            facts_of(process.pid).is_none_or(|facts| facts.id != process)
        });
    }
}

#[test]
fn a_slow_node_can_lose_its_power_and_starts_with_fast_links() {
    let bench = Bench::new();
    let mut lab = bench.up();
    let e1 = node("e1");
    lab.slow_node(&e1, SLOW, LASTING).unwrap();
    lab.kill_node(&e1).unwrap();
    lab.start_node(&e1).unwrap();
    let target = at(&lab, "e1", "fibre");
    eventually("it answers", String::new, || dial(&lab, target).is_ok());
    assert!(round_trip(&lab, target) < Duration::from_millis(30));
    lab.speed_node(&e1).unwrap();
    bench.down(Data::Remove);
}
