//! What comes before a connection's own bytes: the PROXY header of a balancer.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::core::proxy_header::{self, Header};

/// Who a connection is from: its other end, or whom the balancer there names. `None`: it is from a balancer that does not
/// say so in time, and nothing else may be believed of it.
pub(crate) async fn origin(
    stream: &mut TcpStream,
    peer: SocketAddr,
    is_balancer: bool,
    longest: Duration,
) -> Option<SocketAddr> {
    if !is_balancer {
        return Some(peer);
    }
    let header = timeout(longest, read(stream)).await.ok().flatten();
    if header.is_none() {
        tracing::debug!(%peer, "a balancer's connection does not begin with a PROXY header");
    }
    Some(header?.client.unwrap_or(peer))
}

/// Takes the header, and no byte more, from the stream.
async fn read(stream: &mut TcpStream) -> Option<Header> {
    let mut bytes = Vec::with_capacity(proxy_header::FEWEST);
    loop {
        match proxy_header::read(&bytes) {
            Ok(Some(header)) => return Some(header),
            Ok(None) => {
                let wanted = proxy_header::wanted(&bytes);
                (&mut *stream)
                    .take(wanted as u64)
                    .read_buf(&mut bytes)
                    .await
                    .ok()
                    .filter(|length| *length > 0)?;
            }
            Err(proxy_header::NoHeader) => return None,
        }
    }
}
