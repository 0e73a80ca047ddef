//! One connection to PostgreSQL, with a deadline for every step and an exact account of what was put on the wire.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::error::{Severity, SqlState};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow};

/// The first byte of an error message (PostgreSQL documentation, "Message Formats"); an idle session only gets one before
/// it is closed.
const ERROR_RESPONSE: u8 = b'E';

/// How long each step of a connection may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// Until the TCP connection stands.
    pub connect: Duration,
    /// From there until PostgreSQL is ready: long, because a route may park a new connection while there is no primary; but
    /// shorter than the objective, because the entry may be on a node that stands still, whose kernel accepts nevertheless.
    pub start_up: Duration,
    /// From sending a statement to its end.
    pub statement: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_millis(300),
            start_up: Duration::from_secs(3),
            statement: Duration::from_secs(1),
        }
    }
}

/// Why a statement has no result, in the terms that matter to a judge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Not one byte of it left this machine.
    #[error("the connection was closed before the statement was sent")]
    NotSent,
    /// The server answered with an error that leaves nothing behind.
    #[error("{0}")]
    Refused(String),
    /// The same, because another transaction was in the way (class 40 of PostgreSQL's appendix A): the connection and its
    /// server are fine, and trying anew may succeed.
    #[error("{0}")]
    Conflict(String),
    /// Anything else.
    #[error("{0}")]
    Uncertain(String),
}

/// A finished statement.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) rows: Vec<SimpleQueryRow>,
    /// The server gave a warning while it ran: an acknowledgement with a warning is none.
    pub(crate) warned: bool,
}

/// A connection and the task that drives it; dropping it ends both.
#[derive(Debug)]
pub(crate) struct Session {
    client: Client,
    driver: JoinHandle<()>,
    /// The same socket once more, to look at without disturbing the driver.
    socket: OwnedFd,
    sent: Arc<AtomicU64>,
    warned: Arc<AtomicBool>,
}

