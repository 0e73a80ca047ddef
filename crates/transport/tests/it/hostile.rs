//! Peers that must get nowhere.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use model::{NodeName, SystemName};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use transport::listener::{HANDSHAKE_DEADLINE, MAX_PENDING_HANDSHAKES};
use transport::{
    Authority, Credentials, DialError, FrameError, Identity, Listener, PeerFault, StreamKind, dial,
};

use crate::support::{DEADLINE, World, accept, any_port, assert_nobody, dial_as, pair};

/// A stranger's TLS client that trusts anybody: what an attacker would write.
fn stranger(shown: Option<&Credentials>, authority_pem: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some(credentials) => {
            let own = CertificateDer::from_pem_slice(credentials.certificate_pem.as_bytes()).unwrap();
            let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes()).unwrap();
            builder.with_client_auth_cert(vec![own], key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"mainstay/1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Greets like a node and answers what came back; the listener's certificate carries the loopback address.
async fn greet(connector: &TlsConnector, listener: &Listener) -> io::Result<u8> {
    let tcp = TcpStream::connect(listener.local_addr()).await?;
    let mut tls = connector.connect("127.0.0.1".try_into().unwrap(), tcp).await?;
    tls.write_all(b"P").await?;
    timeout(DEADLINE, tls.read_u8()).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_nobody_gets_in() {
    let world = World::new();
    let mut listener = world.listener("e1");
    let refused = greet(&stranger(None, world.authority.certificate_pem()), &listener).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_nobody(&mut listener).await;

    // The same client with a certificate is welcome, so it was the certificate that was missing.
    let member = world.credentials("w1");
    assert_eq!(
        greet(&stranger(Some(&member), world.authority.certificate_pem()), &listener).await.unwrap(),
        1
    );
    accept(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_of_another_authority_is_refused_by_both_sides() {
    let (world, other) = (World::new(), World::new());
    let mut listener = world.listener("e1");

    let dialled = dial_as(&other.identity("w1"), &listener, "e1", StreamKind::Raft).await;
    assert!(matches!(dialled, Err(DialError::Handshake { .. })), "{dialled:?}");

    let foreign = other.credentials("w1");
    let refused = greet(&stranger(Some(&foreign), world.authority.certificate_pem()), &listener).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_nobody(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expired_certificate_is_refused() {
    let world = World::new();
    let mut listener = world.listener("e1");
    let expired =
        world.authority.issue_until(&"w1".into(), &[], SystemTime::now() - Duration::from_secs(60)).unwrap();
    let refused = greet(&stranger(Some(&expired), world.authority.certificate_pem()), &listener).await;
    assert!(refused.unwrap_err().to_string().to_lowercase().contains("expired"));
    assert_nobody(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_expires_while_in_use_is_refused_from_then_on() {
    let world = World::new();
    let mut listener = world.listener("e1");
    let short =
        world.authority.issue_until(&"w1".into(), &[], SystemTime::now() + Duration::from_secs(2)).unwrap();
    let identity = Identity::from_credentials(short).unwrap();
    let _open = dial_as(&identity, &listener, "e1", StreamKind::Peer).await.unwrap();
    accept(&mut listener).await;
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let refused = dial_as(&identity, &listener, "e1", StreamKind::Peer).await;
    assert!(matches!(refused, Err(DialError::Refused { .. })), "{refused:?}");
    assert_nobody(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_than_the_expected_one_is_refused_by_name() {
    let world = World::new();
    let mut listener = world.listener("e1");
    let refused = dial_as(&world.identity("w1"), &listener, "n1", StreamKind::Peer).await.unwrap_err();
    let fault = PeerFault::OtherNode { expected: "n1".into(), found: "e1".into() };
    assert!(matches!(&refused, DialError::Peer { fault: found, .. } if *found == fault), "{refused:?}");
    assert!(refused.to_string().contains("node `e1` answered where `n1` was expected"));
    assert_nobody(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_cannot_pass_itself_off_as_authority() {
    let world = World::new();
    let mut listener = world.listener("e1");
    // A member signs a certificate for another name with its own key and shows its own certificate as the issuer.
    let member = world.credentials("w1");
    let key = rcgen::KeyPair::from_pem(&member.key_pem).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&member.certificate_pem, key).unwrap();
    let forged_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://shop/node/n1".try_into().unwrap())];
    let forged = params.signed_by(&forged_key, &issuer).unwrap();
    let credentials = Credentials {
        certificate_pem: format!("{}{}", forged.pem(), member.certificate_pem),
        key_pem: forged_key.serialize_pem(),
        ..member
    };
    let refused = greet(&stranger(Some(&credentials), world.authority.certificate_pem()), &listener).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_nobody(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_system_under_the_same_authority_is_refused() {
    let world = World::new();
    let mut listener = world.listener("e1");
    // The authority's key, stolen or shared, signs for a system of another name.
    let text = std::fs::read_to_string(world.dir.path().join("authority/authority.pem")).unwrap();
    let key = rcgen::KeyPair::from_pem(&text).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(world.authority.certificate_pem(), key).unwrap();
    let own = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.subject_alt_names = vec![rcgen::SanType::URI("spiffe://bank/node/w1".try_into().unwrap())];
    let certificate = params.signed_by(&own, &issuer).unwrap();
    let credentials = Credentials {
        authority_pem: world.authority.certificate_pem().into(),
        certificate_pem: certificate.pem(),
        key_pem: own.serialize_pem(),
    };
    let refused = greet(&stranger(Some(&credentials), world.authority.certificate_pem()), &listener).await;
    assert!(refused.is_err(), "{refused:?}");
    assert_nobody(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_dropped_and_others_are_served() {
    let world = World::new();
    let mut listener = world.listener("e1");
    let http = b"GET / HTTP/1.1\r\nHost: e1\r\n\r\n".to_vec();
    let hello_that_never_ends = [vec![22, 3, 1, 0x40, 0], vec![1; 9000]].concat();
    for garbage in [http, vec![0; 100_000], hello_that_never_ends, b"P\0\0\0\x01x".to_vec()] {
        let mut tcp = TcpStream::connect(listener.local_addr()).await.unwrap();
        // The other side may have closed before everything is written.
        let _ = tcp.write_all(&garbage).await;
        let mut answer = Vec::new();
        let _ = timeout(HANDSHAKE_DEADLINE * 2, tcp.read_to_end(&mut answer)).await.expect("still open");
        assert!(answer.len() < 64, "a stranger was told {answer:?}");
    }
    let served = dial_as(&world.identity("w1"), &listener, "e1", StreamKind::Peer).await;
    assert!(served.is_ok());
    assert_eq!(accept(&mut listener).await.peer, NodeName::from("w1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_kind_of_connection_is_closed() {
    let world = World::new();
    let mut listener = world.listener("e1");
    let member = world.credentials("w1");
    let connector = stranger(Some(&member), world.authority.certificate_pem());
    let tcp = TcpStream::connect(listener.local_addr()).await.unwrap();
    let mut tls = connector.connect("127.0.0.1".try_into().unwrap(), tcp).await.unwrap();
    tls.write_all(b"?").await.unwrap();
    assert!(timeout(DEADLINE, tls.read_u8()).await.unwrap().is_err());
    assert_nobody(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalling_strangers_do_not_keep_others_out() {
    let world = World::new();
    let mut listener = world.listener("e1");
    let mut stalling = Vec::new();
    for _ in 0..MAX_PENDING_HANDSHAKES + 50 {
        stalling.push(TcpStream::connect(listener.local_addr()).await.unwrap());
    }
    let begin = Instant::now();
    for _ in 0..10 {
        dial_as(&world.identity("w1"), &listener, "e1", StreamKind::Peer).await.unwrap();
        accept(&mut listener).await;
    }
    let served = begin.elapsed();
    assert!(served < HANDSHAKE_DEADLINE, "ten honest peers needed {served:?}");
    for mut stranger in stalling {
        let closed = timeout(HANDSHAKE_DEADLINE * 2, stranger.read_u8()).await;
        assert!(matches!(closed, Ok(Err(_))), "a stalling stranger was kept: {closed:?}");
    }
    println!("{} stalling strangers; ten honest handshakes took {served:?}", MAX_PENDING_HANDSHAKES + 50);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_stalls_after_tls_is_dropped() {
    let world = World::new();
    let mut listener = world.listener("e1");
    let member = world.credentials("w1");
    let connector = stranger(Some(&member), world.authority.certificate_pem());
    let tcp = TcpStream::connect(listener.local_addr()).await.unwrap();
    let mut tls = connector.connect("127.0.0.1".try_into().unwrap(), tcp).await.unwrap();
    let begin = Instant::now();
    assert!(timeout(HANDSHAKE_DEADLINE * 2, tls.read_u8()).await.unwrap().is_err());
    assert!(begin.elapsed() > HANDSHAKE_DEADLINE / 2);
    assert_nobody(&mut listener).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_costs_only_the_deadline() {
    let world = World::new();
    let silent = tokio::net::TcpListener::bind(any_port()).await.unwrap();
    let begin = Instant::now();
    let deadline = Duration::from_millis(200);
    let address = silent.local_addr().unwrap();
    let result = dial(address, &"e1".into(), StreamKind::Peer, &world.identity("w1"), deadline, None).await;
    assert!(matches!(result, Err(DialError::TimedOut { .. })), "{result:?}");
    assert!(begin.elapsed() < deadline * 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_frame_ends_the_connection_without_being_read() {
    let world = World::new();
    let mut listener = world.listener("e1");
    let member = world.credentials("w1");
    let connector = stranger(Some(&member), world.authority.certificate_pem());
    let tcp = TcpStream::connect(listener.local_addr()).await.unwrap();
    let mut tls = connector.connect("127.0.0.1".try_into().unwrap(), tcp).await.unwrap();
    tls.write_all(b"P").await.unwrap();
    let mut accepted = accept(&mut listener).await;
    tls.write_all(&0x0010_0001_u32.to_be_bytes()).await.unwrap();
    let refused = timeout(DEADLINE, accepted.connection.recv()).await.unwrap();
    assert!(
        matches!(refused, Err(FrameError::TooLong { length: 0x0010_0001, limit: 0x0010_0000 })),
        "{refused:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_cut_in_the_middle_is_an_error() {
    let world = World::new();
    let (there, here, _listener) = pair(&world, StreamKind::Raft).await;
    let (mut sender, receiver) = there.split();
    let (_here_sender, mut here_receiver) = here.connection.split();
    let body = vec![0; 8 << 20];
    // Cancelled half-way, then closed.
    assert!(timeout(Duration::from_millis(200), sender.send(&body)).await.is_err());
    drop((sender, receiver));
    let cut = timeout(DEADLINE, here_receiver.recv()).await.unwrap();
    assert!(matches!(cut, Err(FrameError::Ended)), "{cut:?}");
}

#[test]
fn a_system_name_that_is_no_name_gets_no_authority() {
    let dir = tempfile::tempdir().unwrap();
    let refused = Authority::create(dir.path(), &SystemName::from("shop/node/e1"));
    assert!(refused.unwrap_err().to_string().contains("not a valid name"));
}
