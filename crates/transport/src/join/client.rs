//! The side of the new node.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use model::NodeName;
use rcgen::KeyPair;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio_rustls::{TlsConnector, TlsStream};

use super::token::JoinToken;
use super::wire::{Application, MAX_JOIN_ANSWER, MAX_JOIN_FRAME, Verdict};
use crate::certificate::{Fingerprint, NodeCertificate};
use crate::frame::{self, FrameError};
use crate::identity::{self, Credentials, Identity, IdentityError};
use crate::tls::{self, ALPN_JOIN, PeerFault};
use crate::{files, socket};

/// Data unacknowledged for longer ends the attempt.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);
/// Where the key of an unfinished attempt waits, so that a repeated attempt is the same request.
const PENDING_KEY: &str = "joining.key";
const PENDING_REQUEST: &str = "joining.csr";

/// Why a node could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The token's own date is over.
    #[error("the join token has expired; make a new one on a running node")]
    Expired,
    /// No TCP connection.
    #[error("cannot connect to {address}: {source}")]
    Connect {
        /// The address given.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Someone else listens there, or someone is in between.
    #[error("{address}: {fault}; the token or the address is of another system, or someone is in between")]
    OtherSystem {
        /// The address given.
        address: SocketAddr,
        /// What the server showed.
        fault: PeerFault,
    },
    /// No node of Mainstay there.
    #[error("{address} is not a node that can be joined: {reason}")]
    Handshake {
        /// The address given.
        address: SocketAddr,
        /// What the TLS library says.
        reason: String,
    },
    /// The node said no.
    #[error("{address} refused: {reason}")]
    Refused {
        /// The address given.
        address: SocketAddr,
        /// Its words.
        reason: String,
    },
    /// The connection broke before the answer.
    #[error(
        "the connection to {address} broke before the answer came: {reason}; try again with the same token"
    )]
    Broken {
        /// The address given.
        address: SocketAddr,
        /// How.
        reason: String,
    },
    /// No answer in time.
    #[error("{address} did not answer within {} ms; try again with the same token", waited.as_millis())]
    TimedOut {
        /// The address given.
        address: SocketAddr,
        /// The deadline given.
        waited: Duration,
    },
    /// The answer does not fit the token or the request.
    #[error("{address} answered with a certificate that does not fit: {reason}")]
    WrongAnswer {
        /// The address given.
        address: SocketAddr,
        /// What does not fit.
        reason: String,
    },
    /// The identity cannot be stored.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The cryptography library refused.
    #[error("cannot make a key: {0}")]
    Crypto(String),
}

/// A system that has let this node in; nothing is stored yet but the key (see [`Joined::keep`]).
#[derive(Debug)]
pub struct Joined {
    /// Who this node is now.
    pub identity: Identity,
    /// What the desk told of the system (see [`super::Admission::system`]).
    pub system: String,
    credentials: Credentials,
    dir: PathBuf,
}

impl Joined {
    /// Stores the identity: with this the node has joined. Whatever else it needs is stored before.
    pub fn keep(self) -> Result<Identity, JoinError> {
        self.credentials.write(&self.dir)?;
        for leftover in [PENDING_KEY, PENDING_REQUEST] {
            // A leftover does no harm: the next join replaces it.
            let _ = std::fs::remove_file(self.dir.join(leftover));
        }
        Ok(self.identity)
    }
}

/// Joins the system of `token` as `node` through the node at `address`, within `deadline`; the identity is to be kept in
/// `dir`. May be repeated with the same token until [`Joined::keep`].
pub async fn join(
    address: SocketAddr,
    token: &JoinToken,
    node: &NodeName,
    dir: &Path,
    deadline: Duration,
) -> Result<Joined, JoinError> {
    if token.expires_at <= SystemTime::now() {
        return Err(JoinError::Expired);
    }
    let (key, csr_pem) = pending_request(dir)?;
    let application = Application { secret: token.secret.text(), node: node.to_string(), csr_pem };
    let exchanged = tokio::time::timeout(deadline, exchange(address, token, &application)).await;
    let verdict = exchanged.map_err(|_| JoinError::TimedOut { address, waited: deadline })??;
    let (certificate_pem, authority_pem, system) = match verdict {
        Verdict::Refused { reason } => return Err(JoinError::Refused { address, reason }),
        Verdict::Admitted { certificate_pem, authority_pem, system } => {
            (certificate_pem, authority_pem, system)
        }
    };
    let credentials = Credentials { authority_pem, certificate_pem, key_pem: key.serialize_pem() };
    let wrong = |reason: String| JoinError::WrongAnswer { address, reason };
    let identity =
        Identity::from_credentials(credentials.clone()).map_err(|error| wrong(error.to_string()))?;
    if identity.authority() != token.authority {
        return Err(wrong("its authority is not the token's".into()));
    }
    if identity.node() != *node {
        return Err(wrong(format!("it is for node `{}`", identity.node())));
    }
    Ok(Joined { identity, system, credentials, dir: dir.to_owned() })
}

