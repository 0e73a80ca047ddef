//! Puts the settings of the system file in force where a reload is enough, and tells the mind which wait for a restart.

use std::time::Duration;

use decide::agent::Input;
use effects::postgres::{Postmaster, ReloadError, Settings};
use model::event::{Event, Severity};
use model::status::{PendingSetting, SettingsState};
use tokio::time::Instant;

use super::Ground;

/// How often it is looked whether there is anything to do.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often something that is held back, or failed, is tried again.
const AGAIN_EVERY: Duration = Duration::from_millis(700);
/// How long a reload of settings may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The server that answered last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServerSeen {
    /// When it was started, in microseconds since the Unix epoch.
    pub(super) started_us: i64,
    /// Whether it is a standby.
    pub(super) in_recovery: bool,
    /// Whether somebody has changed settings with `ALTER SYSTEM`.
    pub(super) altered: bool,
}

/// What was asked last, and when to ask again although nothing has changed.
#[derive(Default)]
struct Asked {
    last: Option<(ServerSeen, Settings)>,
    again_at: Option<Instant>,
    failure: Option<String>,
    told: Vec<String>,
}

/// Follows the system file and the server, for ever.
pub(super) async fn follow(ground: Ground) {
    let mut asked = Asked::default();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let (Some(postmaster), Some(seen)) = (ground.postmaster(), ground.server_seen()) else { continue };
        if seen.altered {
            undo_alterations(&ground, &postmaster).await;
            continue;
        }
        let settings = ground.settings();
        let due = asked.again_at.is_some_and(|at| Instant::now() >= at);
        if due || asked.last.as_ref() != Some(&(seen, settings.clone())) {
            ask(&ground, &postmaster, seen, settings, &mut asked).await;
        }
    }
}

/// Takes back what was set with `ALTER SYSTEM`: with another sync set than the agreed one, writes could be acknowledged that
/// a failover loses.
async fn undo_alterations(ground: &Ground, postmaster: &Postmaster) {
    match postmaster.undo_alterations(LIMIT).await {
        Ok(names) => ground.shared.journal.add(Event {
            at_us: 0,
            node: ground.shared.me.clone(),
            severity: Severity::Warning,
            subject: format!("database/{}", ground.database),
            what: format!("{}: what was set with ALTER SYSTEM has been taken back", ground.shared.me),
            because: format!("{names}: parameters belong in the system file"),
        }),
        Err(error) => {
            tracing::warn!(%error, "what was set with ALTER SYSTEM could not be taken back");
        }
    }
    // The next look says whether it is gone.
    tokio::time::sleep(AGAIN_EVERY).await;
}

async fn ask(
    ground: &Ground,
    postmaster: &Postmaster,
    seen: ServerSeen,
    settings: Settings,
    asked: &mut Asked,
) {
    let result = postmaster.reload_settings(&settings, LIMIT).await;
    // Another server than the one that was seen may have answered.
    if ground.server_seen() != Some(seen) {
        return;
    }
    if !seen.in_recovery
        && let Err(error) = postmaster.keep_room(&ground.application().role, LIMIT).await
    {
        tracing::warn!(%error, "no connections could be kept free for the other members");
    }
    let waits = match &result {
        Ok(pending) => pending.iter().any(|setting| setting.held),
        Err(_) => true,
    };
    asked.again_at = waits.then(|| Instant::now() + AGAIN_EVERY);
    let is_new = asked.last.as_ref().is_some_and(|(_, before)| *before != settings);
    tell(ground, &result, is_new, asked);
    let pending = match result {
        Ok(pending) => pending,
        // What is not accepted keeps its old value; the rest is in force.
        Err(ReloadError::NotAccepted(_)) => vec![],
        Err(_) => return,
    };
    let parameters = settings.parameters.clone();
    asked.last = Some((seen, settings));
    ground.shared.inputs.send(Input::Settings {
        database: ground.database.clone(),
        server: seen.started_us,
        parameters,
        state: SettingsState::Read { pending },
    });
}

/// An event when something has changed for people.
fn tell(ground: &Ground, result: &Result<Vec<PendingSetting>, ReloadError>, is_new: bool, asked: &mut Asked) {
    let (what, because) = match result {
        Ok(pending) => {
            asked.failure = None;
            let words: Vec<String> = pending.iter().map(in_words).collect();
            if words == asked.told && !is_new {
                return;
            }
            asked.told.clone_from(&words);
            match words.as_slice() {
                [] if is_new => ("settings are in force", "the system file has changed".to_owned()),
                [] => return,
                words => ("settings wait for a restart", words.join(", ")),
            }
        }
        Err(error) => {
            let error = error.to_string();
            if asked.failure.as_ref() == Some(&error) {
                return;
            }
            asked.failure = Some(error.clone());
            ("settings could not be changed", error)
        }
    };
    ground.shared.journal.add(Event {
        at_us: 0,
        node: ground.shared.me.clone(),
        severity: Severity::Info,
        subject: format!("database/{}", ground.database),
        what: format!("{}: {what}", ground.shared.me),
        because,
    });
}

fn in_words(setting: &PendingSetting) -> String {
    let PendingSetting { name, runs, wanted, held, .. } = setting;
    let wanted = wanted.as_deref().unwrap_or("PostgreSQL's own");
    match held {
        true => format!("{name} stays {runs} until the primary runs with {wanted}"),
        false => format!("{name} is {runs} and becomes {wanted} when PostgreSQL starts"),
    }
}
