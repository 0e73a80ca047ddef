//! Who may connect as whom (`pg_hba.conf`, `pg_ident.conf`).

use super::super::{REPLICATION_ROLE, REWIND_ROLE, SUPERUSER};
use super::Settings;
use crate::process::OsUser;

/// Name of the map in `pg_ident.conf` that makes the agent's operating-system user the superuser role.
const MAP: &str = "agent";

/// The first matching line decides. The superuser connects through the unix socket only, as an operating-system user
/// that the kernel vouches for: no password of it exists.
pub(super) fn hba(settings: &Settings) -> String {
    let host = if settings.tls.is_some() { "hostssl" } else { "host" };
    let mut lines = vec![
        "# Written by mainstay; what is edited here is lost.".to_owned(),
        format!("local all,replication {SUPERUSER} peer map={MAP}"),
        format!("local all {REPLICATION_ROLE},{REWIND_ROLE} reject"),
        "local all all scram-sha-256".to_owned(),
        format!("host all,replication {SUPERUSER} all reject"),
        format!("{host} replication {REPLICATION_ROLE} all scram-sha-256"),
        format!("{host} postgres {REWIND_ROLE} all scram-sha-256"),
        format!("host all,replication {REPLICATION_ROLE},{REWIND_ROLE} all reject"),
    ];
    if settings.clients.is_empty() {
        lines.push("host all all all scram-sha-256".to_owned());
    }
    lines.extend(settings.clients.iter().map(|network| format!("host all all {network} scram-sha-256")));
    lines.join("\n") + "\n"
}

/// The agent's user and the server's own may be the superuser.
pub(super) fn ident(agent: &OsUser, server: Option<&OsUser>) -> String {
    let mut lines = vec![format!("{MAP} {} {SUPERUSER}", quoted(&agent.name))];
    if let Some(server) = server.filter(|server| server.name != agent.name) {
        lines.push(format!("{MAP} {} {SUPERUSER}", quoted(&server.name)));
    }
    lines.join("\n") + "\n"
}

/// Quotes keep a name from being taken as a keyword, a pattern (`/...`) or a file (`@...`).
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_superuser_never_comes_over_the_network() {
        let hba = hba(&Settings { clients: vec!["10.0.0.0/8".into()], ..Settings::default() });
        let mut lines = hba.lines().filter(|line| line.starts_with("host"));
        assert_eq!(lines.next(), Some("host all,replication mainstay all reject"));
        assert_eq!(lines.next_back(), Some("host all all 10.0.0.0/8 scram-sha-256"));
    }
}
