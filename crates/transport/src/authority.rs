//! The system's own certificate authority.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aws_lc_rs::rand;
use model::{NodeName, SystemName};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::certificate::{self, Fingerprint};
use crate::files::{self, Existing, FileError};
use crate::identity::Credentials;

/// How long the authority's certificate counts: ten years.
pub const AUTHORITY_LIFETIME: Duration = days(3650);
/// How long a node's certificate counts: one year. It is renewed before two thirds of that.
pub const NODE_LIFETIME: Duration = days(365);
/// A certificate counts from one day before it was issued, so that a node whose clock is behind accepts it.
const CLOCK_TOLERANCE: Duration = days(1);
/// Key and certificate in one file, so that no crash leaves one without the other.
const FILE: &str = "authority.pem";

/// The authority of one system: signs the certificates of its nodes. Whoever holds its file can make any node.
pub struct Authority {
    system: SystemName,
    certificate_pem: String,
    fingerprint: Fingerprint,
    issuer: Issuer<'static, KeyPair>,
}

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The directory cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// `create` never replaces an authority: every certificate in the system would be void.
    #[error("{} exists already; load it, or start with another state directory", .0.display())]
    Exists(PathBuf),
    /// Nothing was created here yet.
    #[error("there is no authority in {}; it lies on the node that founded the system", .0.display())]
    Missing(PathBuf),
    /// The file is damaged.
    #[error("{} is not a system authority: {reason}; restore it from a copy of the state directory", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The request to sign is not one, or its signature does not match its key.
    #[error("the certificate request is not valid: {0}")]
    Request(String),
    /// The name would not fit into a certificate or host name.
    #[error("`{0}` is not a valid name: lower-case letters, digits and `-`, starting with a letter")]
    Name(String),
    /// The cryptography library refused.
    #[error("cannot make a certificate: {0}")]
    Crypto(String),
}

impl Authority {
    /// Makes a new authority (ECDSA P-256, ten years) and stores it in `dir`, which is created with mode 0700.
    pub fn create(dir: &Path, system: &SystemName) -> Result<Self, AuthorityError> {
        check_name(system.as_str())?;
        let key = KeyPair::generate()?;
        let certificate = authority_params(system)?.self_signed(&key)?;
        Self::import(dir, &format!("{}{}", key.serialize_pem(), certificate.pem()))
    }

