//! What is set while no server runs.

use super::Member;
use super::settings::Dynamic;
use super::volume::{self, Access, FileError};

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
}
