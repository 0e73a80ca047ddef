//! The outside client: requests at fixed moments, whatever became of those before (an open loop).
//!
//! What a request took is counted from the moment at which it was due, not from when the client got round to it, so that
//! a pause is seen by every request that fell into it. Connections are kept and used again; nothing is ever repeated.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

/// A client that has waited for so long gives up.
const PATIENCE: Duration = Duration::from_secs(5);
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n";

/// What the client saw.
pub(crate) struct Seen {
    /// Every request in the order in which they were due.
    pub(crate) requests: Vec<Request>,
}

/// One request.
#[derive(Clone, Copy)]
pub(crate) struct Request {
    pub(crate) due: Duration,
    pub(crate) took: Duration,
    /// Answered with status 200.
    pub(crate) good: bool,
}

impl Seen {
    pub(crate) fn failed(&self) -> usize {
        self.requests.iter().filter(|request| !request.good).count()
    }

    /// The part of requests in `per_mille` that took at most so long.
    pub(crate) fn quantile(&self, per_mille: usize) -> Duration {
        let mut taken: Vec<Duration> = self.requests.iter().map(|request| request.took).collect();
        taken.sort_unstable();
        taken
            .get((taken.len() * per_mille / 1000).min(taken.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    }

    /// When the last request failed, after the first one was due.
    pub(crate) fn last_failure(&self) -> Option<Duration> {
        self.requests.iter().filter(|request| !request.good).map(|request| request.due).max()
    }
}

/// Sends `rate` requests a second to `target` for `lasting`.
pub(crate) async fn open_loop(target: SocketAddr, rate: u32, lasting: Duration) -> Seen {
    let pool = Arc::new(Pool { target, idle: Mutex::default() });
    let begin = Instant::now() + Duration::from_millis(50);
    let count = (lasting.as_secs_f64() * f64::from(rate)).round();
    let mut under_way = JoinSet::new();
    let mut number = 0_u32;
    while f64::from(number) < count {
        let due = Duration::from_secs(1) * number / rate;
        sleep_until((begin + due).into()).await;
        let pool = pool.clone();
        under_way.spawn(async move {
            let good = matches!(timeout(PATIENCE, pool.ask()).await, Ok(Ok(200)));
            Request { due, took: begin.elapsed().saturating_sub(due), good }
        });
        number += 1;
    }
    let mut requests = under_way.join_all().await;
    requests.sort_by_key(|request| request.due);
    Seen { requests }
}

struct Pool {
    target: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
}

impl Pool {
    /// Sends one request; returns the status.
    async fn ask(&self) -> io::Result<u16> {
        let mut stream = match self.kept() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.target).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(REQUEST).await?;
        let (status, closes) = read_answer(&mut stream).await?;
        if !closes && let Ok(mut idle) = self.idle.lock() {
            idle.push(stream);
        }
        Ok(status)
    }

    /// A connection that its other end has not closed.
    fn kept(&self) -> Option<TcpStream> {
        let mut idle = self.idle.lock().ok()?;
        while let Some(stream) = idle.pop() {
            let open =
                stream.try_read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            if open {
                return Some(stream);
            }
        }
        None
    }
}

/// Reads one answer; returns its status and whether the connection ends with it.
pub(crate) async fn read_answer(stream: &mut TcpStream) -> io::Result<(u16, bool)> {
    let mut bytes = Vec::with_capacity(512);
    let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let head_end = loop {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(broken());
        }
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).to_ascii_lowercase();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(broken)?;
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: Option<usize> = length.and_then(|length| length.trim().parse().ok());
    let closes = head.contains("connection: close") || length.is_none();
    while length.is_none_or(|length| bytes.len() < head_end + length) {
        if stream.read_buf(&mut bytes).await? == 0 {
            return if length.is_none() { Ok((status, true)) } else { Err(broken()) };
        }
    }
    Ok((status, closes))
}

/// `connections` clients, each with a connection of its own that it keeps, each with a request every `period`.
pub(crate) async fn crowd(target: SocketAddr, connections: u32, period: Duration, lasting: Duration) -> Seen {
    let mut streams = Vec::new();
    for _ in 0..connections {
        streams.push(TcpStream::connect(target).await.unwrap());
    }
    let begin = Instant::now() + Duration::from_millis(50);
    let mut clients = JoinSet::new();
    for (number, stream) in (0_u32..).zip(streams) {
        let first = period * number / connections;
        clients.spawn(one_of_a_crowd(stream, begin, first, period, lasting));
    }
    let mut requests: Vec<Request> = clients.join_all().await.into_iter().flatten().collect();
    requests.sort_by_key(|request| request.due);
    Seen { requests }
}

async fn one_of_a_crowd(
    mut stream: TcpStream,
    begin: Instant,
    first: Duration,
    period: Duration,
    lasting: Duration,
) -> Vec<Request> {
    let (mut requests, mut due) = (vec![], first);
    while due < lasting {
        sleep_until((begin + due).into()).await;
        let answer = async {
            stream.write_all(REQUEST).await?;
            read_answer(&mut stream).await
        };
        let outcome = timeout(PATIENCE, answer).await;
        let good = matches!(outcome, Ok(Ok((200, false))));
        requests.push(Request { due, took: begin.elapsed().saturating_sub(due), good });
        if !good {
            return requests;
        }
        due += period;
    }
    requests
}