    /// Loads the authority that [`Authority::create`] stored in `dir`.
    pub fn load(dir: &Path) -> Result<Self, AuthorityError> {
        let path = dir.join(FILE);
        let text = match files::read(&path) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => {
                return Err(AuthorityError::Missing(dir.into()));
            }
            read => read?,
        };
        Self::from_pem(&text).map_err(|reason| AuthorityError::Damaged { path, reason })
    }

    /// Its file as text, private key and certificate, for a backup: whoever holds it can make any node.
    pub fn export(dir: &Path) -> Result<String, AuthorityError> {
        Self::load(dir)?;
        Ok(files::read(&dir.join(FILE))?)
    }

    /// Stores the authority that [`Authority::export`] gave in `dir`; one that is there already is never replaced.
    pub fn import(dir: &Path, text: &str) -> Result<Self, AuthorityError> {
        let path = dir.join(FILE);
        Self::from_pem(text).map_err(|reason| AuthorityError::Damaged { path: path.clone(), reason })?;
        files::create_dir(dir)?;
        match files::write_secret(&path, text.as_bytes(), Existing::Keep) {
            Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists => {
                Err(AuthorityError::Exists(path))
            }
            Err(error) => Err(error.into()),
            Ok(()) => Self::load(dir),
        }
    }

    /// Whether [`Authority::create`] has stored an authority in `dir`.
    pub fn exists(dir: &Path) -> bool {
        dir.join(FILE).exists()
    }

    /// The system it belongs to.
    pub fn system(&self) -> &SystemName {
        &self.system
    }

    /// Its certificate, to be known by every node.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The fingerprint of its certificate, as carried by join tokens.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Makes a key and a certificate for `node`, valid for one year from now.
    pub fn issue(&self, node: &NodeName, addresses: &[IpAddr]) -> Result<Credentials, AuthorityError> {
        self.issue_until(node, addresses, SystemTime::now() + NODE_LIFETIME)
    }

    /// Like [`Authority::issue`], valid until `end`.
    pub fn issue_until(
        &self,
        node: &NodeName,
        addresses: &[IpAddr],
        end: SystemTime,
    ) -> Result<Credentials, AuthorityError> {
        let key = KeyPair::generate()?;
        let params = self.node_params(node, addresses, end)?;
        Ok(Credentials {
            authority_pem: self.certificate_pem.clone(),
            certificate_pem: params.signed_by(&key, &self.issuer)?.pem(),
            key_pem: key.serialize_pem(),
        })
    }

    /// Signs the key of a certificate request (PEM, PKCS#10) as `node` for one year; answers the certificate in PEM.
    /// Names and rights that the request asks for are ignored: the caller decides who it is.
    pub fn sign_csr(
        &self,
        csr_pem: &str,
        node: &NodeName,
        addresses: &[IpAddr],
    ) -> Result<String, AuthorityError> {
        let mut request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|e| AuthorityError::Request(e.to_string()))?;
        request.params = self.node_params(node, addresses, SystemTime::now() + NODE_LIFETIME)?;
        Ok(request.signed_by(&self.issuer)?.pem())
    }

    fn from_pem(text: &str) -> Result<Self, String> {
        let key =
            KeyPair::from_pem(text).map_err(|error| format!("its private key is unreadable ({error})"))?;
        let der = CertificateDer::from_pem_slice(text.as_bytes())
            .map_err(|error| format!("its certificate is unreadable ({error})"))?;
        let (system, public_key) = certificate::read_authority(&der).map_err(|fault| fault.to_string())?;
        if public_key != key.public_key_raw() {
            return Err("its private key does not belong to its certificate".into());
        }
        let certificate_pem = text[text.find("-----BEGIN CERTIFICATE").unwrap_or(0)..].to_owned();
        let fingerprint = Fingerprint::of(&der);
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(|error| error.to_string())?;
        Ok(Self { system, certificate_pem, fingerprint, issuer })
    }

    fn node_params(
        &self,
        node: &NodeName,
        addresses: &[IpAddr],
        end: SystemTime,
    ) -> Result<CertificateParams, AuthorityError> {
        check_name(node.as_str())?;
        let mut params =
            params(node.as_str(), &self.system, &certificate::node_uri(&self.system, node), end)?;
        params.subject_alt_names.extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authority({}, {})", self.system, self.fingerprint)
    }
}

impl From<rcgen::Error> for AuthorityError {
    fn from(error: rcgen::Error) -> Self {
        Self::Crypto(error.to_string())
    }
}

fn authority_params(system: &SystemName) -> Result<CertificateParams, AuthorityError> {
    let name = format!("{system} authority");
    let mut params =
        params(&name, system, &certificate::system_uri(system), SystemTime::now() + AUTHORITY_LIFETIME)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn params(
    common_name: &str,
    system: &SystemName,
    uri: &str,
    end: SystemTime,
) -> Result<CertificateParams, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, system.as_str());
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
    params.not_before = (SystemTime::now() - CLOCK_TOLERANCE).into();
    params.not_after = end.into();
    params.serial_number = Some(random_serial()?);
    Ok(params)
}

/// RFC 5280 4.1.2.2: positive, unique per authority, at most 20 bytes. rcgen's default depends on the key alone and
/// would repeat at a renewal.
fn random_serial() -> Result<SerialNumber, AuthorityError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| AuthorityError::Crypto("no random numbers".into()))?;
    bytes[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&bytes))
}

fn check_name(name: &str) -> Result<(), AuthorityError> {
    if model::name::is_valid(name) { Ok(()) } else { Err(AuthorityError::Name(name.to_owned())) }
}

const fn days(number: u64) -> Duration {
    Duration::from_secs(number * 24 * 60 * 60)
}
