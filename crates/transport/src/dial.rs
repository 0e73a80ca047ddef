//! Opening a connection to a named node.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use model::NodeName;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream, client};

use crate::frame::Connection;
use crate::identity::Identity;
use crate::socket;
use crate::stream::StreamKind;
use crate::tls::{self, PeerFault};

/// What the accepting side answers to the kind byte: it accepts the certificate and speaks this version.
pub(crate) const WELCOME: u8 = 1;

/// Why a node could not be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// No TCP connection.
    #[error("cannot connect to node `{node}` at {address}: {source}")]
    Connect {
        /// The node dialled.
        node: NodeName,
        /// Its address.
        address: SocketAddr,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Neither yes nor no in time.
    #[error("node `{node}` at {address} did not answer within {} ms", waited.as_millis())]
    TimedOut {
        /// The node dialled.
        node: NodeName,
        /// Its address.
        address: SocketAddr,
        /// The deadline given.
        waited: Duration,
    },
    /// Someone answered with a genuine certificate, but not the one expected.
    #[error("{address}: {fault}")]
    Peer {
        /// The address dialled.
        address: SocketAddr,
        /// Who answered.
        fault: PeerFault,
    },
    /// No TLS with a certificate of this system there.
    #[error("{address} is not node `{node}` of this system: {reason}")]
    Handshake {
        /// The node dialled.
        node: NodeName,
        /// Its address.
        address: SocketAddr,
        /// What the TLS library says.
        reason: String,
    },
    /// The node is the right one, but it did not accept us.
    #[error("node `{node}` at {address} refused this node's certificate or closed the connection: {reason}")]
    Refused {
        /// The node dialled.
        node: NodeName,
        /// Its address.
        address: SocketAddr,
        /// What arrived instead of a welcome.
        reason: String,
    },
    /// A version of the protocol that we do not speak.
    #[error("node `{node}` at {address} speaks version {found} of the protocol, this node version {WELCOME}")]
    Version {
        /// The node dialled.
        node: NodeName,
        /// Its address.
        address: SocketAddr,
        /// Its version.
        found: u8,
    },
    /// The name of the node cannot stand in a certificate.
    #[error("`{0}` is not a valid node name")]
    Name(NodeName),
}

/// Connects to `expected` at `address`, proves both sides to each other, and waits until the node has accepted us. Each of
/// these three steps costs a round trip, and may take as long as `deadline`: whoever is not there is given up after the
/// first, and a slow network is not given up although all of it takes longer. With `source` the connection leaves through
/// the line that owns that address.
pub async fn dial(
    address: SocketAddr,
    expected: &NodeName,
    kind: StreamKind,
    identity: &Identity,
    deadline: Duration,
    source: Option<IpAddr>,
) -> Result<Connection, DialError> {
    Target { node: expected, address, kind, deadline }.connect(identity, source).await
}

struct Target<'a> {
    node: &'a NodeName,
    address: SocketAddr,
    kind: StreamKind,
    /// For each step.
    deadline: Duration,
}

impl Target<'_> {
    async fn in_time<T>(&self, step: impl Future<Output = Result<T, DialError>>) -> Result<T, DialError> {
        tokio::time::timeout(self.deadline, step).await.unwrap_or_else(|_| {
            Err(DialError::TimedOut { node: self.node.clone(), address: self.address, waited: self.deadline })
        })
    }

    async fn connect(&self, identity: &Identity, source: Option<IpAddr>) -> Result<Connection, DialError> {
        let connected =
            async { socket::connect(self.address, source).await.map_err(|error| self.connect_error(error)) };
        let stream = self.in_time(connected).await?;
        socket::tune(&stream, self.kind.unacknowledged_limit()).map_err(|error| self.connect_error(error))?;
        let mut stream = self.in_time(self.handshake(identity, stream)).await?;
        self.in_time(self.greet(&mut stream)).await?;
        Ok(Connection::new(TlsStream::from(stream), self.node.clone(), self.kind))
    }

    async fn handshake(
        &self,
        identity: &Identity,
        stream: TcpStream,
    ) -> Result<client::TlsStream<TcpStream>, DialError> {
        let name =
            ServerName::try_from(self.node.to_string()).map_err(|_| DialError::Name(self.node.clone()))?;
        let connector = TlsConnector::from(identity.snapshot().client.clone());
        connector.connect(name, stream).await.map_err(|error| match tls::peer_fault(&error) {
            Some(fault) => DialError::Peer { address: self.address, fault },
            None => DialError::Handshake {
                node: self.node.clone(),
                address: self.address,
                reason: error.to_string(),
            },
        })
    }

    /// In TLS 1.3 the client is ready before the server has judged its certificate; the welcome says it was accepted.
    async fn greet(&self, stream: &mut client::TlsStream<TcpStream>) -> Result<(), DialError> {
        let answer = async {
            stream.write_all(&[self.kind.byte()]).await?;
            stream.flush().await?;
            stream.read_u8().await
        };
        match answer.await {
            Ok(WELCOME) => Ok(()),
            Ok(found) => Err(DialError::Version { node: self.node.clone(), address: self.address, found }),
            Err(error) => Err(DialError::Refused {
                node: self.node.clone(),
                address: self.address,
                reason: error.to_string(),
            }),
        }
    }

    fn connect_error(&self, source: io::Error) -> DialError {
        DialError::Connect { node: self.node.clone(), address: self.address, source }
    }
}
