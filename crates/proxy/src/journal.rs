//! The access log: one line of JSON for a request, written by a thread of its own.
//!
//! Nothing waits for it: what it cannot take is counted and dropped, and a hung disk costs no request anything.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hyper::body::Frame;
use serde::Serialize;

/// Lines that wait for the disk.
const LINES_WAITING: usize = 4096;
/// A file of this size is put aside.
const SIZE_MOST: u64 = 64 << 20;
/// So many files that were put aside are kept.
const KEPT: u32 = 3;
/// How long the thread leaves a disk alone that does not take its lines.
const PAUSE: Duration = Duration::from_secs(1);
/// Longer paths and names of hosts are cut.
const TEXT_MOST: usize = 1024;

/// Takes lines for the access log.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    lines: SyncSender<Vec<u8>>,
    lost: Arc<AtomicU64>,
}

/// What is known of a request when it comes.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) route: String,
    pub(crate) client: IpAddr,
    pub(crate) method: String,
    pub(crate) host: Option<String>,
    /// Without the query, which may hold secrets.
    pub(crate) path: String,
    pub(crate) protocol: &'static str,
    pub(crate) id: String,
}

/// A request until its line is written: when the note is dropped.
#[derive(Debug)]
pub(crate) struct Note {
    asked: Asked,
    begun: Instant,
    status: u16,
    bytes: u64,
    /// The last byte of the answer was passed on.
    complete: bool,
    /// It is written whatever comes of it.
    chosen: bool,
    instance: Option<String>,
    journal: Journal,
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    at_us: u64,
    route: &'a str,
    client: IpAddr,
    method: &'a str,
    host: Option<&'a str>,
    path: &'a str,
    protocol: &'a str,
    status: u16,
    bytes: u64,
    complete: bool,
    ms: f64,
    instance: Option<&'a str>,
    id: &'a str,
}

impl Journal {
    /// An access log in `directory`. Its file is made with its first line.
    pub(crate) fn open(directory: &Path) -> Self {
        let (lines, waiting) = sync_channel(LINES_WAITING);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Writer { path: directory.join("access.jsonl"), file: None, size: 0, lost: lost.clone() };
        if let Err(error) =
            std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(&waiting))
        {
            tracing::error!(%error, "no thread for the access log: nothing is written to it");
        }
        Self { lines, lost }
    }

    /// Begins a note. One that is not `chosen` is only written when its request fails.
    pub(crate) fn note(&self, asked: Asked, chosen: bool) -> Box<Note> {
        Box::new(Note {
            asked,
            begun: Instant::now(),
            status: 0,
            bytes: 0,
            complete: false,
            chosen,
            instance: None,
            journal: self.clone(),
        })
    }

    fn write(&self, line: Vec<u8>) {
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Note {
    /// The head of the answer, and which instance it is from.
    pub(crate) fn answered(&mut self, status: u16, instance: Option<String>) {
        (self.status, self.instance) = (status, instance);
    }

    /// A piece of the answer.
    pub(crate) fn saw<E>(&mut self, frame: Option<Result<&Frame<Bytes>, E>>) {
        if let Some(Ok(frame)) = frame {
            self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
    }

    /// Nothing more of the answer is to come.
    pub(crate) fn is_all(&mut self) {
        self.complete = true;
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        if !self.chosen && self.status < 500 {
            return;
        }
        let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = Line {
            at_us: u64::try_from(at.as_micros()).unwrap_or(u64::MAX),
            route: &self.asked.route,
            client: self.asked.client,
            method: cut(&self.asked.method),
            host: self.asked.host.as_deref().map(cut),
            path: cut(&self.asked.path),
            protocol: self.asked.protocol,
            status: self.status,
            bytes: self.bytes,
            complete: self.complete,
            ms: (self.begun.elapsed().as_secs_f64() * 1e6).round() / 1e3,
            instance: self.instance.as_deref(),
            id: &self.asked.id,
        };
        if let Ok(mut line) = serde_json::to_vec(&line) {
            line.push(b'\n');
            self.journal.write(line);
        }
    }
}

fn cut(text: &str) -> &str {
    let end = (0..=TEXT_MOST.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// The thread's side.
struct Writer {
    path: PathBuf,
    file: Option<BufWriter<File>>,
    size: u64,
    lost: Arc<AtomicU64>,
}

impl Writer {
    fn run(mut self, waiting: &Receiver<Vec<u8>>) {
        while let Ok(first) = waiting.recv() {
            let outcome = self.write(&first).and_then(|()| {
                waiting.try_iter().try_for_each(|line| self.write(&line))?;
                self.note_losses()?;
                self.file.as_mut().map_or(Ok(()), BufWriter::flush)
            });
            if let Err(error) = outcome {
                tracing::warn!(path = %self.path.display(), %error, "cannot write the access log");
                // Dropped without a second attempt to write what is in it.
                if let Some(file) = self.file.take() {
                    drop(file.into_parts());
                }
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size >= SIZE_MOST {
            self.put_aside()?;
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
                self.size = file.metadata()?.len();
                self.file.insert(BufWriter::new(file))
            }
        };
        file.write_all(line)?;
        self.size += line.len() as u64;
        Ok(())
    }

    fn note_losses(&mut self) -> io::Result<()> {
        match self.lost.swap(0, Ordering::Relaxed) {
            0 => Ok(()),
            lost => self.write(format!("{{\"lost\":{lost}}}\n").as_bytes()),
        }
    }

    fn put_aside(&mut self) -> io::Result<()> {
        if let Some(mut file) = self.file.take() {
            file.flush()?;
        }
        let name = |number: u32| self.path.with_extension(format!("jsonl.{number}"));
        for number in (1..KEPT).rev() {
            match std::fs::rename(name(number), name(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        std::fs::rename(&self.path, name(1))?;
        self.size = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_files_are_put_aside_and_the_oldest_goes() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.jsonl");
        let mut writer =
            Writer { path: path.clone(), file: None, size: 0, lost: Arc::new(AtomicU64::new(7)) };
        for round in 0..6 {
            writer.size = SIZE_MOST * u64::from(round > 0);
            writer.write(format!("{round}\n").as_bytes()).unwrap();
        }
        writer.note_losses().unwrap();
        drop(writer);
        let text = |number: &str| std::fs::read_to_string(format!("{}{number}", path.display())).ok();
        assert_eq!(text("").unwrap(), "5\n{\"lost\":7}\n");
        assert_eq!(
            [text(".1"), text(".2"), text(".3"), text(".4")],
            [Some("4\n"), Some("3\n"), Some("2\n"), None].map(|t| t.map(str::to_owned))
        );
    }

    #[test]
    fn nothing_waits_for_a_log_that_cannot_be_written() {
        let journal = Journal::open(Path::new("/nonexistent"));
        let asked = Asked {
            route: "public".to_owned(),
            client: [10, 0, 0, 7].into(),
            method: "GET".to_owned(),
            host: None,
            path: "ä".repeat(TEXT_MOST),
            protocol: "HTTP/1.1",
            id: "1".to_owned(),
        };
        for _ in 0..3 * LINES_WAITING {
            drop(journal.note(asked.clone(), true));
        }
        assert!(journal.lost.load(Ordering::Relaxed) > 0);
    }
}
