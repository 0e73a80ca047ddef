//! Connections between nodes that trust each other.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use model::NodeName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use transport::{DialError, FrameError, StreamKind, dial};

use crate::support::{DEADLINE, World, accept, dial_as, pair};

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_know_each_other_and_talk() {
    let world = World::new();
    for kind in [StreamKind::Peer, StreamKind::Raft, StreamKind::Api] {
        let (mut there, mut here, _listener) = pair(&world, kind).await;
        assert_eq!(here.peer, NodeName::from("w1"));
        assert_eq!(here.kind, kind);
        assert_eq!(there.peer(), &NodeName::from("e1"));

        there.send_json(&("status", 1)).await.unwrap();
        assert_eq!(here.connection.recv_json::<(String, u8)>().await.unwrap(), ("status".into(), 1));
        here.connection.send(b"").await.unwrap();
        assert_eq!(there.recv().await.unwrap().len(), 0);
    }
}

/// Hands on what comes, so much later.
async fn late(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, by: Duration) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        tokio::time::sleep(by).await;
        if to.write_all(&bytes[..length]).await.is_err() {
            return;
        }
    }
}

/// A place from which `address` is so far away, each way.
async fn far_from(address: SocketAddr, by: Duration) -> SocketAddr {
    let place = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let here = place.local_addr().unwrap();
    tokio::spawn(async move {
        let (near, _) = place.accept().await.unwrap();
        let far = TcpStream::connect(address).await.unwrap();
        let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
        tokio::join!(late(near_in, far_out, by), late(far_in, near_out, by));
    });
    here
}

#[tokio::test(flavor = "multi_thread")]
async fn a_far_node_is_reached_although_all_steps_together_take_longer_than_one_may() {
    let world = World::new();
    let mut listener = world.listener("e1");
    // Two round trips of 600 ms; the node waits for the three legs up to the kind, well within its own deadline.
    let deadline = Duration::from_millis(1100);
    let place = far_from(listener.local_addr(), Duration::from_millis(300)).await;
    let since = Instant::now();
    let dialled = dial(place, &"e1".into(), StreamKind::Peer, &world.identity("w1"), deadline, None).await;
    dialled.unwrap();
    assert!(since.elapsed() > deadline, "it was not far: {:?}", since.elapsed());
    accept(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_frame_passes_and_a_longer_one_does_not() {
    let world = World::new();
    for kind in [StreamKind::Peer, StreamKind::Raft] {
        let (there, mut here, _listener) = pair(&world, kind).await;
        let longest = vec![7; kind.max_frame()];
        let (mut sender, _receiver) = there.split();
        let (sent, received) = tokio::join!(sender.send(&longest), here.connection.recv());
        sent.unwrap();
        assert_eq!(received.unwrap(), longest);

        let refused = sender.send(&vec![7; kind.max_frame() + 1]).await;
        assert!(matches!(refused, Err(FrameError::TooLong { .. })), "{refused:?}");
        sender.send(b"still usable").await.unwrap();
        assert_eq!(here.connection.recv().await.unwrap(), &b"still usable"[..]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_connection_is_told_apart_from_a_cut() {
    let world = World::new();
    let (there, mut here, _listener) = pair(&world, StreamKind::Peer).await;
    drop(there);
    assert!(matches!(here.connection.recv().await, Err(FrameError::Ended)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_hangs_up_is_told_apart_from_one_that_ended() {
    let world = World::new();
    let (there, mut here, _listener) = pair(&world, StreamKind::Peer).await;
    let (mut sender, receiver) = there.split();
    sender.close().await.unwrap();
    // What was on its way to it makes its kernel reset the connection; the word came before.
    here.connection.send(&[0; 1000]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop((sender, receiver));
    assert!(matches!(here.connection.recv().await, Err(FrameError::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn receiving_may_be_cancelled_at_any_time() {
    let world = World::new();
    let (mut there, here, _listener) = pair(&world, StreamKind::Raft).await;
    let (_sender, mut receiver) = here.connection.split();
    // Nothing comes before the first receive was cancelled; later ones are cancelled wherever they stand.
    let (first, cancelled_once) = tokio::sync::oneshot::channel();
    let mut first = Some(first);
    let sending = tokio::spawn(async move {
        cancelled_once.await.unwrap();
        for number in 0..50_u32 {
            let mut body = vec![0; 100_000];
            body[..4].copy_from_slice(&number.to_be_bytes());
            there.send(&body).await.unwrap();
        }
        there
    });
    let (mut cancelled, mut next) = (0, 0_u32);
    while next < 50 {
        tokio::select! {
            biased;
            frame = receiver.recv() => {
                let frame = frame.unwrap();
                assert_eq!((frame.len(), &frame[..4]), (100_000, &next.to_be_bytes()[..]));
                next += 1;
            }
            () = tokio::task::yield_now() => {
                cancelled += 1;
                if let Some(first) = first.take() {
                    first.send(()).unwrap();
                }
            }
        }
    }
    println!("{cancelled} receives were cancelled");
    assert!(cancelled > 0, "no receive was ever cancelled, so the test showed nothing");
    sending.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_that_was_cut_off_spoils_the_connection_visibly() {
    let world = World::new();
    let (there, _here, _listener) = pair(&world, StreamKind::Raft).await;
    let (mut sender, _receiver) = there.split();
    let body = vec![0; 16 << 20];
    // Nobody reads at the other end, so the kernel's buffers fill and the call cannot finish.
    assert!(tokio::time::timeout(std::time::Duration::from_millis(200), sender.send(&body)).await.is_err());
    assert!(matches!(sender.send(b"next").await, Err(FrameError::Interrupted)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_leaves_from_the_address_asked_for() {
    let world = World::new();
    let mut listener = world.listener("e1");
    let source = Ipv4Addr::new(127, 7, 7, 7).into();
    let node = NodeName::from("e1");
    let identity = world.identity("w1");
    let dialled =
        dial(listener.local_addr(), &node, StreamKind::Peer, &identity, DEADLINE, Some(source)).await;
    assert_eq!(accept(&mut listener).await.address.ip(), source);
    dialled.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_at_the_address_is_an_error_at_once() {
    let world = World::new();
    let gone = world.listener("e1");
    let address = gone.local_addr();
    drop(gone);
    let begin = Instant::now();
    let node = NodeName::from("e1");
    loop {
        let result = dial(address, &node, StreamKind::Peer, &world.identity("w1"), DEADLINE, None).await;
        // The dropped listener's task needs a moment to close the socket.
        match result {
            Err(DialError::Connect { .. }) => break,
            other => assert!(begin.elapsed() < DEADLINE, "{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_takes_milliseconds() {
    let world = World::new();
    let mut listener = world.listener("e1");
    let identity = world.identity("w1");
    let mut times = Vec::new();
    for _ in 0..50 {
        let begin = Instant::now();
        let dialled = dial_as(&identity, &listener, "e1", StreamKind::Peer).await.unwrap();
        times.push(begin.elapsed());
        accept(&mut listener).await;
        drop(dialled);
    }
    times.sort();
    println!("mutual TLS connection: median {:?}, min {:?}, max {:?} of 50", times[25], times[0], times[49]);
    assert!(times[25].as_millis() < 100, "median {:?}", times[25]);
}