/// The key and request of an earlier attempt in `dir`, or new ones, stored there.
fn pending_request(dir: &Path) -> Result<(KeyPair, String), JoinError> {
    let stored = (files::read(&dir.join(PENDING_KEY)), files::read(&dir.join(PENDING_REQUEST)));
    if let (Ok(key), Ok(request)) = stored
        && let Ok(key) = KeyPair::from_pem(&key)
    {
        return Ok((key, request));
    }
    let crypto = |error: rcgen::Error| JoinError::Crypto(error.to_string());
    let key = KeyPair::generate().map_err(crypto)?;
    let request = identity::certificate_request(&key).map_err(crypto)?;
    let store = |file: &str, text: &str| {
        files::write_secret(&dir.join(file), text.as_bytes(), files::Existing::Replace)
    };
    files::create_dir(dir).map_err(IdentityError::from)?;
    // The request goes first away and comes last: a pair that is read is a pair.
    let _ = std::fs::remove_file(dir.join(PENDING_REQUEST));
    store(PENDING_KEY, &key.serialize_pem()).map_err(IdentityError::from)?;
    store(PENDING_REQUEST, &request).map_err(IdentityError::from)?;
    Ok((key, request))
}

async fn exchange(
    address: SocketAddr,
    token: &JoinToken,
    application: &Application,
) -> Result<Verdict, JoinError> {
    let connect = |source| JoinError::Connect { address, source };
    let stream = socket::connect(address, None).await.map_err(connect)?;
    socket::tune(&stream, UNACKNOWLEDGED).map_err(connect)?;
    let handshake = |reason: String| JoinError::Handshake { address, reason };
    let config = pinned_client(token.authority).map_err(|error| handshake(error.to_string()))?;
    let name = ServerName::from(address.ip());
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let stream = connected.map_err(|error| match tls::peer_fault(&error) {
        Some(fault) => JoinError::OtherSystem { address, fault },
        None => handshake(error.to_string()),
    })?;
    let (mut sender, mut receiver) =
        frame::split_uneven(TlsStream::from(stream), MAX_JOIN_FRAME, MAX_JOIN_ANSWER);
    let broken = |error: FrameError| JoinError::Broken { address, reason: error.to_string() };
    // A server that refuses at once may close before it has read everything; its answer counts more than our error.
    let sent = sender.send_json(application).await;
    match receiver.recv_json().await {
        Ok(verdict) => Ok(verdict),
        Err(error) => Err(broken(sent.err().unwrap_or(error))),
    }
}

fn pinned_client(authority: Fingerprint) -> Result<ClientConfig, Error> {
    let verifier = PinnedAuthority { authority, provider: tls::provider() };
    let mut config = ClientConfig::builder_with_provider(tls::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN_JOIN.to_vec()];
    tls::harden_client(&mut config);
    Ok(config)
}

/// Accepts any node whose chain carries the authority with this fingerprint and was signed by it.
#[derive(Debug)]
struct PinnedAuthority {
    authority: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates.iter().find(|certificate| Fingerprint::of(certificate) == self.authority);
        let pinned =
            pinned.ok_or_else(|| tls::fail(PeerFault::OtherAuthority { expected: self.authority }))?;
        let roots = tls::roots(pinned.clone().into_owned())?;
        tls::verify_issued(end_entity, &[], &roots, now, &self.provider)?;
        NodeCertificate::read(end_entity).map_err(|fault| tls::fail(PeerFault::Nameless(fault)))?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
