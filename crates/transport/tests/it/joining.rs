//! Nodes that have a token instead of a certificate.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use model::NodeName;
use transport::{
    Admission, Identity, JoinError, JoinRequest, JoinToken, Listener, StreamKind, TokenBook, join,
};

use crate::support::{DEADLINE, World, accept, assert_nobody, dial_as};

const HOUR: Duration = Duration::from_secs(3600);

/// A founding node with an open door.
struct Door {
    world: Arc<World>,
    book: Arc<Mutex<TokenBook>>,
    asked: Arc<AtomicUsize>,
    listener: Listener,
}

impl Door {
    fn open() -> Self {
        let world = Arc::new(World::new());
        let (book, asked) = (Arc::new(Mutex::new(TokenBook::default())), Arc::new(AtomicUsize::new(0)));
        let listener = world.listener("e1");
        let desk = {
            let (world, book, asked) = (world.clone(), book.clone(), asked.clone());
            move |request: &JoinRequest| -> Result<Admission, String> {
                asked.fetch_add(1, Ordering::Relaxed);
                book.lock()
                    .unwrap()
                    .redeem(request, SystemTime::now())
                    .map_err(|refusal| refusal.to_string())?;
                let signed = world.authority.sign_csr(&request.csr_pem, &request.node, &[request.from.ip()]);
                let certificate_pem = signed.map_err(|error| error.to_string())?;
                Ok(Admission { certificate_pem, system: "the system file".repeat(100_000) })
            }
        };
        listener.offer_join(Arc::new(desk));
        Self { world, book, asked, listener }
    }

    fn token(&self, lifetime: Duration) -> JoinToken {
        let authority = self.world.authority.fingerprint();
        self.book.lock().unwrap().issue(authority, None, lifetime, SystemTime::now()).unwrap()
    }

    async fn join(&self, token: &JoinToken, node: &str, dir: &str) -> Result<Identity, JoinError> {
        let dir = self.world.dir.path().join(dir);
        let joined = join(self.listener.local_addr(), token, &NodeName::from(node), &dir, DEADLINE).await?;
        assert_eq!(joined.system.len(), 1_500_000);
        joined.keep()
    }

