//! Where a release comes from: a directory, an archive, or the address of one.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use effects::artefact;
use model::release::Digest;
use tokio::process::Command;

use crate::cli::error::CliError;
use crate::cli::exit::Exit;
use crate::cli::progress::Progress;

/// An artefact as one file.
pub(crate) struct Source {
    path: PathBuf,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Removed in the end, when the file was made for this.
    _made: Option<Made>,
}

/// A file of our own.
struct Made(PathBuf);

impl Drop for Made {
    fn drop(&mut self) {
        // What is left lies among the temporary files.
        let _ = fs::remove_file(&self.0);
    }
}

impl Source {
    /// Finds out what `from` means and makes one file of it.
    pub(crate) async fn find(from: &str, progress: &mut Progress) -> Result<Self, CliError> {
        if from.contains("://") {
            return fetched(from, progress).await;
        }
        let path = Path::new(from);
        let facts = fs::metadata(path).map_err(|error| {
            CliError::with(Exit::Invalid, format!("{from} cannot be released"))
                .because(&error)
                .hint("name a directory, a tar archive, or an address with its SHA-256: https://...@SHA256")
        })?;
        if !facts.is_dir() {
            return Self::of(path.to_owned(), None);
        }
        progress.say(&format!("packing {from}"));
        let made = temporary()?;
        let failed =
            |error: std::io::Error| CliError::failed(format!("{from} cannot be packed")).because(&error);
        artefact::pack(path, File::create(&made.0).map_err(failed)?).map_err(failed)?;
        Self::of(made.0.clone(), Some(made))
    }

    /// A file as it is.
    pub(crate) fn file(path: &Path) -> Result<Self, CliError> {
        Self::of(path.to_owned(), None)
    }

    fn of(path: PathBuf, made: Option<Made>) -> Result<Self, CliError> {
        let failed = |error: &dyn std::fmt::Display| {
            CliError::failed(format!("{} cannot be read: {error}", path.display()))
        };
        let digest = artefact::sha256(&path).map_err(|error| failed(&error))?;
        let digest = Digest::try_from(digest).map_err(|error| failed(&error))?;
        let size = fs::metadata(&path).map_err(|error| failed(&error))?.len();
        if size > artefact::LONGEST {
            let most = artefact::LONGEST >> 20;
            return Err(CliError::with(Exit::Invalid, format!("an artefact may have {most} MiB at most"))
                .hint("leave out of it what instances do not need"));
        }
        Ok(Self { path, digest, size, _made: made })
    }

    /// The bytes from `offset` on, as many as travel at once; empty at the end.
    pub(crate) fn piece(&self, offset: u64) -> Result<Vec<u8>, CliError> {
        let read = || {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut piece = Vec::new();
            file.take(artefact::PIECE as u64).read_to_end(&mut piece)?;
            Ok(piece)
        };
        read().map_err(|error: std::io::Error| {
            CliError::failed(format!("{} cannot be read", self.path.display())).because(&error)
        })
    }
}

fn temporary() -> Result<Made, CliError> {
    let path = std::env::temp_dir().join(format!("mainstay-release-{}", std::process::id()));
    // A name that somebody else has laid there is not followed.
    let _ = fs::remove_file(&path);
    let made = File::options().write(true).create_new(true).open(&path);
    made.map_err(|error| CliError::failed("there is no room for the artefact").because(&error))?;
    Ok(Made(path))
}

/// Downloads an archive; what comes must be what its SHA-256 says.
async fn fetched(from: &str, progress: &mut Progress) -> Result<Source, CliError> {
    let wrong = || {
        CliError::with(Exit::Invalid, format!("{from} does not say what to expect"))
            .hint("add the SHA-256 of the archive: https://...@SHA256")
    };
    let (address, expected) = from.rsplit_once('@').ok_or_else(wrong)?;
    let expected = Digest::try_from(expected.to_owned()).map_err(|_| wrong())?;
    if !(address.starts_with("https://") || address.starts_with("http://")) {
        return Err(CliError::with(Exit::Invalid, format!("{address} cannot be fetched"))
            .hint("name an address that begins with https:// or http://"));
    }
    progress.say(&format!("fetching {address}"));
    let made = temporary()?;
    let most = artefact::LONGEST.to_string();
    let mut curl = Command::new("curl");
    curl.args([
        "--fail",
        "--silent",
        "--show-error",
        "--location",
        "--proto",
        "=http,https",
        "--max-filesize",
        &most,
    ]);
    curl.arg("--output").arg(&made.0).arg("--").arg(address);
    let ended = curl.stdin(Stdio::null()).output().await.map_err(|error| {
        CliError::failed("curl cannot be started")
            .because(&error)
            .hint("install curl, or fetch the archive yourself")
    })?;
    if !ended.status.success() {
        let said = String::from_utf8_lossy(&ended.stderr).trim().to_owned();
        return Err(CliError::failed(format!("{address} cannot be fetched: {said}")));
    }
    let source = Source::of(made.0.clone(), Some(made))?;
    if source.digest != expected {
        let message = format!("{address} is not what was expected: its SHA-256 is {}", source.digest);
        return Err(CliError::with(Exit::Refused, message)
            .hint("nothing was changed; check who has changed the archive"));
    }
    Ok(source)
}