impl Session {
    /// Connects within the deadlines; the error is a sentence.
    pub(crate) async fn open(
        address: SocketAddr,
        login: &Config,
        deadlines: Deadlines,
    ) -> Result<Self, String> {
        let place = |reason: String| format!("no connection to {address}: {reason}");
        let stream = timeout(deadlines.connect, TcpStream::connect(address))
            .await
            .map_err(|_| place(format!("no answer within {} ms", deadlines.connect.as_millis())))?
            .map_err(|e| place(e.to_string()))?;
        stream.set_nodelay(true).map_err(|e| place(e.to_string()))?;
        let socket = stream.as_fd().try_clone_to_owned().map_err(|e| place(e.to_string()))?;
        let sent = Arc::new(AtomicU64::new(0));
        let counted = Counted { stream, sent: Arc::clone(&sent) };
        let (client, mut connection) = timeout(deadlines.start_up, login.connect_raw(counted, NoTls))
            .await
            .map_err(|_| {
                place(format!("PostgreSQL was not ready within {} ms", deadlines.start_up.as_millis()))
            })?
            .map_err(|e| place(in_words(&e)))?;
        let warned = Arc::new(AtomicBool::new(false));
        let heard = Arc::clone(&warned);
        let driver = tokio::spawn(async move {
            // A notice is handed out before the messages that follow it, so the flag is up before the statement ends.
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if is_warning(&message) {
                    heard.store(true, Ordering::SeqCst);
                }
            }
        });
        Ok(Self { client, driver, socket, sent, warned })
    }

    /// [`Session::open`] at a way to the primary: a login with `target_session_attrs=read-write` is held to it, as libpq does
    /// where the entries of a route are the members themselves.
    pub(crate) async fn open_route(
        address: SocketAddr,
        login: &Config,
        deadlines: Deadlines,
    ) -> Result<Self, String> {
        let session = Self::open(address, login, deadlines).await?;
        if login.get_target_session_attrs() != TargetSessionAttrs::ReadWrite {
            return Ok(session);
        }
        let place = |reason: &str| format!("no connection to {address}: {reason}");
        let done = session.run("show transaction_read_only", deadlines.statement).await;
        let done = done.map_err(|refusal| place(&refusal.to_string()))?;
        match done.rows.first().and_then(|row| row.get(0)) {
            Some("off") => Ok(session),
            Some(_) | None => Err(place("the session is read-only")),
        }
    }

    /// Whether the other side has closed it, or has said that it will. Asks the kernel, because the driver may not have
    /// had its turn yet, and a statement sent in between would be lost for nothing.
    pub(crate) fn is_closed(&self) -> bool {
        let mut first = [0_u8; 1];
        let seen = recv(&self.socket, &mut first, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        self.client.is_closed()
            || match seen {
                Ok((_, bytes)) => bytes == 0 || first[0] == ERROR_RESPONSE,
                Err(reason) => reason != Errno::AGAIN,
            }
    }

    /// Runs one statement in one round trip (simple query protocol, autocommit).
    pub(crate) async fn run(&self, sql: &str, deadline: Duration) -> Result<Done, Refusal> {
        let before = self.sent.load(Ordering::SeqCst);
        self.warned.store(false, Ordering::SeqCst);
        match timeout(deadline, self.client.simple_query(sql)).await {
            Err(_) => Err(Refusal::Uncertain(format!("no answer within {} ms", deadline.as_millis()))),
            Ok(Ok(messages)) => Ok(Done { rows: rows(messages), warned: self.warned.load(Ordering::SeqCst) }),
            Ok(Err(error)) => Err(refusal(&error, self.sent.load(Ordering::SeqCst) > before)),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // The driver would otherwise wait for as long as TCP does for a peer that is gone.
        self.driver.abort();
    }
}

fn rows(messages: Vec<SimpleQueryMessage>) -> Vec<SimpleQueryRow> {
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        // A foreign enum that is open to additions.
        SimpleQueryMessage::CommandComplete(_) | SimpleQueryMessage::RowDescription(_) | _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

/// What an error says about the statement. Only an `ERROR` of the statement itself proves that it left nothing behind;
/// when the session ends meanwhile (`FATAL`, `PANIC`), or the error tells of the connection (class 08, 57P and 40003 of
/// PostgreSQL's appendix A), the commit may have happened before.
fn refusal(error: &tokio_postgres::Error, sent: bool) -> Refusal {
    let words = in_words(error);
    let Some(db) = error.as_db_error() else {
        return if sent { Refusal::Uncertain(words) } else { Refusal::NotSent };
    };
    let code = db.code().code();
    let about_the_session = code.starts_with("08")
        || code.starts_with("57P")
        || *db.code() == SqlState::T_R_STATEMENT_COMPLETION_UNKNOWN;
    if !sent {
        Refusal::NotSent
    } else if db.parsed_severity() == Some(Severity::Error) && !about_the_session {
        if code.starts_with("40") { Refusal::Conflict(words) } else { Refusal::Refused(words) }
    } else {
        Refusal::Uncertain(words)
    }
}

/// The error with its cause: the library's own text for a server's error is only "db error".
fn in_words(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} {}: {}", db.severity(), db.code().code(), db.message()),
        None => match std::error::Error::source(error) {
            Some(cause) => format!("{error}: {cause}"),
            None => error.to_string(),
        },
    }
}

fn is_warning(message: &AsyncMessage) -> bool {
    match message {
        AsyncMessage::Notice(notice) => notice.parsed_severity() == Some(Severity::Warning),
        // A foreign enum that is open to additions.
        AsyncMessage::Notification(_) | _ => false,
    }
}

/// A stream that counts the bytes the kernel took.
struct Counted {
    stream: TcpStream,
    sent: Arc<AtomicU64>,
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let taken = Pin::new(&mut self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(bytes)) = taken {
            self.sent.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
        taken
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
