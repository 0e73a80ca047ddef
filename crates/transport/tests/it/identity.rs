//! What lies in an identity directory, and every way it can be wrong.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use model::{NodeName, SystemName};
use transport::{Authority, AuthorityError, Identity, IdentityError, StreamKind};

use crate::support::{World, accept, dial_as};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

fn stored(world: &World, node: &str) -> PathBuf {
    let dir = world.dir.path().join(node);
    world.credentials(node).write(&dir).unwrap();
    dir
}

fn load(dir: &std::path::Path) -> Result<Identity, IdentityError> {
    Identity::load(dir, &SystemName::from("shop"))
}

#[test]
fn what_was_stored_is_loaded_and_private() {
    let world = World::new();
    let dir = stored(&world, "e1");
    let identity = load(&dir).unwrap();
    assert_eq!((identity.node(), identity.system()), (NodeName::from("e1"), SystemName::from("shop")));
    assert_eq!(identity.authority(), world.authority.fingerprint());
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{:?}", entry.path());
    }
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn an_authority_is_made_once_and_survives_loading() {
    let world = World::new();
    let dir = world.dir.path().join("authority");
    let again = Authority::load(&dir).unwrap();
    assert_eq!(again.fingerprint(), world.authority.fingerprint());
    assert!(matches!(Authority::create(&dir, &"shop".into()), Err(AuthorityError::Exists(_))));
    assert_eq!(Authority::load(&dir).unwrap().fingerprint(), world.authority.fingerprint());
    assert!(matches!(Authority::load(world.dir.path()), Err(AuthorityError::Missing(_))));
}

