//! How connections are ended so that the last word arrives, or at once.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::socket;

/// How long a client may take to read the last word and to close.
const LINGER: Duration = Duration::from_secs(1);
/// What a client may still send meanwhile; it is thrown away.
const LINGER_BYTES: u64 = 1 << 20;

/// Sends the last words, then ends the connection in order. Closing with unread input would make the kernel send a
/// reset, which can overtake the words; so what the client still sends is read and dropped for a moment.
pub(crate) async fn say(mut client: TcpStream, words: Vec<u8>) {
    let outcome = timeout(LINGER, async {
        client.write_all(&words).await?;
        client.shutdown().await?;
        tokio::io::copy(&mut (&mut client).take(LINGER_BYTES), &mut tokio::io::sink()).await
    });
    if let Ok(Err(error)) = outcome.await {
        tracing::debug!(%error, "the client left before its last words");
    }
}

/// Ends connections at once: the peers get a reset.
pub(crate) fn reset<const N: usize>(streams: [TcpStream; N]) {
    streams.iter().for_each(socket::reset_on_close);
}
