//! Who this node is: its certificate and key, and the authority it trusts.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::SystemTime;

use model::{NodeName, SystemName};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ServerConfig};
use time::OffsetDateTime;

use crate::certificate::{self, CertificateFault, Fingerprint, NodeCertificate};
use crate::files::{self, Existing, FileError};
use crate::tls::{self, NodeKey, SystemVerifier};

const AUTHORITY_FILE: &str = "ca.pem";
const CERTIFICATE_FILE: &str = "node.pem";
const KEY_FILE: &str = "node.key";

/// The three texts that make a node: what an authority issues and an identity directory holds.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The authority's certificate (`ca.pem`).
    pub authority_pem: String,
    /// The node's certificate (`node.pem`).
    pub certificate_pem: String,
    /// The node's private key (`node.key`), PKCS#8.
    pub key_pem: String,
}

/// A loaded identity. Clones share it: after [`Identity::renew`] all of them use the new certificate.
#[derive(Clone)]
pub struct Identity {
    current: Arc<RwLock<Arc<Loaded>>>,
}

/// Why a node has no usable identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// One of the files is not there.
    #[error("{} is missing; this node has not joined a system yet: join it with a token from a running node", .0.display())]
    Missing(PathBuf),
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// Others than the owner may read the key.
    #[error("{} may be read by other users; run `chmod 600 {}`", .0.display(), .0.display())]
    Exposed(PathBuf),
    /// A file does not hold what it should.
    #[error("{file} is damaged: {reason}; join again with a token from a running node")]
    Damaged {
        /// Which of the files.
        file: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate belongs to another system.
    #[error(
        "this identity belongs to system `{found}`, the system file describes `{expected}`; use another state directory"
    )]
    OtherSystem {
        /// The system that was asked for.
        expected: SystemName,
        /// The system in the certificate.
        found: SystemName,
    },
    /// The certificate was not signed by the authority beside it, or not for nodes.
    #[error(
        "node.pem was not issued by the authority in ca.pem: {0}; join again with a token from a running node"
    )]
    NotIssued(String),
    /// The certificate's time is over.
    #[error("the certificate of node `{node}` expired on {on}; check the clock, or join again with a token")]
    Expired {
        /// The node.
        node: NodeName,
        /// The day (UTC) it expired.
        on: String,
    },
    /// The certificate's time has not come.
    #[error("the certificate of node `{node}` counts only from {from}; this node's clock is wrong")]
    NotYetValid {
        /// The node.
        node: NodeName,
        /// The day (UTC) from which it counts.
        from: String,
    },
    /// node.key and node.pem are from different pairs.
    #[error("node.key does not belong to node.pem; join again with a token from a running node")]
    KeyMismatch,
    /// A renewed certificate that names someone else.
    #[error("the renewed certificate is for `{found}`, this node is `{expected}`")]
    OtherNode {
        /// This node.
        expected: NodeName,
        /// The node in the certificate.
        found: NodeName,
    },
}

/// Everything derived from one set of credentials.
pub(crate) struct Loaded {
    certificate: NodeCertificate,
    credentials: Credentials,
    fingerprint: Fingerprint,
    pub(crate) node_server: Arc<ServerConfig>,
    pub(crate) join_server: Arc<ServerConfig>,
    pub(crate) client: Arc<ClientConfig>,
}

impl Credentials {
    /// Stores them in `dir` (created with mode 0700), each file 0600. The certificate comes last: without it the
    /// directory counts as not joined.
    pub fn write(&self, dir: &Path) -> Result<(), IdentityError> {
        files::create_dir(dir)?;
        for (file, text) in self.files() {
            files::write_secret(&dir.join(file), text.as_bytes(), Existing::Replace)?;
        }
        Ok(())
    }

