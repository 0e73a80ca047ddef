//! pg_auto_failover: an agent beside each member, and a monitor on a fourth node that no fault strikes.
//!
//! Clients come as its documentation has them come: with a list of all members and `target_session_attrs=read-write`.
//! With two standbys the monitor sets `number_sync_standbys = 1`, so any one of the two confirms each commit, as with the
//! others; when none is left it falls back to a single copy, which no setting forbids.

pub(crate) mod monitor;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::layout::{MEMBERS, MONITOR, NETWORK, PASSWORD, POSTGRES_PORT};
use crate::place::Place;
use crate::postgres::PARAMETERS;
use crate::unit::Unit;
use crate::variant::Timers;

/// How long a primary may go on without its monitor and its standbys, in seconds.
pub(crate) const fn partition_timeout(timers: Timers) -> u64 {
    match timers {
        Timers::Default => 20,
        Timers::Tuned => 2,
    }
}

/// The monitor's timers (`pgautofailover.*`, in milliseconds): a check every half second that may take as long, one
/// repetition; lower ones mistook a busy node for a dead one.
const TUNED: [(&str, u32); 6] = [
    ("health_check_period", 500),
    ("health_check_timeout", 500),
    ("health_check_max_retries", 1),
    ("health_check_retry_delay", 200),
    ("node_considered_unhealthy_timeout", 2000),
    ("primary_demote_timeout", 3000),
];

/// Why it cannot be measured on this machine.
pub(crate) fn unavailable(bin: &Path) -> Option<String> {
    let programs = [bin.join("pg_autoctl"), PathBuf::from("/usr/bin/pg_autoctl")];
    let extension = bin.with_file_name("lib").join("pgautofailover.so");
    let there = programs.iter().any(|program| program.exists()) && extension.exists();
    (!there).then(|| format!("this machine has no pg_auto_failover for the PostgreSQL in {}", bin.display()))
}

/// What runs on a member's node or on the monitor's.
pub(crate) fn units(place: &Place<'_>) -> Vec<Unit> {
    let home = place.directory.display().to_string();
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", place.bin.display());
    let environment = |unit: Unit| {
        unit.with("PATH", &path)
            .with("HOME", &home)
            .with("XDG_CONFIG_HOME", &home)
            .with("XDG_DATA_HOME", &home)
            .with("XDG_RUNTIME_DIR", &home)
            .with("PGPASSWORD", PASSWORD)
    };
    let script = |name: &str| environment(Unit::new(name, &["sh", &format!("{home}/{name}.sh")]));
    match place.name == MONITOR.0 {
        true => vec![script("pg_autoctl"), script("timers")],
        false => vec![script("pg_autoctl")],
    }
}

/// The scripts of a node, by their names without `.sh`.
pub(crate) fn scripts(place: &Place<'_>, timers: Timers) -> Vec<(&'static str, String)> {
    match place.name == MONITOR.0 {
        true => vec![("pg_autoctl", monitor_script(place)), ("timers", timers_script(timers))],
        false => vec![("pg_autoctl", member_script(place, timers))],
    }
}

/// Later starts, and the beginning of the first one.
fn beginning(place: &Place<'_>) -> String {
    let data = place.data.display();
    format!(
        "set -e\n\
         if [ -e {}/ready ]; then exec pg_autoctl run --pgdata {data}; fi\n",
        place.directory.display()
    )
}

fn monitor_script(place: &Place<'_>) -> String {
    let (data, directory, address) = (place.data.display(), place.directory.display(), place.address);
    format!(
        "{}pg_autoctl create monitor --pgdata {data} --pgport {POSTGRES_PORT} --hostname {address} --auth trust --no-ssl\n\
         echo 'host all all {NETWORK} trust' >>{data}/pg_hba.conf\n\
         touch {directory}/ready\n\
         exec pg_autoctl run --pgdata {data}\n",
        beginning(place)
    )
}

