//! Settings that take effect only when a server starts.

use std::collections::BTreeMap;

use decide::agent::Input;
use model::status::{PendingSetting, SettingsState};

use super::World;
use crate::postgres::Process;
use crate::system;

impl World {
    /// The moment, as a server notes it when it starts.
    pub(crate) fn now_us(&self) -> i64 {
        i64::try_from(self.agenda.now().since(super::START).as_micros()).unwrap_or(i64::MAX).saturating_add(1)
    }

    /// What the agent learns about its server's settings.
    pub(super) fn ask_for_settings(&mut self, node: usize) {
        let postgres = &self.machines[node].postgres;
        let standby = match &postgres.process {
            Process::Standby { .. } => true,
            Process::Primary => false,
            Process::Empty | Process::Stopped => return,
        };
        let (runs, wanted) = (postgres.connections, self.wanted);
        // The agent asks when the server or the file is another one, and while it waits for what its primary runs with.
        let asked =
            Some((postgres.started_us, standby, runs, wanted, postgres.floor, self.machines[node].run));
        if self.machines[node].asked_settings == asked {
            return;
        }
        self.machines[node].asked_settings = asked;
        let postgres = &self.machines[node].postgres;
        let setting = PendingSetting {
            name: "max_connections".to_owned(),
            runs: runs.to_string(),
            wanted: Some(wanted.to_string()),
            held: standby && wanted < runs && wanted < postgres.floor,
            lowers: wanted < runs,
        };
        let pending = if runs == wanted { vec![] } else { vec![setting] };
        let input = Input::Settings {
            database: system::database(),
            server: postgres.started_us,
            parameters: BTreeMap::new(),
            state: SettingsState::Read { pending },
        };
        self.feed(node, input);
    }

    /// Members that do not run with what the system file wants.
    pub(crate) fn behind_the_file(&self) -> Vec<usize> {
        (0..self.members).filter(|node| self.machines[*node].postgres.connections != self.wanted).collect()
    }
}
