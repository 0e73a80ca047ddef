//! A directory as an artefact: the same files give the same bytes, whoever packs them, whenever and wherever.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tar::{Builder, EntryType, Header};

/// Packs everything below `source`.
///
/// # Errors
/// With the path in the text: something cannot be read, or is neither a file, a directory nor a symbolic link.
pub fn pack(source: &Path, into: impl Write) -> io::Result<()> {
    let mut tar = Builder::new(into);
    below(&mut tar, source, Path::new(""))?;
    tar.into_inner()?.flush()
}

fn below(tar: &mut Builder<impl Write>, source: &Path, inside: &Path) -> io::Result<()> {
    let here = source.join(inside);
    let mut names = vec![];
    for entry in fs::read_dir(&here).map_err(|error| named(&here, &error))? {
        names.push(entry.map_err(|error| named(&here, &error))?.file_name());
    }
    names.sort();
    for name in names {
        let inside = inside.join(name);
        let path = source.join(&inside);
        one(tar, &path, &inside).map_err(|error| named(&path, &error))?;
        if fs::symlink_metadata(&path)?.is_dir() {
            below(tar, source, &inside)?;
        }
    }
    Ok(())
}

fn one(tar: &mut Builder<impl Write>, path: &Path, inside: &Path) -> io::Result<()> {
    let facts = fs::symlink_metadata(path)?;
    let kind = facts.file_type();
    let is_program = kind.is_dir() || facts.permissions().mode() & 0o111 != 0;
    let mut header = Header::new_gnu();
    header.set_mode(if is_program { 0o755 } else { 0o644 });
    header.set_size(0);
    if kind.is_file() {
        header.set_size(facts.len());
        return tar.append_data(&mut header, inside, File::open(path)?);
    }
    if kind.is_symlink() {
        header.set_entry_type(EntryType::Symlink);
        return tar.append_link(&mut header, inside, fs::read_link(path)?);
    }
    if kind.is_dir() {
        header.set_entry_type(EntryType::Directory);
        return tar.append_data(&mut header, inside, io::empty());
    }
    Err(io::Error::other("is neither a file, a directory nor a symbolic link"))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    let text = error.to_string();
    let text =
        if text.contains(&path.display().to_string()) { text } else { format!("{}: {text}", path.display()) };
    io::Error::new(error.kind(), text)
}
