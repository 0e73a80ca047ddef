//! Unpacking what somebody else has packed: nothing gets out of the directory, and nothing is without limit.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry, EntryType};

/// How much an artefact may unpack to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all files, and of everything in between.
    pub bytes: u64,
    /// Files, directories and links.
    pub entries: u64,
    /// Parts of one path.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 8 << 30, entries: 200_000, depth: 64 }
    }
}

/// Why an artefact is not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is no tar archive, or broken.
    #[error("the artefact is no whole tar archive (plain or gzip): {0}")]
    Broken(io::Error),
    /// A path that leads out, or means nothing.
    #[error("the artefact holds `{0}`, which is no path inside it")]
    Path(String),
    /// A link that leads out.
    #[error("the artefact holds the link `{link}` to `{target}`, which is not inside it")]
    Link {
        /// The link.
        link: String,
        /// Where it leads.
        target: String,
    },
    /// The same path twice, or a path through a link.
    #[error("the artefact holds `{0}` twice, or reaches it through a link")]
    Twice(String),
    /// A device, a pipe or something else that is no file.
    #[error("the artefact holds `{0}`, which is neither a file, a directory nor a link")]
    Kind(String),
    /// More than the limits allow.
    #[error("the artefact unpacks to more than {0}")]
    TooMuch(String),
    /// The disk.
    #[error("{}: {source}", path.display())]
    File {
        /// What could not be written.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// Unpacks a tar archive, plain or compressed by gzip, into the empty directory `into`. Owners, times and special bits
/// of modes are not taken over: programs get mode 0755, other files 0644.
///
/// # Errors
/// At the first thing that is not as it should be; what was unpacked before it is left for the caller to remove.
pub fn unpack(packed: File, into: &Path, limits: Limits) -> Result<(), UnpackError> {
    let mut packed = BufReader::new(packed);
    let is_gzip = io::BufRead::fill_buf(&mut packed).map_err(UnpackError::Broken)?.starts_with(&[0x1f, 0x8b]);
    let bytes: Box<dyn Read> = if is_gzip { Box::new(MultiGzDecoder::new(packed)) } else { Box::new(packed) };
    // One byte more than is allowed, so that a longer archive is told from one that just fits.
    let mut archive = Archive::new(bytes.take(limits.bytes.saturating_add(1)));
    let (mut entries, mut total) = (0, 0_u64);
    for entry in archive.entries().map_err(UnpackError::Broken)? {
        let mut entry = entry.map_err(UnpackError::Broken)?;
        entries += 1;
        if entries > limits.entries {
            return Err(UnpackError::TooMuch(format!("{} entries", limits.entries)));
        }
        total = total.saturating_add(entry.size());
        if total > limits.bytes {
            return Err(UnpackError::TooMuch(format!("{} MiB", limits.bytes >> 20)));
        }
        one(&mut entry, into, limits)?;
    }
    if entries == 0 {
        return Err(UnpackError::Broken(io::Error::other("it is empty")));
    }
    Ok(())
}

fn one(entry: &mut Entry<'_, impl Read>, into: &Path, limits: Limits) -> Result<(), UnpackError> {
    let kind = entry.header().entry_type();
    if kind == EntryType::XGlobalHeader {
        return Ok(());
    }
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let inside = inner(&name, limits).ok_or_else(|| UnpackError::Path(name.clone()))?;
    let path = into.join(&inside);
    parents(into, &inside).ok_or_else(|| UnpackError::Twice(name.clone()))?;
    let on_disk = |source| UnpackError::File { path: path.clone(), source };
    if kind.is_dir() {
        return match fs::symlink_metadata(&path) {
            Ok(facts) if facts.is_dir() => Ok(()),
            Ok(_) => Err(UnpackError::Twice(name)),
            Err(_) => fs::create_dir_all(&path).map_err(on_disk),
        };
    }
    if inside.as_os_str().is_empty() {
        return Err(UnpackError::Path(name));
    }
    if fs::symlink_metadata(&path).is_ok() {
        return Err(UnpackError::Twice(name));
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(on_disk)?;
    }
    if kind.is_file() || kind == EntryType::Continuous {
        return file(entry, &path);
    }
    let target = entry.link_name_bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    match (kind, target) {
        (EntryType::Symlink, Some(target)) => {
            let from = inside.parent().unwrap_or(Path::new(""));
            if !stays_inside(from, &target) {
                return Err(UnpackError::Link { link: name, target });
            }
            symlink(&target, &path).map_err(on_disk)
        }
        (EntryType::Link, Some(target)) => hard_link(into, &name, &path, &target, limits),
        _ => Err(UnpackError::Kind(name)),
    }
}

fn file(entry: &mut Entry<'_, impl Read>, path: &Path) -> Result<(), UnpackError> {
    let on_disk = |source| UnpackError::File { path: path.to_owned(), source };
    let is_program = entry.header().mode().map_err(UnpackError::Broken)? & 0o111 != 0;
    let mode = if is_program { 0o755 } else { 0o644 };
    let size = entry.size();
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(on_disk)?;
    let copied = io::copy(entry, &mut file).map_err(on_disk)?;
    if copied != size {
        return Err(UnpackError::Broken(io::ErrorKind::UnexpectedEof.into()));
    }
    // Whatever the umask says.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(on_disk)?;
    file.sync_all().map_err(on_disk)
}

/// A second name of a file that came before it.
fn hard_link(into: &Path, name: &str, path: &Path, target: &str, limits: Limits) -> Result<(), UnpackError> {
    let refused = || UnpackError::Link { link: name.to_owned(), target: target.to_owned() };
    let inside = inner(target, limits).ok_or_else(refused)?;
    parents(into, &inside).ok_or_else(refused)?;
    let from = into.join(inside);
    match fs::symlink_metadata(&from) {
        Ok(facts) if facts.is_file() => {}
        Ok(_) | Err(_) => return Err(refused()),
    }
    fs::hard_link(&from, path).map_err(|source| UnpackError::File { path: path.to_owned(), source })
}

/// The path without `./`, if it leads nowhere else.
fn inner(name: &str, limits: Limits) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => inside.push(part),
            Component::CurDir => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    let fits = inside.components().count() <= limits.depth && !name.contains('\0') && !name.is_empty();
    fits.then_some(inside)
}

/// Whether everything on the way to the path is a directory, or not there yet.
fn parents(into: &Path, inside: &Path) -> Option<()> {
    let mut way = into.to_owned();
    for part in inside.parent().into_iter().flat_map(Path::components) {
        way.push(part);
        match fs::symlink_metadata(&way) {
            Ok(facts) if facts.is_dir() => {}
            Ok(_) => return None,
            Err(_) => return Some(()),
        }
    }
    Some(())
}

/// Whether a link in the directory `from` leads nowhere else than into the artefact. The way up comes first in it: behind
/// the name of another link `..` would lead up from wherever that leads to.
fn stays_inside(from: &Path, target: &str) -> bool {
    let mut up = 0;
    let mut named = false;
    for part in Path::new(target).components() {
        match part {
            Component::Normal(_) => named = true,
            Component::CurDir => {}
            Component::ParentDir if !named => up += 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    up <= from.components().count() && !target.is_empty() && !target.contains('\0')
}

#[cfg(test)]
mod tests;
