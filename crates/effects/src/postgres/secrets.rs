//! The passwords of a database's roles: made once when it is founded, the same on all members.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};

use super::volume::{self, Access, FileError};
use super::{Member, REPLICATION_ROLE, REWIND_ROLE};

/// The passwords of a database's roles. Kept in coordination as JSON and on each node in a file of mode 0600; never
/// printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Of the role that standbys stream with.
    pub replication: String,
    /// Of the role that a former primary rewinds with.
    pub rewind: String,
    /// Of the role that owns the application's database.
    pub owner: String,
}

impl Secrets {
    /// New passwords: 192 random bits each.
    ///
    /// # Errors
    /// When the system's random source cannot be read.
    pub fn generate() -> io::Result<Self> {
        Ok(Self { replication: password()?, rewind: password()?, owner: password()? })
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secrets(not shown)")
    }
}

/// 24 random bytes in hexadecimal: no character that any quoting rule (SQL, conninfo, URL, passfile) cares about.
fn password() -> io::Result<String> {
    let mut bytes = [0; 24];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

impl Member {
    /// Keeps the secrets on this node: a file for ourselves and the password file of the tools, both 0600.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub async fn keep_secrets(&self, secrets: &Secrets) -> Result<(), FileError> {
        let member = self.clone();
        let text = serde_json::to_vec_pretty(secrets).map_err(io::Error::other)?;
        let passwords = format!(
            "*:*:*:{REPLICATION_ROLE}:{}\n*:*:*:{REWIND_ROLE}:{}\n",
            secrets.replication, secrets.rewind
        );
        volume::run("write secrets", volume::PATIENCE, move || {
            let (paths, user) = (member.paths(), member.user());
            volume::replace(&paths.secrets(), &text, Access::Ours, user)?;
            volume::replace(&paths.tool_passfile(), passwords.as_bytes(), Access::ServerOwns, user)?;
            volume::sync(&paths.tool_passfile())?;
            volume::sync(&paths.secrets())
        })
        .await
    }

    /// The secrets kept on this node; `None` when there are none yet.
    ///
    /// # Errors
    /// When the file cannot be read or is damaged.
    pub async fn kept_secrets(&self) -> Result<Option<Secrets>, FileError> {
        let path = self.paths().secrets();
        volume::run("read secrets", volume::PATIENCE, move || match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| volume::in_words("understand", &path, &io::Error::other(error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(volume::in_words("read", &path, &error)),
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_differ_and_are_not_shown() {
        let secrets = Secrets::generate().unwrap();
        assert_eq!(secrets.owner.len(), 48);
        assert_ne!(secrets.owner, secrets.rewind);
        assert_ne!(secrets, Secrets::generate().unwrap());
        assert!(!format!("{secrets:?}").contains(&secrets.owner));
    }
}
