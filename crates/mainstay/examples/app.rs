//! A small web application for the tests of releases: answers every request, and can be bad in the ways that releases are.
//!
//! `app --listen ADDRESS [--errors PERCENT] [--slow MS] [--crash-after S] [--never-ready]`. SIGTERM ends it at once, with
//! whatever is under way: whoever ends it must know that nothing is.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long every answer takes.
const WORK: Duration = Duration::from_millis(3);

/// How long the answer for the page `/slow` takes.
const LONG_WORK: Duration = Duration::from_millis(300);

struct App {
    listen: SocketAddr,
    errors: u64,
    slow: Duration,
    crash_after: Option<Duration>,
    never_ready: bool,
    served: AtomicU64,
}

fn main() -> std::io::Result<()> {
    let app = Arc::new(App::from(std::env::args().skip(1).collect()));
    let listener = TcpListener::bind(app.listen)?;
    if let Some(after) = app.crash_after {
        std::thread::spawn(move || {
            std::thread::sleep(after);
            std::process::abort();
        });
    }
    for stream in listener.incoming().flatten() {
        let app = Arc::clone(&app);
        std::thread::spawn(move || app.serve(&stream));
    }
    Ok(())
}

impl App {
    fn from(arguments: Vec<String>) -> Self {
        let after = |name: &str| {
            let place = arguments.iter().position(|argument| argument == name)?;
            arguments.get(place + 1).map(String::as_str)
        };
        let number = |name: &str| after(name).and_then(|value| value.parse::<u64>().ok());
        Self {
            listen: after("--listen").and_then(|at| at.parse().ok()).unwrap_or(([127, 0, 0, 1], 8000).into()),
            errors: number("--errors").unwrap_or(0),
            slow: Duration::from_millis(number("--slow").unwrap_or(0)),
            crash_after: number("--crash-after").map(Duration::from_secs),
            never_ready: arguments.iter().any(|argument| argument == "--never-ready"),
            served: AtomicU64::new(0),
        }
    }

    /// Serves one connection until it ends.
    fn serve(&self, stream: &TcpStream) {
        // Without it every answer on a kept connection waits for the other side's kernel.
        let _ = stream.set_nodelay(true);
        let mut reader = BufReader::new(stream);
        loop {
            let mut path = String::new();
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                match reader.read_line(&mut line) {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return,
                }
                if path.is_empty() {
                    path = line.split(' ').nth(1).unwrap_or("/").to_owned();
                }
            }
            if (&*stream).write_all(self.answer(&path).as_bytes()).is_err() {
                return;
            }
        }
    }

    fn answer(&self, path: &str) -> String {
        if path == "/healthz" {
            let status = if self.never_ready { "503 Service Unavailable" } else { "200 OK" };
            return format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        }
        std::thread::sleep(if path == "/slow" { LONG_WORK } else { WORK + self.slow });
        let number = self.served.fetch_add(1, Ordering::Relaxed);
        let is_bad = self.errors > 0 && number.is_multiple_of(100 / self.errors.min(100));
        let status = if is_bad { "500 Internal Server Error" } else { "200 OK" };
        let body = format!("{}\n", std::env::var("INSTANCE").unwrap_or_default());
        format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    }
}
