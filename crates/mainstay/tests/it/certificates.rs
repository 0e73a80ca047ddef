//! Certificates of routes in the status of a real system.

use std::path::Path;
use std::time::{Duration, Instant};

use super::lab::Lab;
use super::releases::free_port;

const NAME: &str = "certificates-e2e";

/// How long anything may take. A machine under test may be busy.
const PATIENCE: Duration = Duration::from_secs(30);

/// Puts a pair for a name in place that counts from and until so many days from now.
fn put(folder: &Path, name: &str, from: i64, until: i64) {
    let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let now = time::OffsetDateTime::from(std::time::SystemTime::now());
    parameters.not_before = now + time::Duration::days(from);
    // Some minutes more, so that the day is not over when it is looked at.
    parameters.not_after = now + time::Duration::days(until) + time::Duration::minutes(30);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap();
    std::fs::write(folder.join("tls.key"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("tls.crt"), certificate.pem()).unwrap();
}

/// The status, as soon as it says all of this.
#[track_caller]
fn says(lab: &Lab, words: &[&str]) -> String {
    let begun = Instant::now();
    loop {
        let (_, told) = lab.mainstay(&["status"]);
        if words.iter().all(|words| told.contains(words)) {
            return told;
        }
        assert!(begun.elapsed() < PATIENCE, "{words:?} is not in\n{told}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn the_status_tells_of_certificates_that_clients_refuse_or_soon_will() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    put(folder.path(), "shop.example", -80, 10);
    let path = folder.path().join("mainstay.toml");
    let (port, directory) = (free_port(), folder.path().display().to_string());
    let text = format!(
        "[system]\nname = \"{NAME}\"\n[nodes.e1]\naddress = \"10.95.1.11\"\n[nodes.e2]\naddress = \"10.95.1.12\"\n\
         [nodes.e3]\naddress = \"10.95.1.13\"\n\
         [services.web]\ncommand = [\"/bin/sh\", \"-c\", \"exec sleep 1000\"]\ninstances = 2\n\
         [routes.public]\nlisten = \":{port}\"\nservice = \"web\"\nhost = \"shop.example\"\n\
         tls = {{ certificate = \"{directory}/tls.crt\", key = \"{directory}/tls.key\" }}\n"
    );
    std::fs::write(&path, text).unwrap();
    let lab = Lab::up(NAME, &path);

    println!(
        "{}",
        says(
            &lab,
            &[
                "is degraded: the certificate of the route public ends in 10 days",
                "Certificates",
                ", in 10 days",
                "put a new certificate with its key in their place"
            ]
        )
    );
    put(folder.path(), "shop.example", -1, 89);
    let told = says(&lab, &[", in 89 days", "is healthy"]);
    assert!(!told.contains("What is wrong"), "{told}");
    put(folder.path(), "other.example", -1, 89);
    says(&lab, &["is not for shop.example: clients refuse it there"]);
    put(folder.path(), "shop.example", -90, -1);
    says(&lab, &["is down: the certificate of the route public has ended"]);
    put(folder.path(), "shop.example", -1, 89);
    says(&lab, &["is healthy"]);
    std::fs::write(folder.path().join("tls.key"), "rubbish").unwrap();
    let told =
        says(&lab, &["the route public cannot use a file: TLS: ", "what was read before stays in use"]);
    assert!(told.contains(", in 89 days"), "{told}");
    let (code, _) = lab.mainstay(&["status", "--check"]);
    assert_eq!(code, Some(4));
}
