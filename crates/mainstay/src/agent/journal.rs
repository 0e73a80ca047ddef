//! The event log: the newest events in memory, all of them appended to `events.jsonl` by a thread of its own, so that a
//! full or hung disk delays nothing.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use model::event::Event;

/// Events kept in memory.
const KEPT: usize = 4000;

/// Events that may wait for the disk; more are only kept in memory.
const QUEUE: usize = 1024;

/// The file is begun anew, and the old one kept as `.1`, beyond this size in bytes.
const ROTATE_AT: u64 = 16 << 20;

/// This node's event log.
#[derive(Clone)]
pub(super) struct Journal {
    recent: Arc<Mutex<VecDeque<Event>>>,
    to_disk: SyncSender<Event>,
}

impl Journal {
    /// A log that appends to `path`, beginning with what an earlier run wrote there.
    pub(super) fn open(path: &Path) -> Self {
        let recent: VecDeque<Event> = read_back(path);
        let (to_disk, events) = sync_channel(QUEUE);
        let path = path.to_owned();
        // Without the thread events are kept in memory only; the send below then fails and nothing else.
        let _ = std::thread::Builder::new().name("events".to_owned()).spawn(move || append(&path, &events));
        Self { recent: Arc::new(Mutex::new(recent)), to_disk }
    }

    /// Adds an event that happens now.
    pub(super) fn add(&self, mut event: Event) {
        event.at_us = effects::clock::wall_us();
        tracing::info!(subject = %event.subject, what = %event.what, because = %event.because, "event");
        let _ = self.to_disk.try_send(event.clone());
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() == KEPT {
            recent.pop_front();
        }
        recent.push_back(event);
    }

    /// Events at or after `since_us`, the oldest first.
    pub(super) fn since(&self, since_us: i64) -> Vec<Event> {
        let recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.iter().filter(|event| event.at_us >= since_us).cloned().collect()
    }
}

fn read_back(path: &Path) -> VecDeque<Event> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let events: Vec<Event> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let skip = events.len().saturating_sub(KEPT);
    events.into_iter().skip(skip).collect()
}

fn append(path: &PathBuf, events: &Receiver<Event>) {
    let mut file: Option<File> = None;
    while let Ok(event) = events.recv() {
        if file.as_ref().and_then(|file| file.metadata().ok()).is_some_and(|meta| meta.len() > ROTATE_AT) {
            let _ = std::fs::rename(path, path.with_extension("jsonl.1"));
            file = None;
        }
        if file.is_none() {
            file = OpenOptions::new().create(true).append(true).open(path).ok();
        }
        let Ok(mut line) = serde_json::to_vec(&event) else { continue };
        line.push(b'\n');
        if file.as_mut().is_some_and(|file| file.write_all(&line).is_err()) {
            file = None; // A full disk: try again with the next event.
        }
    }
}