#[test]
fn a_damaged_authority_says_what_is_wrong() {
    let world = World::new();
    let other = World::new();
    let path = |world: &World| world.dir.path().join("authority/authority.pem");
    let (ours, theirs) =
        (fs::read_to_string(path(&world)).unwrap(), fs::read_to_string(path(&other)).unwrap());
    let certificate = theirs.find("-----BEGIN CERTIFICATE").unwrap();
    let own_key = &ours[..ours.find("-----BEGIN CERTIFICATE").unwrap()];
    let mixed = format!("{own_key}{}", &theirs[certificate..]);
    for (text, reason) in [
        ("", "private key is unreadable"),
        (own_key, "certificate is unreadable"),
        (&mixed, "does not belong"),
    ] {
        fs::write(path(&world), text).unwrap();
        let error = Authority::load(&world.dir.path().join("authority")).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn each_fault_of_an_identity_has_its_own_words() {
    let (world, other) = (World::new(), World::new());
    let dir = stored(&world, "e1");
    let text = |file: &str| fs::read_to_string(dir.join(file)).unwrap();
    let whole = [("ca.pem", text("ca.pem")), ("node.pem", text("node.pem")), ("node.key", text("node.key"))];
    let expired =
        world.authority.issue_until(&"e1".into(), &[], SystemTime::now() - Duration::from_secs(60)).unwrap();
    let foreign = other.credentials("e1");
    let mut altered = world.authority.certificate_pem().to_owned();
    let in_signature = altered.find("-----END").unwrap() - 20;
    let other = if altered.as_bytes()[in_signature] == b'A' { "B" } else { "A" };
    altered.replace_range(in_signature..=in_signature, other);
    let cases: [(&[(&str, &str)], &str); 8] = [
        (&[("ca.pem", &altered)], "ca.pem is damaged: it was altered"),
        (&[("node.pem", "rubbish")], "node.pem is damaged"),
        (&[("node.pem", world.authority.certificate_pem())], "node.pem is damaged"),
        (&[("ca.pem", "")], "ca.pem is damaged"),
        (
            &[("node.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")],
            "node.key is damaged",
        ),
        (&[("node.key", &foreign.key_pem)], "node.key does not belong to node.pem"),
        (&[("ca.pem", &foreign.authority_pem)], "not issued by the authority in ca.pem"),
        (&[("node.pem", &expired.certificate_pem), ("node.key", &expired.key_pem)], "`e1` expired on 20"),
    ];
    for (changes, words) in cases {
        for (file, text) in &whole {
            fs::write(dir.join(file), text).unwrap();
        }
        for (file, text) in changes {
            fs::write(dir.join(file), text).unwrap();
        }
        let error = load(&dir).unwrap_err().to_string();
        assert!(error.contains(words), "expected `{words}` in `{error}`");
    }
}

#[test]
fn a_missing_an_exposed_and_a_foreign_identity_are_refused() {
    let world = World::new();
    let dir = stored(&world, "e1");
    let foreign = Identity::load(&dir, &"bank".into()).unwrap_err().to_string();
    assert!(foreign.contains("belongs to system `shop`"), "{foreign}");

    fs::set_permissions(dir.join("node.key"), fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(load(&dir), Err(IdentityError::Exposed(_))));

    fs::remove_file(dir.join("node.key")).unwrap();
    let missing = load(&dir).unwrap_err().to_string();
    assert!(missing.contains("node.key is missing") && missing.contains("token"), "{missing}");

    fs::create_dir(dir.join("node.key")).unwrap();
    let unreadable = load(&dir).unwrap_err().to_string();
    assert!(unreadable.contains("cannot read"), "{unreadable}");
}

#[test]
fn renewal_is_due_in_the_second_half() {
    let world = World::new();
    let identity = world.identity("e1");
    let now = SystemTime::now();
    assert!(!identity.renewal_due(now + 180 * DAY));
    assert!(identity.renewal_due(now + 184 * DAY));
    let left = identity.expires_at().duration_since(now).unwrap();
    assert!(left > 364 * DAY && left < 366 * DAY, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_used_by_all_clones_and_after_a_restart() {
    let world = World::new();
    let dir = world.dir.path().join("w1");
    world
        .authority
        .issue_until(&"w1".into(), &[], SystemTime::now() + Duration::from_secs(3))
        .unwrap()
        .write(&dir)
        .unwrap();
    let identity = load(&dir).unwrap();
    let clone = identity.clone();
    let request = identity.renewal_request().unwrap();

    let for_other = world.authority.sign_csr(&request, &"n1".into(), &[]).unwrap();
    assert!(matches!(identity.renew(&dir, &for_other), Err(IdentityError::OtherNode { .. })));

    identity.renew(&dir, &world.authority.sign_csr(&request, &"w1".into(), &[]).unwrap()).unwrap();
    tokio::time::sleep(Duration::from_millis(3100)).await;
    let mut listener = world.listener("e1");
    dial_as(&clone, &listener, "e1", StreamKind::Peer).await.unwrap();
    accept(&mut listener).await;
    assert!(load(&dir).unwrap().expires_at() > SystemTime::now() + 300 * DAY);
}

#[test]
fn a_request_gets_the_name_the_authority_decides_and_no_rights() {
    let world = World::new();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut greedy = rcgen::CertificateParams::new(vec!["e1".to_owned()]).unwrap();
    greedy.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    greedy.subject_alt_names.push(rcgen::SanType::URI("spiffe://shop/node/e1".try_into().unwrap()));
    let csr = greedy.serialize_request(&key).unwrap().pem().unwrap();
    let certificate_pem = world.authority.sign_csr(&csr, &"w1".into(), &[]).unwrap();
    let credentials = transport::Credentials {
        authority_pem: world.authority.certificate_pem().into(),
        certificate_pem,
        key_pem: key.serialize_pem(),
    };
    assert_eq!(Identity::from_credentials(credentials).unwrap().node(), NodeName::from("w1"));

    // One flipped character in the middle: the signature no longer fits, or it is no request any more.
    let mut broken = csr.into_bytes();
    let middle = broken.len() / 2;
    broken[middle] = if broken[middle] == b'A' { b'B' } else { b'A' };
    let broken = String::from_utf8(broken).unwrap();
    assert!(matches!(world.authority.sign_csr(&broken, &"w1".into(), &[]), Err(AuthorityError::Request(_))));
}

mod parsing {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn mutated_certificates_and_requests_never_panic(at: prop::sample::Index, byte: u8, cut in 0_usize..3) {
            let world = SHARED.get_or_init(World::new);
            let credentials = world.credentials("e1");
            let der = rustls::pki_types::CertificateDer::from_pem_slice(credentials.certificate_pem.as_bytes());
            let mut der = der.unwrap().to_vec();
            let at_der = at.index(der.len());
            der.splice(at_der..(at_der + cut).min(der.len()), [byte]);
            let _ = transport::NodeCertificate::read(&der);

            let identity = Identity::from_credentials(credentials).unwrap();
            let mut csr = identity.renewal_request().unwrap().into_bytes();
            let at_csr = at.index(csr.len());
            csr.splice(at_csr..(at_csr + cut).min(csr.len()), [byte]);
            let _ = world.authority.sign_csr(&String::from_utf8_lossy(&csr), &"e1".into(), &[]);
        }

        #[test]
        fn mutated_credentials_are_refused_or_still_the_same_node(
            which in 0..3, at: prop::sample::Index, byte in b' '..=b'~', cut in 0_usize..3,
        ) {
            let world = SHARED.get_or_init(World::new);
            let mut credentials = world.credentials("e1");
            let text = match which {
                0 => &mut credentials.authority_pem,
                1 => &mut credentials.certificate_pem,
                _ => &mut credentials.key_pem,
            };
            let at = at.index(text.len());
            let end = (at + cut).min(text.len());
            text.replace_range(at..end, char::from(byte).encode_utf8(&mut [0; 4]));
            if let Ok(identity) = Identity::from_credentials(credentials) {
                prop_assert_eq!(identity.node(), NodeName::from("e1"));
                prop_assert_eq!(identity.authority(), world.authority.fingerprint());
            }
        }

        #[test]
        fn garbage_is_no_certificate(garbage: Vec<u8>) {
            prop_assert!(transport::NodeCertificate::read(&garbage).is_err());
        }
    }

    use rustls::pki_types::pem::PemObject;
    static SHARED: std::sync::OnceLock<World> = std::sync::OnceLock::new();
}
