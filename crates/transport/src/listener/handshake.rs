//! The greeting of one connection: TLS, who is it, what does it want.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, TlsStream, server};

use super::{Accepted, HANDSHAKE_DEADLINE, Shared};
use crate::certificate::NodeCertificate;
use crate::dial::WELCOME;
use crate::frame::Connection;
use crate::join;
use crate::socket;
use crate::stream::StreamKind;
use crate::tls::ALPN_JOIN;

/// What the first exchange has shown.
enum Greeted {
    Node(Accepted),
    Stranger(Box<server::TlsStream<TcpStream>>),
}

/// Greets one peer within [`HANDSHAKE_DEADLINE`] and hands the connection on; whatever goes wrong ends only this peer.
pub(super) async fn run(stream: TcpStream, from: SocketAddr, shared: Arc<Shared>) {
    match timeout(HANDSHAKE_DEADLINE, greet(stream, from, &shared)).await {
        Ok(Ok(Greeted::Node(accepted))) => {
            // Nobody takes connections any more, or not in time: the peer will dial again.
            let _ = timeout(HANDSHAKE_DEADLINE, shared.accepted.send(accepted)).await;
        }
        Ok(Ok(Greeted::Stranger(stream))) => join::serve(*stream, from, &shared).await,
        Ok(Err(error)) => tracing::debug!(%from, %error, "turned a connection away"),
        Err(_) => tracing::debug!(%from, "dropped a connection that did not greet in time"),
    }
}

async fn greet(stream: TcpStream, from: SocketAddr, shared: &Shared) -> io::Result<Greeted> {
    socket::tune(&stream, HANDSHAKE_DEADLINE)?;
    let identity = shared.identity.snapshot();
    let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
    let joining =
        hello.client_hello().alpn().is_some_and(|mut offered| offered.any(|name| name == ALPN_JOIN));
    if joining {
        return Ok(Greeted::Stranger(Box::new(hello.into_stream(identity.join_server.clone()).await?)));
    }
    let mut stream = hello.into_stream(identity.node_server.clone()).await?;
    let peer = peer_of(&stream)?;
    let kind = StreamKind::from_byte(stream.read_u8().await?)
        .ok_or_else(|| invalid("unknown kind of connection"))?;
    stream.write_all(&[WELCOME]).await?;
    stream.flush().await?;
    socket::tune(stream.get_ref().0, kind.unacknowledged_limit())?;
    let connection = Connection::new(TlsStream::from(stream), peer.node.clone(), kind);
    Ok(Greeted::Node(Accepted { peer: peer.node, kind, address: from, connection }))
}

fn peer_of(stream: &server::TlsStream<TcpStream>) -> io::Result<NodeCertificate> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let own = chain.first().ok_or_else(|| invalid("no certificate"))?;
    NodeCertificate::read(own).map_err(|fault| invalid(&fault.to_string()))
}

fn invalid(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
