//! Files that are read again when they change: certificates and pages.
//!
//! Each set has a thread of its own, because a disk can hang and must stop nothing else.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Larger files are no certificates and no pages.
const SIZE_MOST: u64 = 1 << 20;
/// How long a table waits until its files have been read.
const FIRST_LONGEST: Duration = Duration::from_secs(2);

/// What is made of some files, as new as they are.
#[derive(Debug)]
pub(crate) struct Watched<T> {
    paths: Vec<PathBuf>,
    seen: watch::Receiver<Seen<T>>,
}

/// What the last look found.
#[derive(Debug)]
struct Seen<T> {
    /// The last usable content.
    value: Option<Arc<T>>,
    /// Why the present content is not usable.
    trouble: Option<String>,
    looked: bool,
}

/// What tells one state of a file from the next: device, inode, size and both times.
type Stamp = (u64, u64, u64, i64, i64, i64, i64);

impl<T: Send + Sync + 'static> Watched<T> {
    /// Watches `paths`; `make` turns their contents, in this order, into what is wanted.
    pub(crate) fn new(paths: Vec<PathBuf>, make: fn(&[Vec<u8>]) -> Result<T, String>) -> Self {
        let (tell, seen) = watch::channel(Seen { value: None, trouble: None, looked: false });
        let watched = paths.clone();
        let spawned =
            std::thread::Builder::new().name("files".to_owned()).spawn(move || look(&watched, make, &tell));
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread that reads files: they count as missing");
        }
        Self { paths, seen }
    }

    /// Whether it watches exactly these.
    pub(crate) fn is_of(&self, paths: &[PathBuf]) -> bool {
        self.paths == paths
    }

    /// What is made of the files.
    pub(crate) fn value(&self) -> Option<Arc<T>> {
        self.seen.borrow().value.clone()
    }

    /// Why the files as they are now cannot be used, in a sentence.
    pub(crate) fn trouble(&self) -> Option<String> {
        self.seen.borrow().trouble.clone()
    }

    /// Returns when the files have been read, or that takes too long.
    pub(crate) async fn looked(&self) {
        let mut seen = self.seen.clone();
        // Late or without a thread: the table is put in force without them.
        drop(timeout(FIRST_LONGEST, seen.wait_for(|seen| seen.looked)).await);
    }
}

/// Looks until nobody wants to know any more.
fn look<T>(paths: &[PathBuf], make: fn(&[Vec<u8>]) -> Result<T, String>, tell: &watch::Sender<Seen<T>>) {
    let mut known = None;
    while !tell.is_closed() {
        let stamps: Vec<Option<Stamp>> = paths.iter().map(stamp).collect();
        if known.as_ref() != Some(&stamps) {
            let made = contents(paths)
                .and_then(|contents| make(&contents).map_err(|why| format!("{}: {why}", names(paths))));
            tell.send_modify(|seen| seen.take_in(made));
            known = Some(stamps);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

impl<T> Seen<T> {
    fn take_in(&mut self, made: Result<T, String>) {
        self.looked = true;
        match made {
            Ok(value) => (self.value, self.trouble) = (Some(Arc::new(value)), None),
            Err(why) => {
                let rest = if self.value.is_some() { "; what was read before stays in use" } else { "" };
                tracing::warn!(%why, "a file cannot be used");
                self.trouble = Some(format!("{why}{rest}"));
            }
        }
    }
}

fn stamp(path: &PathBuf) -> Option<Stamp> {
    let found = std::fs::metadata(path).ok()?;
    Some((
        found.dev(),
        found.ino(),
        found.size(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    ))
}

fn contents(paths: &[PathBuf]) -> Result<Vec<Vec<u8>>, String> {
    paths.iter().map(|path| read(path).map_err(|error| format!("{}: {error}", path.display()))).collect()
}

fn read(path: &PathBuf) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SIZE_MOST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE_MOST {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

fn names(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and ")
}