    fn read(dir: &Path) -> Result<Self, IdentityError> {
        let read = |file: &str| match files::read(&dir.join(file)) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                Err(IdentityError::Missing(dir.join(file)))
            }
            read => read.map_err(IdentityError::from),
        };
        let credentials = Self {
            authority_pem: read(AUTHORITY_FILE)?,
            certificate_pem: read(CERTIFICATE_FILE)?,
            key_pem: read(KEY_FILE)?,
        };
        let key = dir.join(KEY_FILE);
        if files::foreign_permissions(&key)? != 0 {
            Err(IdentityError::Exposed(key))
        } else {
            Ok(credentials)
        }
    }

    fn files(&self) -> [(&'static str, &str); 3] {
        [
            (KEY_FILE, &self.key_pem),
            (AUTHORITY_FILE, &self.authority_pem),
            (CERTIFICATE_FILE, &self.certificate_pem),
        ]
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

impl Identity {
    /// Loads `ca.pem`, `node.pem` and `node.key` from `dir` and checks that they fit together, are valid now and
    /// belong to `system`.
    pub fn load(dir: &Path, system: &SystemName) -> Result<Self, IdentityError> {
        let identity = Self::from_credentials(Credentials::read(dir)?)?;
        if identity.system() != *system {
            return Err(IdentityError::OtherSystem { expected: system.clone(), found: identity.system() });
        }
        Ok(identity)
    }

    /// Whether [`Credentials::write`] was completed in `dir`.
    pub fn exists(dir: &Path) -> bool {
        dir.join(CERTIFICATE_FILE).exists()
    }

    /// Checks credentials that come from elsewhere than a directory.
    pub fn from_credentials(credentials: Credentials) -> Result<Self, IdentityError> {
        let loaded = Loaded::new(credentials, SystemTime::now())?;
        Ok(Self { current: Arc::new(RwLock::new(Arc::new(loaded))) })
    }

    /// The node this identity is for.
    pub fn node(&self) -> NodeName {
        self.snapshot().certificate.node.clone()
    }

    /// The system it belongs to.
    pub fn system(&self) -> SystemName {
        self.snapshot().certificate.system.clone()
    }

    /// The fingerprint of the system's authority.
    pub fn authority(&self) -> Fingerprint {
        self.snapshot().fingerprint
    }

    /// The authority's certificate in PEM.
    pub fn authority_pem(&self) -> String {
        self.snapshot().credentials.authority_pem.clone()
    }

    /// When the certificate ends.
    pub fn expires_at(&self) -> SystemTime {
        self.snapshot().certificate.not_after
    }

    /// Whether the certificate should be renewed: half of its time is over, long before it ends.
    pub fn renewal_due(&self, now: SystemTime) -> bool {
        let certificate = &self.snapshot().certificate;
        let total = certificate.not_after.duration_since(certificate.not_before).unwrap_or_default();
        now >= certificate.not_before + total / 2
    }

    /// A certificate request (PEM) for this node's present key, to be signed by [`crate::Authority::sign_csr`].
    ///
    /// The key stays: a renewal then replaces one file and no crash can leave a key without its certificate.
    pub fn renewal_request(&self) -> Result<String, IdentityError> {
        let key = KeyPair::from_pem(&self.snapshot().credentials.key_pem).map_err(damaged(KEY_FILE))?;
        certificate_request(&key).map_err(damaged(KEY_FILE))
    }

    /// Takes a renewed certificate into use, here and in all clones, after storing it in `dir`. New connections use it;
    /// those that stand live on.
    pub fn renew(&self, dir: &Path, certificate_pem: &str) -> Result<(), IdentityError> {
        let old = self.snapshot();
        let credentials =
            Credentials { certificate_pem: certificate_pem.to_owned(), ..old.credentials.clone() };
        let loaded = Loaded::new(credentials, SystemTime::now())?;
        if loaded.certificate.node != old.certificate.node {
            let found = loaded.certificate.node;
            return Err(IdentityError::OtherNode { expected: old.certificate.node.clone(), found });
        }
        files::write_secret(&dir.join(CERTIFICATE_FILE), certificate_pem.as_bytes(), Existing::Replace)?;
        *self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = Arc::new(loaded);
        Ok(())
    }

    pub(crate) fn snapshot(&self) -> Arc<Loaded> {
        self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({} of {})", self.node(), self.system())
    }
}

impl Loaded {
    fn new(credentials: Credentials, now: SystemTime) -> Result<Self, IdentityError> {
        let authority = pem_certificate(&credentials.authority_pem).map_err(damaged(AUTHORITY_FILE))?;
        let own = pem_certificate(&credentials.certificate_pem).map_err(damaged(CERTIFICATE_FILE))?;
        let certificate = NodeCertificate::read(&own).map_err(damaged(CERTIFICATE_FILE))?;
        let (system, _) = certificate::read_authority(&authority).map_err(damaged(AUTHORITY_FILE))?;
        check_key(&certificate, &credentials.key_pem)?;
        check_time(&certificate, now)?;
        if system != certificate.system {
            return Err(IdentityError::NotIssued(format!("ca.pem is the authority of `{system}`")));
        }
        let key = PrivateKeyDer::from_pem_slice(credentials.key_pem.as_bytes()).map_err(damaged(KEY_FILE))?;
        let node_key = NodeKey { chain: vec![own.clone(), authority.clone()], key };
        check_issuer(&own, &authority)?;
        Self::derive(credentials, certificate, &authority, &node_key).map_err(damaged(AUTHORITY_FILE))
    }

    fn derive(
        credentials: Credentials,
        certificate: NodeCertificate,
        authority: &CertificateDer<'static>,
        key: &NodeKey,
    ) -> Result<Self, rustls::Error> {
        let verifier = Arc::new(SystemVerifier::new(certificate.system.clone(), authority.clone())?);
        Ok(Self {
            node_server: Arc::new(tls::node_server(verifier.clone(), key)?),
            join_server: Arc::new(tls::join_server(key)?),
            client: Arc::new(tls::node_client(verifier, key)?),
            fingerprint: Fingerprint::of(authority),
            certificate,
            credentials,
        })
    }
}

/// A request that proves possession of `key` and asks for nothing else.
pub(crate) fn certificate_request(key: &KeyPair) -> Result<String, rcgen::Error> {
    CertificateParams::default().serialize_request(key)?.pem()
}

fn pem_certificate(text: &str) -> Result<CertificateDer<'static>, CertificateFault> {
    CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| CertificateFault::Malformed)
}

