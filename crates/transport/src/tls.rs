//! The TLS settings of both sides: TLS 1.3, aws-lc-rs, no resumption, every peer named by its certificate.

use std::sync::Arc;

use model::{NodeName, SystemName};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    RootCertStore, ServerConfig, SignatureScheme,
};

use crate::certificate::NodeCertificate;

/// Application protocol of connections between nodes.
pub(crate) const ALPN_NODE: &[u8] = b"mainstay/1";
/// Application protocol of a node that has no certificate yet.
pub(crate) const ALPN_JOIN: &[u8] = b"mainstay-join/1";

/// A peer whose certificate is genuine but not the one expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerFault {
    /// Another node answered.
    #[error("node `{found}` answered where `{expected}` was expected")]
    OtherNode {
        /// The node that was dialled.
        expected: NodeName,
        /// The node that the certificate names.
        found: NodeName,
    },
    /// A node of another system that shares the authority.
    #[error("the peer belongs to system `{found}`, not to `{expected}`")]
    OtherSystem {
        /// Ours.
        expected: SystemName,
        /// The one the certificate names.
        found: SystemName,
    },
    /// The certificate names no node.
    #[error("the peer's certificate names no node: {0}")]
    Nameless(crate::certificate::CertificateFault),
    /// The server's authority is not the one that the join token names.
    #[error("the server's authority is not the one that the token names (expected {expected})")]
    OtherAuthority {
        /// The fingerprint in the token.
        expected: crate::certificate::Fingerprint,
    },
}

/// Verifies that a peer's certificate was issued by the system's authority to a node of the system.
#[derive(Debug)]
pub(crate) struct SystemVerifier {
    system: SystemName,
    roots: Arc<RootCertStore>,
    clients: Arc<dyn ClientCertVerifier>,
    provider: Arc<CryptoProvider>,
}

/// Certificate chain and key of one node.
pub(crate) struct NodeKey {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl SystemVerifier {
    pub(crate) fn new(system: SystemName, authority: CertificateDer<'static>) -> Result<Self, Error> {
        let provider = provider();
        let roots = Arc::new(roots(authority)?);
        let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { system, roots, clients, provider })
    }

    fn member(&self, certificate: &CertificateDer<'_>) -> Result<NodeName, Error> {
        let found = NodeCertificate::read(certificate).map_err(|fault| fail(PeerFault::Nameless(fault)))?;
        if found.system != self.system {
            return Err(fail(PeerFault::OtherSystem { expected: self.system.clone(), found: found.system }));
        }
        Ok(found.node)
    }
}

impl ServerCertVerifier for SystemVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_issued(end_entity, intermediates, &self.roots, now, &self.provider)?;
        let found = self.member(end_entity)?;
        if server_name.to_str() == found.as_str() {
            return Ok(ServerCertVerified::assertion());
        }
        Err(fail(PeerFault::OtherNode { expected: NodeName::new(server_name.to_str()), found }))
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

impl ClientCertVerifier for SystemVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A stranger learns nothing about the authority from the handshake.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.clients.verify_client_cert(end_entity, intermediates, now)?;
        self.member(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.clients.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.clients.supported_verify_schemes()
    }
}

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A server that admits only nodes of the system.
pub(crate) fn node_server(verifier: Arc<SystemVerifier>, own: &NodeKey) -> Result<ServerConfig, Error> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(own.chain.clone(), own.key.clone_key())?;
    Ok(without_resumption(config, ALPN_NODE))
}

/// A server for nodes that have no certificate yet; they recognise it by the authority in its chain.
pub(crate) fn join_server(own: &NodeKey) -> Result<ServerConfig, Error> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(own.chain.clone(), own.key.clone_key())?;
    Ok(without_resumption(config, ALPN_JOIN))
}

/// A client that shows its certificate and takes the name to expect from the server name.
pub(crate) fn node_client(verifier: Arc<SystemVerifier>, own: &NodeKey) -> Result<ClientConfig, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(own.chain.clone(), own.key.clone_key())?;
    config.alpn_protocols = vec![ALPN_NODE.to_vec()];
    harden_client(&mut config);
    Ok(config)
}

/// No session tickets (every connection shows its certificate), no name in clear text.
pub(crate) fn harden_client(config: &mut ClientConfig) {
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
}

/// Verifies signature chain, validity and purpose of a server's certificate, not its name.
pub(crate) fn verify_issued(
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    roots: &RootCertStore,
    now: UnixTime,
    provider: &CryptoProvider,
) -> Result<(), Error> {
    let algorithms = provider.signature_verification_algorithms.all;
    let parsed = ParsedCertificate::try_from(end_entity)?;
    verify_server_cert_signed_by_trust_anchor(&parsed, roots, intermediates, now, algorithms)
}

pub(crate) fn roots(authority: CertificateDer<'static>) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    Ok(roots)
}

pub(crate) fn fail(fault: PeerFault) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(fault))))
}

/// The fault that a verifier of ours put into a failed handshake.
pub(crate) fn peer_fault(error: &std::io::Error) -> Option<PeerFault> {
    let inner = error.get_ref()?.downcast_ref::<Error>()?;
    let Error::InvalidCertificate(CertificateError::Other(OtherError(fault))) = inner else {
        return None;
    };
    fault.downcast_ref().cloned()
}

fn without_resumption(mut config: ServerConfig, protocol: &[u8]) -> ServerConfig {
    config.alpn_protocols = vec![protocol.to_vec()];
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config
}
