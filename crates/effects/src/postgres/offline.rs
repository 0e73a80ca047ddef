//! What is set while no server runs.

use super::settings::Dynamic;
use super::volume::{self, Access, FileError};
use super::{Member, Source};

impl Member {
    /// Makes a member whose server is down follow nobody from its next start on, durably. For a running one see
    /// [`super::Postmaster::disconnect_receiver`].
    ///
    /// # Errors
    /// When the settings cannot be written.
    pub async fn forget_source(&self) -> Result<(), FileError> {
        self.change_files("forget source", |member| {
            volume::replace(&member.paths().receiver_passfile(), b"", Access::ServerOwns, member.user())?;
            let mut dynamic = Dynamic::read(member)?;
            dynamic.primary_conninfo.clear();
            dynamic.primary_slot_name.clear();
            dynamic.write(member)?;
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
        self.write_receiver_password().await?;
        let source = source.clone();
        self.change_files("set source", move |member| {
            let mut dynamic = Dynamic::read(member)?;
            member.aim(&mut dynamic, &source);
            dynamic.write(member)?;
            volume::sync(&member.paths().dynamic_conf())
        })
        .await
    }
}
