//! The list of files that comes with a base backup.

use std::fs;
use std::io;
use std::path::Path;

use serde::Deserialize;

use super::super::volume;

/// The part of `backup_manifest` that is read (PostgreSQL documentation, "Backup Manifest Format").
#[derive(Deserialize)]
struct Manifest {
    #[serde(rename = "Files")]
    files: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    /// Absent for the rare file whose name is not UTF-8 (it has `Encoded-Path` instead).
    #[serde(rename = "Path")]
    path: Option<String>,
    #[serde(rename = "Size")]
    size: u64,
}

/// Checks that all files of the manifest are there with the right sizes. Returns how many. Blocks.
pub(super) fn check_sizes(copy: &Path) -> io::Result<usize> {
    let path = copy.join("backup_manifest");
    let text = fs::read(&path).map_err(|error| volume::in_words("read", &path, &error))?;
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|error| volume::in_words("understand", &path, &io::Error::other(error)))?;
    for entry in &manifest.files {
        let Some(name) = &entry.path else { continue };
        let file = copy.join(name);
        let size = fs::metadata(&file).map_err(|error| volume::in_words("find", &file, &error))?.len();
        if size != entry.size {
            let text = format!("{} has {size} bytes, the manifest says {}", file.display(), entry.size);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
    }
    Ok(manifest.files.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_missing_or_cut_is_named() {
        let copy = tempfile::tempdir().unwrap();
        let manifest = r#"{"PostgreSQL-Backup-Manifest-Version": 1, "Files": [
            {"Path": "PG_VERSION", "Size": 3, "Checksum-Algorithm": "CRC32C", "Checksum": "64440205"}]}"#;
        fs::write(copy.path().join("backup_manifest"), manifest).unwrap();
        assert!(check_sizes(copy.path()).unwrap_err().to_string().contains("PG_VERSION"));
        fs::write(copy.path().join("PG_VERSION"), "1").unwrap();
        assert!(
            check_sizes(copy.path()).unwrap_err().to_string().ends_with("has 1 bytes, the manifest says 3")
        );
        fs::write(copy.path().join("PG_VERSION"), "15\n").unwrap();
        assert_eq!(check_sizes(copy.path()).unwrap(), 1);
    }
}