/// The first member brings the cluster with the parameters of all; the others wait for it and copy it with them.
fn member_script(place: &Place<'_>, timers: Timers) -> String {
    let (data, directory, address, name) =
        (place.data.display(), place.directory.display(), place.address, place.name);
    let monitor = uri();
    let first = MEMBERS[0].0;
    let mut text = beginning(place);
    if name == first {
        let _ = writeln!(text, "until psql '{monitor}' -Atqc 'select 1' >/dev/null 2>&1; do sleep 0.2; done");
        let _ =
            writeln!(text, "initdb -D {data} -U postgres -E UTF8 --data-checksums --auth trust >/dev/null");
        let _ = writeln!(text, "cat >>{data}/postgresql.conf <<'END'");
        for (parameter, value) in PARAMETERS {
            let _ = writeln!(text, "{parameter} = '{value}'");
        }
        text.push_str("END\n");
        // pg_autoctl takes the network from the default route, which the lab's nodes have none of. The others copy this.
        for kind in ["all", "replication"] {
            let _ = writeln!(text, "echo 'host {kind} all {NETWORK} trust' >>{data}/pg_hba.conf");
        }
    } else {
        let there = format!(
            "select 1 from pgautofailover.node where nodename = '{first}' and reportedstate = 'single' \
             or nodename = '{first}' and goalstate = 'primary'"
        );
        let _ = writeln!(
            text,
            "until [ \"$(psql '{monitor}' -Atqc \"{there}\" 2>/dev/null)\" = 1 ]; do sleep 0.2; done"
        );
    }
    let _ = writeln!(
        text,
        "pg_autoctl create postgres --pgdata {data} --pgport {POSTGRES_PORT} --hostname {address} --name {name} \
         --monitor '{monitor}' --auth trust --no-ssl"
    );
    if timers == Timers::Tuned {
        let seconds = partition_timeout(timers);
        let _ = writeln!(
            text,
            "pg_autoctl config set --pgdata {data} timeout.network_partition_timeout {seconds}"
        );
    }
    let _ = writeln!(text, "touch {directory}/ready\nexec pg_autoctl run --pgdata {data}");
    text
}

/// Sets the monitor's timers as soon as it answers.
fn timers_script(timers: Timers) -> String {
    let mut text = "set -e\n".to_owned();
    if timers == Timers::Tuned {
        text.push_str("until psql -d pg_auto_failover -qc 'select 1' >/dev/null 2>&1; do sleep 0.2; done\n");
        for (name, value) in TUNED {
            let _ = writeln!(
                text,
                "psql -d pg_auto_failover -qc 'alter system set pgautofailover.{name} = {value}'"
            );
        }
        text.push_str("psql -d pg_auto_failover -qc 'select pg_reload_conf()' >/dev/null\n");
    }
    text + "exec sleep infinity\n"
}

/// How the monitor is reached.
fn uri() -> String {
    format!("postgres://autoctl_node@{}:{POSTGRES_PORT}/pg_auto_failover?sslmode=disable", MONITOR.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(name: &'static str) -> Place<'static> {
        let address = MEMBERS[1].1;
        Place {
            name,
            address,
            directory: Path::new("/peer"),
            data: Path::new("/data"),
            bin: Path::new("/bin"),
        }
    }

    #[test]
    fn a_later_member_waits_for_the_first_and_copies_it() {
        insta::assert_snapshot!(member_script(&place("n2"), Timers::Tuned));
    }

    #[test]
    fn a_machine_without_it_says_so() {
        let told = unavailable(Path::new("/no/postgresql/bin")).unwrap();
        assert!(told.ends_with("no pg_auto_failover for the PostgreSQL in /no/postgresql/bin"), "{told}");
    }

    #[test]
    fn only_tuned_timers_are_set() {
        assert!(!timers_script(Timers::Default).contains("alter system"));
        assert_eq!(timers_script(Timers::Tuned).matches("alter system").count(), TUNED.len());
        assert!(!member_script(&place("n1"), Timers::Default).contains("config set"));
    }
}
