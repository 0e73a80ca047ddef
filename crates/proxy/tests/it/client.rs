//! HTTP by hand, so that a test sees and sends exactly what is on the wire.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::agent::LONG;

/// One end of an HTTP/1.1 connection.
pub(crate) struct Wire {
    pub(crate) stream: BufReader<TcpStream>,
}

/// A request or an answer as it came.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) first: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl Wire {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) async fn accept(listener: &TcpListener) -> Self {
        timeout(LONG, Self::accept_now(listener)).await.expect("a connection comes")
    }

    /// Waits for a connection as long as it takes.
    pub(crate) async fn accept_now(listener: &TcpListener) -> Self {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    /// Sends a GET request and reads its answer.
    pub(crate) async fn get(&mut self, path: &str) -> Message {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n")).await;
        self.read().await.expect("an answer")
    }

    /// Answers 200 with `body`.
    pub(crate) async fn answer(&mut self, body: &str) {
        self.send(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
    }

    /// Reads a message with its body; `None` when the connection has ended.
    pub(crate) async fn read(&mut self) -> Option<Message> {
        timeout(LONG, self.read_forever()).await.expect("a message comes")
    }

    pub(crate) async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    /// The same, however long it takes.
    pub(crate) async fn read_forever(&mut self) -> Option<Message> {
        let first = self.line().await?;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().await?;
            let Some((name, value)) = line.split_once(": ") else { break };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let body = if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
            self.chunks().await?
        } else {
            let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
            self.exactly(length).await?
        };
        Some(Message { first, headers, body })
    }

    async fn chunks(&mut self) -> Option<String> {
        let mut body = String::new();
        loop {
            let size = usize::from_str_radix(&self.line().await?, 16).unwrap();
            body += &self.exactly(size).await?;
            self.line().await?;
            if size == 0 {
                return Some(body);
            }
        }
    }

    pub(crate) async fn exactly(&mut self, length: usize) -> Option<String> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes).await.ok()?;
        Some(String::from_utf8(bytes).unwrap())
    }
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.first.split(' ').nth(1).unwrap().parse().unwrap()
    }
}
