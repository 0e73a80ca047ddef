//! What only the etcd back end does.

use std::time::{Duration, Instant};

use coordination::etcd::{Etcd, EtcdConfig, EtcdError, EtcdTls};
use coordination::{Coordinator, LeaderHint, Txn};
use model::NodeName;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::conformance::etcd_server::EtcdServer;
use crate::group::PATIENCE;

async fn agent(server: &EtcdServer, name: &str, ttl: Duration) -> Etcd {
    let config = EtcdConfig {
        endpoints: vec![format!("http://{}", server.address)],
        prefix: "/mainstay/test".to_owned(),
        node: NodeName::new(name),
        candidate: true,
        leader_ttl: ttl,
        tls: None,
    };
    Etcd::open(config).await.unwrap()
}

async fn leader_other_than(store: &Etcd, old: Option<&str>) -> LeaderHint {
    let mut hint = store.leader();
    let other = |hint: &LeaderHint| hint.leader.as_ref().is_some_and(|leader| Some(leader.as_str()) != old);
    let found = tokio::time::timeout(4 * PATIENCE, hint.wait_for(other)).await;
    found.expect("a leader").unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_leader_is_followed_by_another_candidate() {
    let server = EtcdServer::start().await;
    let first = agent(&server, "a", Duration::from_secs(2)).await;
    let elected = leader_other_than(&first, None).await;
    let second = agent(&server, "b", Duration::from_secs(2)).await;
    assert_eq!(leader_other_than(&second, None).await, elected, "a newcomer follows");
    let since = Instant::now();
    drop(first);
    let next = leader_other_than(&second, Some("a")).await;
    assert_eq!(next.leader, Some(NodeName::new("b")));
    assert!(next.epoch > elected.epoch);
    println!("lease of the dead leader ran out and the next one took over after {:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_known_to_be_gone_is_deposed_at_once() {
    let server = EtcdServer::start().await;
    let first = agent(&server, "a", Duration::from_secs(600)).await;
    leader_other_than(&first, None).await;
    let second = agent(&server, "b", Duration::from_secs(600)).await;
    leader_other_than(&second, None).await;
    drop(first);
    second.depose(&NodeName::new("c"), PATIENCE).await.unwrap();
    assert_eq!(second.leader().borrow().leader, Some(NodeName::new("a")), "only the one named");
    let since = Instant::now();
    second.depose(&NodeName::new("a"), PATIENCE).await.unwrap();
    leader_other_than(&second, Some("a")).await;
    println!("deposed and replaced after {:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_leader_does_not_wait_for_its_own_lease() {
    let server = EtcdServer::start().await;
    let first = agent(&server, "a", Duration::from_secs(600)).await;
    let before = leader_other_than(&first, None).await;
    drop(first);
    let again = agent(&server, "a", Duration::from_secs(600)).await;
    let mut hint = again.leader();
    let newer = hint.wait_for(|hint| hint.leader.is_some() && hint.epoch > before.epoch);
    tokio::time::timeout(PATIENCE, newer).await.expect("it leads again").unwrap();
}

struct Certificates {
    directory: TempDir,
    ca: String,
    client: (String, String),
}

fn certificates() -> Certificates {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let issue = |name: &str| {
        let key = KeyPair::generate().unwrap();
        let certificate =
            CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (directory, server) = (TempDir::new().unwrap(), issue("127.0.0.1"));
    for (file, text) in [("ca.pem", ca.pem()), ("server.pem", server.0), ("server.key", server.1)] {
        std::fs::write(directory.path().join(file), text).unwrap();
    }
    Certificates { directory, ca: ca.pem(), client: issue("agent") }
}

#[tokio::test(flavor = "multi_thread")]
async fn mutual_tls_is_spoken_and_demanded() {
    let certificates = certificates();
    let file = |name: &str| certificates.directory.path().join(name).display().to_string();
    let arguments = [
        format!("--cert-file={}", file("server.pem")),
        format!("--key-file={}", file("server.key")),
        "--client-cert-auth".to_owned(),
        format!("--trusted-ca-file={}", file("ca.pem")),
    ];
    let server = EtcdServer::start_with("https", &arguments).await;
    let with = |identity: Option<(String, String)>| EtcdConfig {
        endpoints: vec![format!("https://{}", server.address)],
        prefix: "/mainstay/test".to_owned(),
        node: NodeName::new("a"),
        candidate: false,
        leader_ttl: Duration::from_secs(2),
        tls: Some(EtcdTls {
            ca: certificates.ca.clone().into_bytes(),
            identity: identity.map(|(certificate, key)| (certificate.into_bytes(), key.into_bytes())),
        }),
    };
    let known = Etcd::open(with(Some(certificates.client.clone()))).await.unwrap();
    known.txn(Txn::new().put("key", "1"), PATIENCE).await.unwrap();
    let stranger = Etcd::open(with(None)).await.unwrap();
    let refused = stranger.get("key", Duration::from_secs(1)).await;
    assert!(matches!(refused, Err(coordination::Error::Unavailable(_))), "{refused:?}");
    let garbage = Etcd::open(with(Some(("no".to_owned(), "key".to_owned())))).await;
    assert!(matches!(garbage.err(), Some(EtcdError::Config { .. })));
}
