//! The agent's side of the proxy: tables come in, acknowledgements and reports go out, one JSON document a line.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use model::routes::{FromProxy, ProxyReport, ToProxy};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{broadcast, mpsc};

use crate::ProxyError;
use crate::plane::Plane;

pub(crate) mod state_file;

/// The longest line taken from an agent: a table of some ten thousand instances.
const LONGEST_LINE: u64 = 16 << 20;
/// How often an agent hears of changed counters.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// An agent that does not read for this long is cut off; it will connect again.
const SLOWEST_AGENT: Duration = Duration::from_secs(5);
/// Answers to one agent that may wait for it to read.
const ANSWERS_WAITING: usize = 16;

/// Listens on the control socket, replacing one that a dead proxy left behind.
pub(crate) async fn listen(socket: &Path) -> Result<UnixListener, ProxyError> {
    if UnixStream::connect(socket).await.is_ok() {
        return Err(ProxyError::AlreadyRunning { socket: socket.to_path_buf() });
    }
    bind(socket).map_err(|source| ProxyError::Control { socket: socket.to_path_buf(), source })
}

/// Binds under another name and renames, so that the socket is never there with wider rights than 0600.
pub(crate) fn bind(socket: &Path) -> io::Result<UnixListener> {
    let name = socket.file_name().unwrap_or_default().to_string_lossy();
    let fresh = socket.with_file_name(format!(".{name}.new"));
    match std::fs::remove_file(&fresh) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(&fresh)?;
    std::fs::set_permissions(&fresh, Permissions::from_mode(0o600))?;
    std::fs::rename(&fresh, socket)?;
    Ok(listener)
}

/// What an agent gets for a line of its own.
enum Answer {
    /// The counts as they are when they are told: taken any earlier, they could follow the word that a table is obeyed which
    /// they know nothing of.
    Report,
    /// This.
    Say(FromProxy),
}

/// Serves one agent until it goes away. What it has put in force stays.
pub(crate) async fn serve(stream: UnixStream, plane: Arc<Plane>) {
    let _attended = plane.attended();
    let (reader, writer) = stream.into_split();
    let (answers, waiting) = mpsc::channel(ANSWERS_WAITING);
    let news = plane.news();
    let greeting = plane.applied();
    let speaking = tokio::spawn(speak(writer, plane.clone(), news, waiting, greeting));
    if let Err(error) = hear(reader, &plane, &answers).await {
        tracing::info!(%error, "the agent's connection ended");
    }
    speaking.abort();
}

async fn hear(reader: OwnedReadHalf, plane: &Arc<Plane>, answers: &mpsc::Sender<Answer>) -> io::Result<()> {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await?;
        if length == 0 {
            return Ok(());
        }
        if !line.ends_with(b"\n") {
            let longest = LONGEST_LINE >> 20;
            return Err(io::Error::other(format!("a line without an end, or longer than {longest} MiB")));
        }
        let answer = match serde_json::from_slice(&line) {
            Ok(ToProxy::Table(table)) => plane.apply(table).map(Answer::Say),
            Ok(ToProxy::Cookies { key }) => {
                plane.set_cookies(&key);
                None
            }
            Ok(ToProxy::Report) => Some(Answer::Report),
            Err(error) => Some(Answer::Say(unreadable(plane, &error))),
        };
        if let Some(answer) = answer
            && answers.send(answer).await.is_err()
        {
            return Ok(());
        }
    }
}

fn unreadable(plane: &Plane, error: &serde_json::Error) -> FromProxy {
    let because = format!("the line is no message to a proxy: {error}");
    FromProxy::Refused { generation: 0, current: plane.generation(), because }
}

/// Says what the agent is to know: first which generation is in force, then news, answers, and each second what changed.
async fn speak(
    mut writer: OwnedWriteHalf,
    plane: Arc<Plane>,
    mut news: broadcast::Receiver<FromProxy>,
    mut answers: mpsc::Receiver<Answer>,
    greeting: FromProxy,
) {
    let mut next = Some(greeting);
    let mut told = ProxyReport::default();
    let mut tick = tokio::time::interval(REPORT_EVERY);
    loop {
        if let Some(message) = next.take() {
            if let FromProxy::Report(report) = &message {
                told.clone_from(report);
            }
            if let Err(error) = write(&mut writer, &message).await {
                tracing::info!(%error, "cannot speak to the agent");
                return;
            }
        }
        tokio::select! {
            heard = news.recv() => match heard {
                Ok(message) => next = Some(message),
                Err(broadcast::error::RecvError::Lagged(_)) => next = Some(plane.applied()),
                Err(broadcast::error::RecvError::Closed) => return,
            },
            answer = answers.recv() => match answer {
                Some(Answer::Report) => next = Some(FromProxy::Report(plane.report())),
                Some(Answer::Say(message)) => next = Some(message),
                None => return,
            },
            _ = tick.tick() => {
                let report = plane.report();
                next = (report != told).then_some(FromProxy::Report(report));
            }
        }
    }
}

async fn write(writer: &mut OwnedWriteHalf, message: &FromProxy) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    tokio::time::timeout(SLOWEST_AGENT, writer.write_all(&line)).await?
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Whatever bytes come as a line: an answer or an error, no panic.
        #[test]
        fn any_line_is_judged(line in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            r#"\{"(table|report)":(\{"generation":[0-9]{1,25},"site":null,"routes":\[\{?.{0,80}\}?\]\}|null)\}"#
                .prop_map(String::into_bytes),
        ]) {
            let _ = serde_json::from_slice::<ToProxy>(&line);
        }
    }

    #[tokio::test]
    async fn the_socket_is_private_and_a_second_proxy_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("proxy.sock");
        let first = listen(&socket).await.unwrap();
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(listen(&socket).await, Err(ProxyError::AlreadyRunning { .. })));
        drop(first);
        listen(&socket).await.expect("a socket left behind by a dead proxy is replaced");
    }
}
