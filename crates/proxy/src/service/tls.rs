//! HTTPS towards clients: which certificate is shown, and how.

use std::net::IpAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use model::routes::CertificateReport;
use model::system::TlsFiles;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

use super::entrance::Entrance;
use crate::crowd::Crowd;
use crate::files::Watched;

/// How long a handshake may take.
const HANDSHAKE_LONGEST: Duration = Duration::from_secs(5);

/// More names of a certificate are not told.
const NAMES_MOST: usize = 100;

/// A route's certificate with its key.
pub(super) type Identity = Watched<Shown>;

/// What clients are shown, and what it says of itself.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) report: CertificateReport,
}

/// Watches the files of a certificate.
pub(super) fn identity(files: &TlsFiles) -> Identity {
    Watched::new(vec![files.certificate.clone(), files.key.clone()], certified)
}

fn certified(contents: &[Vec<u8>]) -> Result<Shown, String> {
    let [chain, key] = contents else { return Err("two files are needed".to_owned()) };
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
    let chain = chain.map_err(|error| format!("the certificate is not PEM: {error}"))?;
    let report = report(chain.first().ok_or("the first one holds no certificate")?)?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key is not PEM: {error}"))?;
    let key = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(|error| format!("certificate and key cannot be used together: {error}"))?;
    Ok(Shown { key: Arc::new(key), report })
}

/// What a certificate says of itself. One whose time is over can be used all the same: nothing better is there.
fn report(der: &CertificateDer<'_>) -> Result<CertificateReport, String> {
    let (_, certificate) =
        X509Certificate::from_der(der).map_err(|error| format!("the certificate cannot be read: {error}"))?;
    let validity = certificate.validity();
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = names.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
    Ok(CertificateReport {
        begins: validity.not_before.timestamp(),
        ends: validity.not_after.timestamp(),
        names: names.iter().filter_map(name).take(NAMES_MOST).collect(),
    })
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    if let GeneralName::DNSName(name) = name {
        return Some(name.to_ascii_lowercase());
    }
    let GeneralName::IPAddress(bytes) = name else { return None };
    let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
    let address = v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from));
    address.ok().map(|address| address.to_string())
}

/// Shows the certificate of the route that serves the name which a client asks for.
#[derive(Debug)]
struct Chooser(Weak<Entrance>);

impl ResolvesServerCert for Chooser {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.upgrade()?.certificate(hello.server_name())
    }
}

/// How hands are shaken at an entrance.
pub(super) fn config(entrance: Weak<Entrance>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Chooser(entrance)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// Shakes hands, for as long as it may take and while not too many others do.
pub(super) async fn shake_hands(
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    crowd: &Arc<Crowd>,
) -> Option<Box<TlsStream<TcpStream>>> {
    let place = crowd.enter();
    // Boxed: what a handshake needs is given back when it is over.
    let handshake = Box::pin(timeout(HANDSHAKE_LONGEST, acceptor.accept(stream)));
    let outcome = tokio::select! {
        outcome = handshake => outcome,
        () = place.evicted() => return None,
    };
    match outcome {
        Ok(Ok(stream)) => Some(Box::new(stream)),
        Ok(Err(error)) => {
            tracing::debug!(%error, "a handshake failed");
            None
        }
        Err(_) => None,
    }
}

/// Whether both sides have agreed on HTTP/2.
pub(super) fn speaks_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(b"h2")
}
