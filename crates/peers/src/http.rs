//! The few words of HTTP that Patroni's REST interface needs.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Outcome;

/// Asks and reads to the end (HTTP/1.0, so that the server closes); returns the status and the body.
pub(crate) async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    body: &str,
    within: Duration,
) -> Outcome<(u16, String)> {
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let talk = async {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = timeout(within, talk).await.map_err(|_| format!("{address} did not answer in time"))?;
    parse(&answer.map_err(|e| format!("{address}: {e}"))?)
        .ok_or_else(|| format!("{address} answered something that is not HTTP"))
}

/// Asks for JSON, whatever the status: Patroni says 503 when a node is not what the path asks for, with the same body.
pub(crate) async fn get(address: SocketAddr, path: &str, within: Duration) -> Outcome<Value> {
    let (_, body) = ask(address, "GET", path, "", within).await?;
    serde_json::from_str(&body).map_err(|e| format!("{address}{path}: {e}"))
}

fn parse(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    Some((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_and_body_are_told_apart() {
        let answer = "HTTP/1.0 503 Service Unavailable\r\nServer: x\r\n\r\n{\"a\": 1}";
        assert_eq!(parse(answer), Some((503, "{\"a\": 1}".to_owned())));
        assert_eq!(parse("SSH-2.0\r\n\r\n"), None);
    }
}
