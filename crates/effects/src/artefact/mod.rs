//! The artefacts of releases on a node: received in pieces, checked against their digest, unpacked, kept, removed.
//!
//! `ROOT/artefacts/DIGEST/` holds `packed`, the bytes whose SHA-256 the digest is, and `files/`, what they unpack to. A
//! directory of that name is complete: it gets its name when everything in it is flushed. What is being received lies in
//! `incoming/`.

mod pack;
mod unpack;

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use model::release::Digest;

pub use pack::pack;
pub use unpack::{Limits, UnpackError, unpack};

/// The longest artefact, in bytes.
pub const LONGEST: u64 = 2 << 30;

/// The most bytes of one piece on its way between nodes.
pub const PIECE: usize = 512 << 10;

/// Why an artefact cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum ArtefactError {
    /// A file or directory.
    #[error("{}: {source}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A piece that is not the next one.
    #[error("the piece begins at byte {offset}, {have} bytes are there")]
    Gap {
        /// Where it begins.
        offset: u64,
        /// What is there already.
        have: u64,
    },
    /// More bytes than an artefact may have.
    #[error("an artefact may have {} MiB at most", LONGEST >> 20)]
    TooLong,
    /// Not the bytes that the digest is of.
    #[error("the bytes are not those of {expected}: their SHA-256 is {found}")]
    Different {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        found: String,
    },
    /// It cannot be unpacked.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> ArtefactError + use<> {
    let path = path.to_owned();
    move |source| ArtefactError::File { path, source }
}

/// All artefacts of a node. Every function blocks for as long as the disk needs.
#[derive(Clone, Debug)]
pub struct Artefacts {
    root: PathBuf,
}

