//! Which PostgreSQL programs this machine has.

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::volume;
use crate::process::{ToolCommand, ToolError, find_program, run_tool};

/// The major versions that are supported.
pub const SUPPORTED: RangeInclusive<u32> = 13..=18;

/// Where Debian and its derivatives keep one directory for each major version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The programs that must be there; all of them come with the server and the client package of the same version.
const PROGRAMS: [&str; 7] =
    ["postgres", "initdb", "pg_controldata", "pg_basebackup", "pg_rewind", "pg_verifybackup", "psql"];

/// The programs of one PostgreSQL version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// The directory of the programs.
    pub bin_dir: PathBuf,
    /// The major version, e.g. 15.
    pub major: u32,
    /// The full version as the server prints it, e.g. `15.20`.
    pub version: String,
}

/// Why no usable PostgreSQL was found.
#[derive(Debug, thiserror::Error)]
pub enum InstallationError {
    /// Nowhere.
    #[error("PostgreSQL{} is not installed: looked in {looked}. Hint: apt install postgresql{}", wanted(.major, " "), wanted(.major, "-"))]
    Missing {
        /// The major version that was asked for.
        major: Option<u32>,
        /// Where it was looked for.
        looked: String,
    },
    /// Some of its programs are not there.
    #[error("PostgreSQL in {} is incomplete: {programs} missing. Hint: install the server and the client package of the same version", bin_dir.display())]
    Incomplete {
        /// The directory.
        bin_dir: PathBuf,
        /// The missing programs.
        programs: String,
    },
    /// Too old, or too new to be known.
    #[error("PostgreSQL {version} in {} is not supported: versions {} to {} are", bin_dir.display(), SUPPORTED.start(), SUPPORTED.end())]
    Unsupported {
        /// The directory.
        bin_dir: PathBuf,
        /// Its version.
        version: String,
    },
    /// Another major version than the one asked for.
    #[error("PostgreSQL in {} has version {version}, but {wanted} is wanted", bin_dir.display())]
    WrongMajor {
        /// The directory.
        bin_dir: PathBuf,
        /// Its version.
        version: String,
        /// The major version that was asked for.
        wanted: u32,
    },
    /// `postgres --version` did not work.
    #[error("cannot ask PostgreSQL for its version: {0}")]
    Version(#[from] ToolError),
    /// `postgres --version` printed something else.
    #[error("{} printed no version: `{text}`", program.display())]
    NoVersion {
        /// The program.
        program: PathBuf,
        /// What it printed.
        text: String,
    },
    /// The disk with the programs does not answer.
    #[error(transparent)]
    Files(#[from] volume::FileError),
}

fn wanted(major: &Option<u32>, separator: &str) -> String {
    major.map(|major| format!("{separator}{major}")).unwrap_or_default()
}

impl Installation {
    /// Finds PostgreSQL: in `bin_dir` when given, else the newest supported version (or exactly `major`) under
    /// `/usr/lib/postgresql`, else on the `PATH`.
    ///
    /// # Errors
    /// When there is none, or what is there is incomplete or not supported; each names the place.
    pub async fn find(bin_dir: Option<&Path>, major: Option<u32>) -> Result<Self, InstallationError> {
        let places = match bin_dir {
            Some(bin_dir) => vec![bin_dir.to_owned()],
            None => volume::run("find postgres", volume::PATIENCE, move || Ok(usual_places(major))).await?,
        };
        let looked = if bin_dir.is_some() { list(&places) } else { format!("{DEBIAN}/*/bin and PATH") };
        let missing = InstallationError::Missing { major, looked };
        let Some(place) = places.into_iter().find(|place| place.join("postgres").exists()) else {
            return Err(missing);
        };
        let found = Self::examine(place).await?;
        match major {
            Some(wanted) if wanted != found.major && bin_dir.is_some() => {
                Err(InstallationError::WrongMajor { bin_dir: found.bin_dir, version: found.version, wanted })
            }
            Some(wanted) if wanted != found.major => Err(missing),
            Some(_) | None => Ok(found),
        }
    }

    /// The path of one of its programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin_dir.join(name)
    }

    async fn examine(bin_dir: PathBuf) -> Result<Self, InstallationError> {
        let missing: Vec<&str> = PROGRAMS.into_iter().filter(|name| !bin_dir.join(name).exists()).collect();
        if !missing.is_empty() {
            return Err(InstallationError::Incomplete { bin_dir, programs: missing.join(", ") });
        }
        let program = bin_dir.join("postgres");
        let ask = ToolCommand::new(&program, ["--version"], Duration::from_secs(10));
        let text = run_tool(ask).await?.checked()?.stdout;
        let Some((major, version)) = parse_version(&text) else {
            return Err(InstallationError::NoVersion { program, text });
        };
        if !SUPPORTED.contains(&major) {
            return Err(InstallationError::Unsupported { bin_dir, version });
        }
        Ok(Self { bin_dir, major, version })
    }
}

/// The major version of the data in `data` (its file `PG_VERSION`); `None` when there is no such file.
///
/// # Errors
/// When the file cannot be read or holds no number. Blocks on the database's volume.
pub(super) fn major_of_data(data: &Path) -> io::Result<Option<u32>> {
    let path = data.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().map(Some).map_err(|_| {
            io::Error::other(format!("{} holds `{}`, not a version", path.display(), text.trim()))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(volume::in_words("read", &path, &error)),
    }
}

fn list(places: &[PathBuf]) -> String {
    let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
    places.join(", ")
}

fn usual_places(major: Option<u32>) -> Vec<PathBuf> {
    let mut versions: Vec<u32> = fs::read_dir(DEBIAN)
        .map(|entries| entries.flatten().filter_map(|e| e.file_name().to_str()?.parse().ok()).collect())
        .unwrap_or_default();
    versions.retain(|version| major.map_or(SUPPORTED.contains(version), |major| major == *version));
    versions.sort_unstable_by(|a, b| b.cmp(a));
    let debian = versions.into_iter().map(|version| Path::new(DEBIAN).join(version.to_string()).join("bin"));
    let mut places: Vec<PathBuf> = debian.filter(|place| place.join("postgres").exists()).collect();
    // Links are followed: the other programs lie beside the real one.
    let on_path = find_program("postgres").and_then(|program| program.canonicalize().ok());
    places.extend(on_path.and_then(|program| program.parent().map(Path::to_owned)));
    places
}

/// `postgres (PostgreSQL) 15.20 (Debian 15.20-1)` gives 15 and `15.20`; also `16beta1`, `18devel`.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text.split_once("(PostgreSQL) ")?.1.split_whitespace().next()?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((digits.parse().ok()?, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_server_prints_them() {
        let debian = "postgres (PostgreSQL) 15.20 (Debian 15.20-0+deb12u1)\n";
        assert_eq!(parse_version(debian), Some((15, "15.20".to_owned())));
        assert_eq!(parse_version("postgres (PostgreSQL) 18beta2"), Some((18, "18beta2".to_owned())));
        assert_eq!(parse_version("mysqld 8"), None);
    }

    #[tokio::test]
    async fn a_missing_installation_says_where_it_was_looked_for_and_what_to_do() {
        let directory = tempfile::tempdir().unwrap();
        let error = Installation::find(Some(directory.path()), Some(15)).await.unwrap_err().to_string();
        assert!(error.contains(&directory.path().display().to_string()), "{error}");
        assert!(error.ends_with("Hint: apt install postgresql-15"), "{error}");
    }
}