    async fn refusal(&self, token: &JoinToken, node: &str, dir: &str) -> String {
        let refused = self.join(token, node, dir).await;
        assert!(matches!(refused, Err(JoinError::Refused { .. })), "{refused:?}");
        refused.unwrap_err().to_string()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_makes_a_member() {
    let mut door = Door::open();
    let token = door.token(HOUR).to_string().parse().unwrap();
    door.join(&token, "w1", "w1").await.unwrap();

    let identity = Identity::load(&door.world.dir.path().join("w1"), &"shop".into()).unwrap();
    assert_eq!(identity.authority(), door.world.authority.fingerprint());
    let _connection = dial_as(&identity, &door.listener, "e1", StreamKind::Peer).await.unwrap();
    assert_eq!(accept(&mut door.listener).await.peer, NodeName::from("w1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_counts_once() {
    let door = Door::open();
    let token = door.token(HOUR);
    door.join(&token, "w1", "w1").await.unwrap();
    let refused = door.refusal(&token, "n1", "n1").await;
    assert!(refused.contains("already used by node `w1`"), "{refused}");
    let same_name = door.refusal(&token, "w1", "elsewhere").await;
    assert!(same_name.contains("already used by node `w1`"), "{same_name}");
    assert!(!Identity::exists(&door.world.dir.path().join("n1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_and_an_expired_token_are_refused_in_words() {
    let door = Door::open();
    let unknown = TokenBook::default()
        .issue(door.world.authority.fingerprint(), None, HOUR, SystemTime::now())
        .unwrap();
    assert!(door.refusal(&unknown, "w1", "a").await.contains("not known to this system"));

    let mut expired = door.token(Duration::ZERO);
    assert!(matches!(door.join(&expired, "w1", "b").await, Err(JoinError::Expired)));
    // Someone who edits the end in the text is still told by the server.
    expired.expires_at = SystemTime::now() + HOUR;
    assert!(door.refusal(&expired, "w1", "c").await.contains("has expired"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_another_authority_learns_nothing() {
    let (door, other) = (Door::open(), Door::open());
    let token = other.token(HOUR);
    let refused = door.join(&token, "w1", "w1").await.unwrap_err();
    assert!(matches!(refused, JoinError::OtherSystem { .. }), "{refused:?}");
    assert!(refused.to_string().contains("someone is in between"), "{refused}");
    assert_eq!(door.asked.load(Ordering::Relaxed), 0);
    // The token is unused.
    other.join(&token, "w1", "w1").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_is_slowed_down() {
    let door = Door::open();
    for _ in 0..5 {
        let guess = TokenBook::default()
            .issue(door.world.authority.fingerprint(), None, HOUR, SystemTime::now())
            .unwrap();
        door.refusal(&guess, "w1", "guess").await;
    }
    let good = door.token(HOUR);
    let refused = door.refusal(&good, "w1", "w1").await;
    assert!(refused.contains("too many failed attempts"), "{refused}");
    assert_eq!(door.asked.load(Ordering::Relaxed), 5, "a slowed-down guess still reached the desk");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_door_says_so() {
    let door = Door::open();
    door.listener.close_join();
    let refused = door.refusal(&door.token(HOUR), "w1", "w1").await;
    assert!(refused.contains("cannot let others in"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desk_that_answers_with_a_foreign_certificate_is_not_believed() {
    let world = World::new();
    let listener = world.listener("e1");
    let certificate_pem = world.credentials("w1").certificate_pem;
    listener.offer_join(Arc::new(move |_: &JoinRequest| -> Result<Admission, String> {
        Ok(Admission { certificate_pem: certificate_pem.clone(), system: String::new() })
    }));
    let authority = world.authority.fingerprint();
    let token = TokenBook::default().issue(authority, None, HOUR, SystemTime::now()).unwrap();
    let dir = world.dir.path().join("w1");
    let refused = join(listener.local_addr(), &token, &"w1".into(), &dir, DEADLINE).await;
    assert!(matches!(refused, Err(JoinError::WrongAnswer { .. })), "{refused:?}");
    assert!(!Identity::exists(&dir));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_desk_that_panics_refuses() {
    let world = World::new();
    let listener = world.listener("e1");
    listener.offer_join(Arc::new(|_: &JoinRequest| -> Result<Admission, String> {
        panic!("the desk is broken")
    }));
    let authority = world.authority.fingerprint();
    let token = TokenBook::default().issue(authority, None, HOUR, SystemTime::now()).unwrap();
    let refused =
        join(listener.local_addr(), &token, &"w1".into(), &world.dir.path().join("w1"), DEADLINE).await;
    assert!(matches!(refused, Err(JoinError::Refused { .. })), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again_with_the_same_token() {
    let door = Door::open();
    let token = door.token(HOUR);
    let dir = door.world.dir.path().join("w1");
    let address = door.listener.local_addr();
    // A deadline so short that it ends somewhere on the way, at growing distances.
    for micros in (0..20_000).step_by(500) {
        let early = join(address, &token, &"w1".into(), &dir, Duration::from_micros(micros)).await;
        if let Ok(joined) = early {
            joined.keep().unwrap();
            break;
        }
    }
    let identity = match Identity::load(&dir, &"shop".into()) {
        Ok(identity) => identity,
        Err(_) => door.join(&token, "w1", "w1").await.unwrap(),
    };
    assert_eq!(identity.node(), NodeName::from("w1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_or_malformed_application_is_refused() {
    let mut door = Door::open();
    for body in [vec![b'x'; 20_000], b"{}".to_vec(), br#"{"secret":"00","node":"w1","csr_pem":""}"#.to_vec()]
    {
        let answer = raw_application(&door, &body).await;
        assert!(answer.contains("refused"), "{answer}");
    }
    assert_eq!(door.asked.load(Ordering::Relaxed), 0);
    assert_nobody(&mut door.listener).await;
}

/// Sends bytes where an application belongs, as a client that does not care whom it talks to.
async fn raw_application(door: &Door, body: &[u8]) -> String {
    use rustls::pki_types::pem::PemObject;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let mut roots = rustls::RootCertStore::empty();
    let authority = door.world.authority.certificate_pem();
    roots.add(rustls::pki_types::CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"mainstay-join/1".to_vec()];
    let tcp = tokio::net::TcpStream::connect(door.listener.local_addr()).await.unwrap();
    let name = IpAddr::from(Ipv4Addr::LOCALHOST).into();
    let mut tls = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap();
    tls.write_all(&u32::try_from(body.len()).unwrap().to_be_bytes()).await.unwrap();
    tls.write_all(body).await.unwrap();
    tls.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(DEADLINE, tls.read_to_end(&mut answer)).await.expect("no answer");
    String::from_utf8_lossy(&answer).into_owned()
}
