//! What must be true before a server is started on a data directory.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::super::control::ControlData;
use super::super::installation::major_of_data;
use super::super::session::left;
use super::super::volume::{self, Access};
use super::super::{FileError, Member};
use super::StartError;

/// How long processes of a dead postmaster may take to notice its death before they are killed. They look when they wait
/// for something, so normally a few milliseconds; a backend in a long computation never looks.
const ORPHANS_MAY_TAKE: Duration = Duration::from_millis(300);

impl Member {
    /// Returns what the control file says.
    pub(super) async fn preflight(&self, deadline: Duration) -> Result<ControlData, StartError> {
        let begin = Instant::now();
        self.finish_swap().await?;
        let data = self.paths().data.display().to_string();
        let (data_path, rewinding) = (self.paths().data.clone(), self.paths().rewinding());
        let look = move || Ok((major_of_data(&data_path)?, volume::exists(&rewinding)?));
        let (major, half_rewound) = volume::run("look at data", volume::PATIENCE, look).await?;
        let Some(found) = major else { return Err(StartError::NoData(data)) };
        if half_rewound {
            return Err(StartError::HalfRewound(data));
        }
        let installed = self.installation().major;
        if found != installed {
            let bin_dir = self.installation().bin_dir.clone();
            return Err(StartError::WrongMajor { data, found, installed, bin_dir });
        }
        let control = self.control_data(left(begin, deadline)).await?;
        if let Some(running) = self.running().await {
            return Err(StartError::AlreadyRunning(running.process().id()));
        }
        self.clear_remains(ORPHANS_MAY_TAKE, left(begin, deadline)).await?;
        self.remove_stale_pid_file().await?;
        Ok(control)
    }

    /// Removes `postmaster.pid` files. PostgreSQL itself takes the file of a dead postmaster for a living one's when
    /// another process of its user has got the pid. Called only with the proof that no process works in the data
    /// directory; the shared memory named in the file must be unused as well.
    async fn remove_stale_pid_file(&self) -> Result<(), FileError> {
        let paths = self.paths().clone();
        volume::run("check pid file", volume::PATIENCE, move || {
            let path = paths.data.join("postmaster.pid");
            let text = match fs::read_to_string(&path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(volume::in_words("read", &path, &error)),
            };
            let attached = shared_memory_of(&text).and_then(|segment| attachments(segment).ok()).unwrap_or(0);
            if attached > 0 {
                let text = format!(
                    "{} belongs to a server whose shared memory is still used by {attached} processes that this agent cannot see (another container?)",
                    path.display()
                );
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
            }
            volume::remove_all(&path)?;
            volume::remove_all(&paths.pid_file())
        })
        .await
    }
}

/// The id of the System V segment in a `postmaster.pid`: second number of line 7 (miscadmin.h, `LOCK_FILE_LINE_SHMEM_KEY`).
fn shared_memory_of(pid_file: &str) -> Option<u64> {
    pid_file.lines().nth(6)?.split_whitespace().nth(1)?.parse().ok()
}

/// How many processes of this IPC namespace have the System V segment attached.
fn attachments(segment: u64) -> io::Result<u64> {
    let table = fs::read_to_string("/proc/sysvipc/shm")?;
    let mut lines = table.lines();
    let names: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    let rows =
        lines.map(|line| names.iter().copied().zip(line.split_whitespace()).collect::<HashMap<_, _>>());
    let number = |row: &HashMap<&str, &str>, name| row.get(name).and_then(|value| value.parse().ok());
    let mut rows = rows.filter(|row| number(row, "shmid") == Some(segment));
    Ok(rows.find_map(|row| number(&row, "nattch")).unwrap_or(0))
}

/// Makes the files inside the data directory that decide how the server starts. What lies there may come from another
/// member (rewind, clone) or from a user (`ALTER SYSTEM`).
pub(super) fn write_signals(member: &Member, standby: bool) -> io::Result<()> {
    let (data, user) = (&member.paths().data, member.user());
    for name in ["recovery.signal", "promote", "fallback_promote", "recovery.done"] {
        volume::remove_all(&data.join(name))?;
    }
    let signal = data.join("standby.signal");
    let auto = data.join("postgresql.auto.conf");
    let empty = b"# ALTER SYSTEM has no lasting effect here: parameters belong in mainstay's system file.\n";
    volume::replace(&auto, empty, Access::ServerOwns, user)?;
    if standby {
        volume::replace(&signal, b"", Access::ServerOwns, user)?;
    } else {
        volume::remove_all(&signal)?;
    }
    volume::sync(&auto)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_memory_of_a_pid_file_is_found() {
        let file = "4711\n/data\n1763800000\n5432\n/run/pg\n127.0.0.1\n  1310721     98304\nready   \n";
        assert_eq!(shared_memory_of(file), Some(98_304));
        assert_eq!(shared_memory_of("4711\n/data\n"), None);
        assert_eq!(attachments(u64::MAX).unwrap(), 0);
    }
}
