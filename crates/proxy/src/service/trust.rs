//! TLS towards instances: whom a proxy believes to be one.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use model::system::{InstanceTls, Protocol};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::files::Watched;

/// How long an instance may take for the handshake.
const HANDSHAKE_LONGEST: Duration = Duration::from_secs(1);

/// Whom a route believes to be an instance of its service.
#[derive(Debug)]
pub(super) struct Trust {
    described: InstanceTls,
    protocol: Protocol,
    config: Watched<ClientConfig>,
}

/// What came of the last handshake with an instance.
#[derive(Debug, Default)]
pub(super) struct LastHandshake(Mutex<Option<String>>);

impl Trust {
    pub(super) fn new(described: &InstanceTls, protocol: Protocol) -> Self {
        // An instance that does not speak the version of HTTP that the file says is no use: it is offered nothing else.
        let make = match protocol {
            Protocol::H2 => http2,
            Protocol::Http | Protocol::Tcp => http1,
        };
        let config = Watched::new(vec![described.ca.clone()], make);
        Self { described: described.clone(), protocol, config }
    }

    /// Whether it is what the file describes.
    pub(super) fn is_of(&self, described: &InstanceTls, protocol: Protocol) -> bool {
        self.described == *described && self.protocol == protocol
    }

    /// Returns when the authorities have been read.
    pub(super) async fn looked(&self) {
        self.config.looked().await;
    }

    /// Why the authorities cannot be used.
    pub(super) fn trouble(&self) -> Option<String> {
        self.config.trouble()
    }

    /// Shakes hands with an instance, which has to prove that it is one.
    pub(super) async fn shake_hands(
        &self,
        stream: TcpStream,
        address: SocketAddr,
        last: &LastHandshake,
    ) -> io::Result<TlsStream<TcpStream>> {
        let config = self.config.value().ok_or_else(|| io::Error::other("no authorities are known"))?;
        let name = match &self.described.name {
            Some(name) => ServerName::try_from(name.clone()).map_err(io::Error::other)?,
            None => ServerName::IpAddress(address.ip().into()),
        };
        let outcome = match timeout(HANDSHAKE_LONGEST, TlsConnector::from(config).connect(name, stream)).await
        {
            Ok(outcome) => outcome,
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "it does not shake hands")),
        };
        last.note(outcome.as_ref().err());
        outcome
    }
}

impl LastHandshake {
    fn note(&self, error: Option<&io::Error>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error.map(io::Error::to_string);
    }

    /// What went wrong, if it did.
    pub(super) fn trouble(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn http1(contents: &[Vec<u8>]) -> Result<ClientConfig, String> {
    config(contents, b"http/1.1")
}

fn http2(contents: &[Vec<u8>]) -> Result<ClientConfig, String> {
    config(contents, b"h2")
}

fn config(contents: &[Vec<u8>], protocol: &[u8]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&contents.concat()) {
        let certificate = certificate.map_err(|error| format!("it is not PEM: {error}"))?;
        roots.add(certificate).map_err(|error| format!("an authority cannot be used: {error}"))?;
    }
    if roots.is_empty() {
        return Err("it holds no certificate".to_owned());
    }
    let builder = ClientConfig::builder_with_provider(aws_lc_rs::default_provider().into());
    let builder = builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(config)
}