impl Artefacts {
    /// Those in `root`, which is made when it is missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(root: &Path) -> Result<Self, ArtefactError> {
        let incoming = root.join("incoming");
        fs::create_dir_all(&incoming).map_err(at(&incoming))?;
        Ok(Self { root: root.to_owned() })
    }

    /// The complete ones.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn complete(&self) -> Result<BTreeSet<Digest>, ArtefactError> {
        let entries = fs::read_dir(&self.root).map_err(at(&self.root))?;
        let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter_map(|name| Digest::try_from(name).ok()).collect())
    }

    /// Where what it unpacks to lies.
    pub fn files(&self, digest: &Digest) -> PathBuf {
        self.root.join(digest.as_str()).join("files")
    }

    /// How many bytes of an artefact have been received.
    pub fn received(&self, digest: &Digest) -> u64 {
        fs::metadata(self.incoming(digest)).map_or(0, |facts| facts.len())
    }

    /// Takes the next piece of an artefact.
    ///
    /// # Errors
    /// When it is not the next one, too much, or cannot be written.
    pub fn receive(&self, digest: &Digest, offset: u64, piece: &[u8]) -> Result<(), ArtefactError> {
        let path = self.incoming(digest);
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(at(&path))?;
        let have = file.metadata().map_err(at(&path))?.len();
        if offset != have {
            return Err(ArtefactError::Gap { offset, have });
        }
        if have + u64::try_from(piece.len()).unwrap_or(u64::MAX) > LONGEST {
            return Err(ArtefactError::TooLong);
        }
        file.write_all(piece).map_err(at(&path))
    }

    /// Takes all of an artefact from a file of this machine.
    ///
    /// # Errors
    /// When it cannot be read, is too long or cannot be written.
    pub fn receive_file(&self, digest: &Digest, source: &Path) -> Result<(), ArtefactError> {
        let mut source_file = File::open(source).map_err(at(source))?;
        let mut offset = 0;
        loop {
            let mut piece = Vec::with_capacity(PIECE);
            let read = (&mut source_file).take(PIECE as u64).read_to_end(&mut piece).map_err(at(source))?;
            if read == 0 {
                return Ok(());
            }
            self.receive(digest, offset, &piece)?;
            offset += u64::try_from(read).unwrap_or(0);
        }
    }

    /// Throws away what an earlier attempt has left.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn forget_received(&self, digest: &Digest) -> Result<(), ArtefactError> {
        let path = self.incoming(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// All of it has been received: checks and unpacks it. When it is not what its digest says, or cannot be unpacked, what
    /// was received is removed.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn finish(&self, digest: &Digest) -> Result<(), ArtefactError> {
        let target = self.root.join(digest.as_str());
        if target.exists() {
            return Ok(());
        }
        let (packed, fresh) =
            (self.incoming(digest), self.root.join("incoming").join(format!("{digest}.new")));
        let made = self.make(digest, &packed, &fresh);
        if made.is_err() {
            // What cannot be removed now is removed before the next attempt.
            let _ = fs::remove_file(&packed);
            let _ = fs::remove_dir_all(&fresh);
        }
        made?;
        fs::rename(&fresh, &target).map_err(at(&target))?;
        crate::files::sync_directory(&self.root).map_err(at(&self.root))
    }

    fn make(&self, expected: &Digest, packed: &Path, fresh: &Path) -> Result<(), ArtefactError> {
        let found = sha256(packed)?;
        if found != expected.as_str() {
            return Err(ArtefactError::Different { expected: expected.clone(), found });
        }
        if fresh.exists() {
            fs::remove_dir_all(fresh).map_err(at(fresh))?;
        }
        let files = fresh.join("files");
        fs::create_dir_all(&files).map_err(at(&files))?;
        unpack(File::open(packed).map_err(at(packed))?, &files, Limits::default())?;
        let kept = fresh.join("packed");
        fs::rename(packed, &kept).map_err(at(&kept))?;
        File::open(&kept).and_then(|file| file.sync_all()).map_err(at(&kept))?;
        crate::files::sync_directory(fresh).map_err(at(fresh))
    }

    /// As [`Self::finish`] for an artefact that is no archive but a program itself: it becomes the only file, of this name.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn finish_program(&self, digest: &Digest, name: &str) -> Result<(), ArtefactError> {
        let target = self.root.join(digest.as_str());
        if target.exists() {
            return Ok(());
        }
        let packed = self.incoming(digest);
        let fresh = self.root.join("incoming").join(format!("{digest}.new"));
        let made = lay(digest, &packed, &fresh, name);
        if made.is_err() {
            // What cannot be removed now is removed before the next attempt.
            let _ = fs::remove_file(&packed);
            let _ = fs::remove_dir_all(&fresh);
        }
        made?;
        fs::rename(&fresh, &target).map_err(at(&target))?;
        crate::files::sync_directory(&self.root).map_err(at(&self.root))
    }

    /// A piece of a complete artefact, for another node; empty behind its end.
    ///
    /// # Errors
    /// When it is not here.
    pub fn piece(&self, digest: &Digest, offset: u64) -> Result<Vec<u8>, ArtefactError> {
        let path = self.root.join(digest.as_str()).join("packed");
        let mut file = File::open(&path).map_err(at(&path))?;
        file.seek(SeekFrom::Start(offset)).map_err(at(&path))?;
        let mut piece = Vec::with_capacity(PIECE);
        file.take(PIECE as u64).read_to_end(&mut piece).map_err(at(&path))?;
        Ok(piece)
    }

    /// Removes all but these.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn keep(&self, wanted: &BTreeSet<Digest>) -> Result<(), ArtefactError> {
        for digest in self.complete()?.difference(wanted) {
            // Renamed first, so that no half of it is ever taken for complete.
            let (path, gone) =
                (self.root.join(digest.as_str()), self.root.join("incoming").join(format!("{digest}.old")));
            fs::rename(&path, &gone).map_err(at(&path))?;
            fs::remove_dir_all(&gone).map_err(at(&gone))?;
        }
        Ok(())
    }

    fn incoming(&self, digest: &Digest) -> PathBuf {
        self.root.join("incoming").join(digest.as_str())
    }
}

fn lay(expected: &Digest, packed: &Path, fresh: &Path, name: &str) -> Result<(), ArtefactError> {
    use std::os::unix::fs::PermissionsExt;
    let found = sha256(packed)?;
    if found != expected.as_str() {
        return Err(ArtefactError::Different { expected: expected.clone(), found });
    }
    if fresh.exists() {
        fs::remove_dir_all(fresh).map_err(at(fresh))?;
    }
    let program = fresh.join("files").join(name);
    fs::create_dir_all(fresh.join("files")).map_err(at(fresh))?;
    fs::rename(packed, &program).map_err(at(&program))?;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).map_err(at(&program))?;
    File::open(&program).and_then(|file| file.sync_all()).map_err(at(&program))?;
    crate::files::sync_directory(fresh).map_err(at(fresh))
}

