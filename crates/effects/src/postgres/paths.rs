//! Where a member keeps what on its node.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use model::DatabaseName;

use super::volume;
use crate::process::OsUser;

/// The longest path of a unix socket (`unix(7)`: 108 bytes with the final zero).
const SOCKET_PATH_LIMIT: usize = 107;

/// A member's directories. Configuration lies outside the data directory, because `pg_basebackup` and `pg_rewind` copy
/// whatever lies inside it from another member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberPaths {
    /// Holds the data directory and its copies in the making; the database's volume may be mounted here.
    pub database: PathBuf,
    /// PostgreSQL's data directory.
    pub data: PathBuf,
    /// Configuration and secrets, on the agent's own volume.
    pub conf: PathBuf,
    /// PostgreSQL's unix socket and pid file.
    pub run: PathBuf,
    /// What the server prints.
    pub log: PathBuf,
}

impl MemberPaths {
    /// The paths of `database` under a node's root directory, which must exist: links in it are resolved, because
    /// processes are recognised by their working directory.
    ///
    /// # Errors
    /// When `root` is not there, or is so long that a unix socket under it could not be connected to.
    pub fn new(root: &Path, database: &DatabaseName, port: u16) -> io::Result<Self> {
        let root = root.canonicalize().map_err(|error| volume::in_words("find", root, &error))?;
        let directory = root.join("databases").join(database.as_str());
        let paths = Self {
            data: directory.join("data"),
            database: directory,
            conf: root.join("state/databases").join(database.as_str()),
            run: root.join("run").join(format!("pg-{database}")),
            log: root.join("log").join(format!("postgres-{database}.log")),
        };
        let socket = paths.run.join(format!(".s.PGSQL.{port}"));
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH_LIMIT {
            let text = format!(
                "the path of PostgreSQL's unix socket, {}, has {length} bytes and the system allows {SOCKET_PATH_LIMIT}. Hint: choose a shorter root directory",
                socket.display()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        Ok(paths)
    }

    /// The main configuration file.
    pub fn postgresql_conf(&self) -> PathBuf {
        self.conf.join("postgresql.conf")
    }

    /// What changes while the server runs; included by the main file.
    pub fn dynamic_conf(&self) -> PathBuf {
        self.conf.join("dynamic.conf")
    }

    /// Who may connect from where.
    pub fn hba_conf(&self) -> PathBuf {
        self.conf.join("pg_hba.conf")
    }

    /// Which operating-system user may be which role.
    pub fn ident_conf(&self) -> PathBuf {
        self.conf.join("pg_ident.conf")
    }

    /// The password of the WAL receiver; empty while the member follows nobody.
    pub fn receiver_passfile(&self) -> PathBuf {
        self.conf.join("passfile")
    }

    /// The passwords of `pg_basebackup`, `pg_rewind` and `psql`.
    pub fn tool_passfile(&self) -> PathBuf {
        self.conf.join("passfile-tools")
    }

    /// All secrets, for the agent.
    pub fn secrets(&self) -> PathBuf {
        self.conf.join("secrets.json")
    }

    /// Present while the data directory is being rewound and must not be started.
    pub fn rewinding(&self) -> PathBuf {
        self.conf.join("rewinding")
    }

    /// Held while the data directory is started, founded, rewound or replaced.
    pub fn lock(&self) -> PathBuf {
        self.conf.join("lock")
    }

    /// The postmaster's pid, written by itself.
    pub fn pid_file(&self) -> PathBuf {
        self.run.join("postmaster.pid")
    }

    /// A copy in the making; worthless when found.
    pub fn cloning(&self) -> PathBuf {
        self.database.join("data.cloning")
    }

    /// A complete and verified copy that has yet to take the place of the data directory.
    pub fn cloned(&self) -> PathBuf {
        self.database.join("data.cloned")
    }

    /// The data directory that was replaced and has yet to be deleted.
    pub fn replaced(&self) -> PathBuf {
        self.database.join("data.replaced")
    }

    /// What the copying tool prints.
    pub fn clone_log(&self) -> PathBuf {
        self.log.with_extension("clone.log")
    }

    /// Makes the directories with the right owners. Blocks.
    pub(super) fn prepare(&self, user: Option<&OsUser>) -> io::Result<()> {
        let server = user.map(|user| (user.uid, user.gid));
        let shared = user.map(|user| (rustix::process::geteuid().as_raw(), user.gid));
        if let Some(log) = self.log.parent() {
            fs::create_dir_all(log).map_err(|error| volume::in_words("make directory", log, &error))?;
        }
        volume::make_directory(&self.conf, 0o750, shared)?;
        volume::make_directory(&self.run, 0o750, server)?;
        volume::make_directory(&self.database, 0o700, server)?;
        [&self.conf, &self.run, &self.database].into_iter().try_for_each(|path| reachable(path, user))
    }
}

/// Checks that the server's user may pass through every directory above `path`.
fn reachable(path: &Path, user: Option<&OsUser>) -> io::Result<()> {
    let Some(user) = user else { return Ok(()) };
    for above in path.ancestors().skip(1) {
        let facts = fs::metadata(above).map_err(|error| volume::in_words("look at", above, &error))?;
        let bit = match (facts.uid() == user.uid, user.groups.contains(&facts.gid())) {
            (true, _) => 0o100,
            (false, true) => 0o010,
            (false, false) => 0o001,
        };
        if facts.permissions().mode() & bit == 0 {
            let text = format!(
                "the operating-system user {} cannot reach {} because {} is closed to it. Hint: chmod o+x {}",
                user.name,
                path.display(),
                above.display(),
                above.display()
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configuration_lies_outside_the_data() {
        let root = tempfile::tempdir().unwrap();
        let paths = MemberPaths::new(root.path(), &"orders".into(), 5432).unwrap();
        assert!(paths.data.ends_with("databases/orders/data"));
        for file in [paths.postgresql_conf(), paths.hba_conf(), paths.receiver_passfile(), paths.pid_file()] {
            assert!(!file.starts_with(&paths.database), "{}", file.display());
        }
    }

    #[test]
    fn a_root_too_deep_for_a_socket_is_refused_in_words() {
        let root = tempfile::tempdir().unwrap();
        let deep = root.path().join("x".repeat(80));
        fs::create_dir(&deep).unwrap();
        let error = MemberPaths::new(&deep, &"orders".into(), 5432).unwrap_err().to_string();
        assert!(error.contains("shorter root directory"), "{error}");
    }

    #[test]
    fn a_closed_directory_is_named() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let nobody = OsUser {
            uid: 65_534,
            gid: 65_534,
            groups: vec![65_534],
            name: "nobody".into(),
            home: "/".into(),
        };
        let error = reachable(&root.path().join("data"), Some(&nobody)).unwrap_err().to_string();
        assert!(error.ends_with(&format!("chmod o+x {}", root.path().display())), "{error}");
    }
}
