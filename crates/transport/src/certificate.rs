//! What a certificate says: fingerprint, system, node, validity.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use model::{NodeName, SystemName};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;

use crate::hex;

/// SHA-256 of a certificate's DER form. That of the authority names a system beyond doubt.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; 32]);

/// The node a certificate was issued to, and how long it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeCertificate {
    /// The system that issued it.
    pub system: SystemName,
    /// The node it was issued to.
    pub node: NodeName,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
    pub(crate) public_key: Vec<u8>,
}

/// Why bytes are not a node's certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// Not X.509 at all.
    #[error("it is not an X.509 certificate")]
    Malformed,
    /// No name of the form `spiffe://SYSTEM/node/NAME`, or several.
    #[error("it does not carry exactly one name of the form spiffe://SYSTEM/node/NAME")]
    NoNode,
    /// The authority's certificate does not match its own signature.
    #[error("it was altered: its signature does not match")]
    Altered,
}

impl Fingerprint {
    /// The fingerprint of a certificate given in DER.
    pub fn of(der: &[u8]) -> Self {
        Self(sha256(der))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        hex::decode(text).map(Self).ok_or(())
    }
}

impl NodeCertificate {
    /// Reads a node's certificate from DER. Says nothing about who signed it.
    pub fn read(der: &[u8]) -> Result<Self, CertificateFault> {
        let certificate = parse(der)?;
        let (system, node) = node_of(&certificate).ok_or(CertificateFault::NoNode)?;
        let validity = &certificate.tbs_certificate.validity;
        Ok(Self {
            system,
            node,
            not_before: instant(validity.not_before),
            not_after: instant(validity.not_after),
            public_key: public_key(&certificate),
        })
    }
}

/// The name inside a node's certificate: `spiffe://shop/node/e1`.
pub(crate) fn node_uri(system: &SystemName, node: &NodeName) -> String {
    format!("spiffe://{system}/node/{node}")
}

/// The name inside the authority's certificate: `spiffe://shop`.
pub(crate) fn system_uri(system: &SystemName) -> String {
    format!("spiffe://{system}")
}

/// The system whose authority this certificate belongs to, and its public key.
pub(crate) fn read_authority(der: &[u8]) -> Result<(SystemName, Vec<u8>), CertificateFault> {
    let certificate = parse(der)?;
    let uri = only_uri(&certificate).ok_or(CertificateFault::Malformed)?;
    let system = uri.strip_prefix("spiffe://").filter(|name| model::name::is_valid(name));
    // TLS never looks at an authority's own signature. We do: a flipped bit on the disk would change the fingerprint.
    certificate.verify_signature(None).map_err(|_| CertificateFault::Altered)?;
    Ok((SystemName::new(system.ok_or(CertificateFault::Malformed)?), public_key(&certificate)))
}

pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateFault> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) | Err(_) => Err(CertificateFault::Malformed),
    }
}

fn node_of(certificate: &X509Certificate<'_>) -> Option<(SystemName, NodeName)> {
    let (system, node) = only_uri(certificate)?.strip_prefix("spiffe://")?.split_once("/node/")?;
    let valid = model::name::is_valid(system) && model::name::is_valid(node);
    valid.then(|| (SystemName::new(system), NodeName::new(node)))
}

fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut uris =
        names.iter().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
    uris.next().filter(|_| uris.next().is_none())
}

fn public_key(certificate: &X509Certificate<'_>) -> Vec<u8> {
    certificate.tbs_certificate.subject_pki.subject_public_key.data.to_vec()
}

fn instant(time: ASN1Time) -> SystemTime {
    let seconds = Duration::from_secs(time.timestamp().unsigned_abs());
    if time.timestamp() < 0 { SystemTime::UNIX_EPOCH - seconds } else { SystemTime::UNIX_EPOCH + seconds }
}
