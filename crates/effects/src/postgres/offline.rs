//! What is set while no server runs.

use super::settings::Dynamic;
use super::volume::{self, Access, FileError};
use super::{Member, REPLICATION_ROLE, Source, slot_name};

impl Member {
    /// Makes a member whose server is down follow nobody from its next start on, durably. For a running one see
    /// [`super::Postmaster::disconnect_receiver`].
    ///
    /// # Errors
    /// When the settings cannot be written.
    pub async fn forget_source(&self) -> Result<(), FileError> {
        let _changing = self.0.dynamic.lock().await;
        let member = self.clone();
        volume::run("forget source", volume::PATIENCE, move || {
            volume::replace(&member.paths().receiver_passfile(), b"", Access::ServerOwns, member.user())?;
            let mut dynamic = Dynamic::read(&member)?;
            dynamic.primary_conninfo.clear();
            dynamic.primary_slot_name.clear();
            dynamic.write(&member)?;
            volume::sync(&member.paths().dynamic_conf())
        })
        .await
    }

    /// Makes a member whose server is down follow `source` from its next start on. A copy that was just rewound or cloned
    /// needs it: without log from there it never becomes consistent, and takes no connections.
    ///
    /// # Errors
    /// When the settings cannot be written, or there are no secrets on this node.
    pub async fn set_source(&self, source: &Source) -> Result<(), FileError> {
        let Some(secrets) = self.kept_secrets().await? else {
            let text = format!("there are no secrets in {}", self.paths().secrets().display());
            return Err(FileError::Io(std::io::Error::new(std::io::ErrorKind::NotFound, text)));
        };
        let _changing = self.0.dynamic.lock().await;
        let (member, conninfo) = (self.clone(), source.receiver_conninfo(self));
        volume::run("set source", volume::PATIENCE, move || {
            let passwords = format!("*:*:*:{REPLICATION_ROLE}:{}\n", secrets.replication);
            let passfile = member.paths().receiver_passfile();
            volume::replace(&passfile, passwords.as_bytes(), Access::ServerOwns, member.user())?;
            let mut dynamic = Dynamic::read(&member)?;
            dynamic.primary_conninfo = conninfo;
            dynamic.primary_slot_name = slot_name(member.node());
            dynamic.write(&member)?;
            volume::sync(&member.paths().dynamic_conf())
        })
        .await
    }
}