fn check_key(certificate: &NodeCertificate, key_pem: &str) -> Result<(), IdentityError> {
    let key = KeyPair::from_pem(key_pem).map_err(damaged(KEY_FILE))?;
    if key.public_key_raw() == certificate.public_key { Ok(()) } else { Err(IdentityError::KeyMismatch) }
}

fn check_time(certificate: &NodeCertificate, now: SystemTime) -> Result<(), IdentityError> {
    let node = certificate.node.clone();
    if now >= certificate.not_after {
        return Err(IdentityError::Expired { node, on: day(certificate.not_after) });
    }
    if now < certificate.not_before {
        return Err(IdentityError::NotYetValid { node, from: day(certificate.not_before) });
    }
    Ok(())
}

fn check_issuer(
    own: &CertificateDer<'static>,
    authority: &CertificateDer<'static>,
) -> Result<(), IdentityError> {
    let not_issued = |error: rustls::Error| IdentityError::NotIssued(error.to_string());
    let roots = tls::roots(authority.clone()).map_err(not_issued)?;
    let now = rustls::pki_types::UnixTime::now();
    tls::verify_issued(own, &[], &roots, now, &tls::provider()).map_err(not_issued)
}

fn damaged<E: fmt::Display>(file: &'static str) -> impl Fn(E) -> IdentityError {
    move |error| IdentityError::Damaged { file, reason: error.to_string() }
}

fn day(time: SystemTime) -> String {
    OffsetDateTime::from(time).date().to_string()
}
