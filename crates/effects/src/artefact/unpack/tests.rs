use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use tar::{Builder, Header};

use super::*;

/// One entry of a hostile archive: its kind, its path and what it leads to.
type Piece<'p> = (EntryType, &'p str, &'p str);

/// Writes paths as they are; a library that makes archives would refuse some.
fn archive(pieces: &[Piece<'_>]) -> Vec<u8> {
    let mut tar = Builder::new(vec![]);
    for (kind, path, content) in pieces {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o4755);
        let raw = header.as_gnu_mut().unwrap();
        raw.name[..path.len()].copy_from_slice(path.as_bytes());
        let body: &[u8] = if kind.is_file() { content.as_bytes() } else { b"" };
        if !kind.is_file() {
            raw.linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_size(body.len() as u64);
        header.set_cksum();
        tar.append(&header, body).unwrap();
    }
    tar.into_inner().unwrap()
}

struct Place {
    folder: tempfile::TempDir,
    into: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("in");
        fs::create_dir(&into).unwrap();
        Self { folder, into }
    }

    fn unpack(&self, bytes: &[u8], limits: Limits) -> Result<(), UnpackError> {
        let path = self.folder.path().join("packed");
        fs::write(&path, bytes).unwrap();
        unpack(File::open(path).unwrap(), &self.into, limits)
    }

    /// What lies beside the directory that was unpacked into.
    fn beside(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = names.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

const FILE: EntryType = EntryType::Regular;
const LINK: EntryType = EntryType::Symlink;
const HARD: EntryType = EntryType::Link;

fn refused(pieces: &[Piece<'_>]) -> String {
    let place = Place::new();
    let error = place.unpack(&archive(pieces), Limits::default()).unwrap_err().to_string();
    assert_eq!(place.beside(), ["in", "packed"], "{pieces:?}");
    error
}

#[test]
fn nothing_gets_out_of_the_directory() {
    for pieces in [
        &[(FILE, "../out", "x")][..],
        &[(FILE, "/tmp/out", "x")],
        &[(FILE, "a/../../out", "x")],
        &[(LINK, "l", "/etc/passwd")],
        &[(LINK, "l", "../out")],
        &[(LINK, "a/l", "../../out")],
        &[(LINK, "a/b/l", "../.."), (LINK, "m", "a/b/l/../out")],
        &[(LINK, "l", "."), (FILE, "l/x", "x")],
        &[(LINK, "l", "a"), (FILE, "l", "x")],
        &[(FILE, "a", "x"), (FILE, "a", "y")],
        &[(FILE, "a", "x"), (FILE, "a/b", "y")],
        &[(HARD, "h", "/etc/passwd")],
        &[(HARD, "h", "../packed")],
        &[(LINK, "l", "a"), (HARD, "h", "l")],
        &[(EntryType::Char, "null", "")],
        &[(EntryType::Fifo, "pipe", "")],
        &[(FILE, ".", "x")],
    ] {
        let error = refused(pieces);
        assert!(error.contains("artefact holds"), "{pieces:?}: {error}");
    }
}

#[test]
fn what_is_right_is_unpacked_with_plain_modes() {
    let pieces = [
        (EntryType::Directory, "./bin/", ""),
        (FILE, "./bin/app", "one"),
        (LINK, "bin/now", "app"),
        (LINK, "bin/up", "../lib"),
        (HARD, "lib/again", "bin/app"),
    ];
    let bytes = archive(&pieces);
    let mut gzip = GzEncoder::new(vec![], Compression::fast());
    gzip.write_all(&bytes).unwrap();
    for bytes in [bytes.clone(), gzip.finish().unwrap()] {
        let place = Place::new();
        place.unpack(&bytes, Limits::default()).unwrap();
        for path in ["bin/app", "bin/now", "bin/up/again"] {
            assert_eq!(fs::read_to_string(place.into.join(path)).unwrap(), "one", "{path}");
        }
        let mode = fs::metadata(place.into.join("bin/app")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755, "neither set-user-id nor anything else");
    }
}

#[test]
fn nothing_is_without_limit() {
    let limits = Limits { bytes: 5000, entries: 2, depth: 3 };
    let said = |pieces: &[Piece<'_>]| Place::new().unpack(&archive(pieces), limits).unwrap_err().to_string();
    let long = "x".repeat(6000);
    assert!(said(&[(FILE, "a", &long)]).contains("more than"));
    assert!(said(&[(FILE, "a", ""), (FILE, "b", ""), (FILE, "c", "")]).contains("2 entries"));
    assert!(said(&[(FILE, "a/b/c/d", "")]).contains("no path"));
    // A bomb: zeros that take hardly any room until they are unpacked.
    let mut gzip = GzEncoder::new(vec![], Compression::best());
    gzip.write_all(&archive(&[(FILE, "a", &"0".repeat(4 << 20))])).unwrap();
    let place = Place::new();
    assert!(place.unpack(&gzip.finish().unwrap(), limits).is_err());
}

#[test]
fn what_is_broken_off_is_refused() {
    let whole = archive(&[(FILE, "a", &"x".repeat(2000)), (FILE, "b", "y")]);
    for length in [0, 1, 300, 700, 1500] {
        assert!(Place::new().unpack(&whole[..length], Limits::default()).is_err(), "{length}");
    }
    assert!(Place::new().unpack(&vec![0; 4096], Limits::default()).is_err(), "an archive of nothing");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever paths and links: an error or files inside, nothing beside, no link that leads out.
    #[test]
    fn any_archive_stays_inside(pieces in proptest::collection::vec(
        (0..4_usize, "(\\.\\./|\\./|a/|b/|/){0,4}[abl.]{1,2}", "(\\.\\./|a/|b/|l/|/){0,4}[abl.]{0,2}"), 1..12)) {
        let kinds = [FILE, LINK, HARD, EntryType::Directory];
        let pieces: Vec<Piece<'_>> =
            pieces.iter().map(|(kind, path, to)| (kinds[*kind], path.as_str(), to.as_str())).collect();
        let place = Place::new();
        let _ = place.unpack(&archive(&pieces), Limits::default());
        prop_assert_eq!(place.beside(), ["in", "packed"]);
        let root = place.into.canonicalize().unwrap();
        let mut ways = vec![place.into.clone()];
        while let Some(way) = ways.pop() {
            for entry in fs::read_dir(way).unwrap() {
                let path = entry.unwrap().path();
                if let Ok(real) = path.canonicalize() {
                    prop_assert!(real.starts_with(&root), "{} leads to {}", path.display(), real.display());
                }
                if fs::symlink_metadata(&path).unwrap().is_dir() {
                    ways.push(path);
                }
            }
        }
    }

    /// Whatever bytes: an answer, no panic.
    #[test]
    fn any_bytes_are_judged(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let place = Place::new();
        let _ = place.unpack(&bytes, Limits::default());
        prop_assert_eq!(place.beside(), ["in", "packed"]);
    }
}