/// The SHA-256 of a file, in hexadecimal digits.
///
/// # Errors
/// When it cannot be read.
pub fn sha256(path: &Path) -> Result<String, ArtefactError> {
    let mut file = File::open(path).map_err(at(path))?;
    let mut context = digest::Context::new(&digest::SHA256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let read = file.read(&mut buffer).map_err(at(path))?;
        if read == 0 {
            break;
        }
        context.update(&buffer[..read]);
    }
    Ok(context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(folder: &Path) -> (PathBuf, Digest) {
        let source = folder.join("source");
        fs::create_dir_all(source.join("bin")).unwrap();
        fs::write(source.join("bin/app"), "#!/bin/sh\n").unwrap();
        let path = folder.join("packed.tar");
        pack(&source, File::create(&path).unwrap()).unwrap();
        let digest = Digest::try_from(sha256(&path).unwrap()).unwrap();
        (path, digest)
    }

    #[test]
    fn an_artefact_goes_from_node_to_node_in_pieces_and_is_removed_when_nobody_wants_it() {
        let folder = tempfile::tempdir().unwrap();
        let (path, digest) = packed(folder.path());
        let (one, other) =
            (Artefacts::open(&folder.path().join("a")), Artefacts::open(&folder.path().join("b")));
        let (one, other) = (one.unwrap(), other.unwrap());
        let bytes = fs::read(&path).unwrap();
        one.receive(&digest, 0, &bytes[..100]).unwrap();
        assert!(matches!(one.receive(&digest, 0, &bytes), Err(ArtefactError::Gap { have: 100, .. })));
        one.receive(&digest, one.received(&digest), &bytes[100..]).unwrap();
        assert!(one.complete().unwrap().is_empty(), "nothing is complete before it was checked");
        one.finish(&digest).unwrap();
        one.finish(&digest).unwrap();
        let piece = one.piece(&digest, 0).unwrap();
        assert_eq!(piece, bytes);
        assert!(one.piece(&digest, bytes.len() as u64).unwrap().is_empty());
        other.receive(&digest, 0, &piece).unwrap();
        other.finish(&digest).unwrap();
        assert_eq!(fs::read_to_string(other.files(&digest).join("bin/app")).unwrap(), "#!/bin/sh\n");
        other.keep(&[digest.clone()].into()).unwrap();
        assert_eq!(other.complete().unwrap(), [digest].into());
        other.keep(&BTreeSet::new()).unwrap();
        assert!(other.complete().unwrap().is_empty());
    }

    #[test]
    fn a_program_becomes_a_file_that_runs() {
        let folder = tempfile::tempdir().unwrap();
        let store = Artefacts::open(folder.path()).unwrap();
        let source = folder.path().join("source");
        fs::write(&source, "#!/bin/sh\necho yes\n").unwrap();
        let digest = Digest::try_from(sha256(&source).unwrap()).unwrap();
        store.receive(&digest, 0, b"#!/bin/sh\n").unwrap();
        assert!(store.finish_program(&digest, "tool").is_err(), "it is not all of it");
        store.receive(&digest, 0, &fs::read(&source).unwrap()).unwrap();
        store.finish_program(&digest, "tool").unwrap();
        let output = std::process::Command::new(store.files(&digest).join("tool")).output().unwrap();
        assert_eq!(output.stdout, b"yes\n");
        assert_eq!(store.complete().unwrap(), [digest].into());
    }

    #[test]
    fn other_bytes_than_those_of_the_digest_are_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let (path, digest) = packed(folder.path());
        let store = Artefacts::open(&folder.path().join("a")).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[600] ^= 1;
        store.receive(&digest, 0, &bytes).unwrap();
        assert!(matches!(store.finish(&digest), Err(ArtefactError::Different { .. })));
        assert_eq!(store.received(&digest), 0);
        assert!(store.complete().unwrap().is_empty());
    }
}
