//! PostgreSQL's configuration: what the product fixes, what the user may set, and how both become files.
//!
//! Three layers, later ones win: defaults of the product, the user's parameters, what the product fixes. What changes
//! at run time lies in a small file of its own ([`Dynamic`]).

mod change;
mod dynamic;
mod hba;
mod text;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use change::{Context, Contexts, Floor};
pub(super) use change::{hold, lowers};
pub use dynamic::{Dynamic, NOBODY, sync_names};
pub(super) use text::conninfo_value;

use super::Member;
use super::volume::{self, Access, FileError};
use crate::process::OsUser;

/// What a database's members have in common, and what differs by node (`listen`, `tls`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The addresses to listen on: the node's own, one for each line.
    pub listen: Vec<IpAddr>,
    /// Networks whose clients may connect with a password, e.g. `10.0.0.0/8`; all when empty.
    pub clients: Vec<String>,
    /// The user's parameters. See [`Settings::refused`].
    pub parameters: BTreeMap<String, String>,
    /// Whether the durability is `async`: then commits need not wait for a standby, nor for the disk, if the user wants.
    pub asynchronous: bool,
    /// Certificates for connections between members and from clients. `None` sends everything between the nodes in
    /// clear text (passwords never: they are checked by SCRAM).
    pub tls: Option<Tls>,
}

/// A node's certificate for PostgreSQL, PEM texts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Its certificate, followed by intermediate ones.
    pub certificate: String,
    /// Its private key.
    pub key: String,
    /// The authority that signed the certificates of all members.
    pub authority: String,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(not shown)")
    }
}

/// A parameter that the user may not set, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedParameter {
    /// Its name.
    pub name: String,
    /// Why, as the end of "cannot be set because ...".
    pub because: &'static str,
}

/// Values that suit most; the user's parameters win over them.
const DEFAULTS: &[(&str, &str)] = &[
    ("max_connections", "100"),
    ("max_wal_senders", "16"),
    ("max_replication_slots", "16"),
    ("max_worker_processes", "8"),
    ("max_prepared_transactions", "0"),
    ("max_locks_per_transaction", "64"),
    ("wal_level", "replica"),
    // What other members need is held back by their slots. This is for a primary that goes on alone, and must find its last
    // shared checkpoint again to be rewound. A rewind copies all log of its source, so there is little of it.
    ("wal_keep_size", "64MB"),
    ("min_wal_size", "32MB"),
    ("max_slot_wal_keep_size", "4GB"),
    ("hot_standby_feedback", "on"),
    // Replay that waits for readers of a standby is replay that a promotion waits for.
    ("max_standby_streaming_delay", "5s"),
    ("log_line_prefix", "%m [%p] %q%u@%d %a "),
    ("log_lock_waits", "on"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("lc_messages", "C"),
    ("password_encryption", "scram-sha-256"),
    // Dead clients hold no locks for hours; the kernel's default is two hours.
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "3"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "20000"),
    // Reserved for the agent: a primary out of connections must not look dead (observation, probes, sync-set proofs).
    ("superuser_reserved_connections", "8"),
];

/// Values for PostgreSQL 14 and later.
const DEFAULTS_14: &[(&str, &str)] = &[
    // After a crash one call for the whole file system instead of one for each of the thousand and more files, of which
    // every one costs a flush of the disk: seconds of every return of a node.
    ("recovery_init_sync_method", "syncfs"),
];

/// What the product fixes, because its promises rest on it.
const FIXED: &[(&str, &str)] = &[
    ("hot_standby", "on"),
    ("fsync", "on"),
    ("full_page_writes", "on"),
    // With data checksums hints are logged anyway; a rewind must also work where somebody switched checksums off.
    ("wal_log_hints", "on"),
    ("archive_mode", "off"),
    ("recovery_target_timeline", "latest"),
    ("restart_after_crash", "off"),
    // Bounds both the reconnection of a standby and the rare stall of a promotion (5 s by default).
    ("wal_retrieve_retry_interval", "50ms"),
    ("wal_receiver_status_interval", "1s"),
    ("wal_receiver_timeout", "5s"),
    ("wal_sender_timeout", "5s"),
    ("update_process_title", "on"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
];

/// Why a user may not set what is set elsewhere or must not be what the user wants.
const REFUSED: &[(&str, &str)] = &[
    ("listen_addresses", "it follows from the node's addresses"),
    ("port", "it follows from the system file"),
    ("data_directory", "the product chooses the place"),
    ("config_file", "the product chooses the place"),
    ("hba_file", "the product chooses the place"),
    ("ident_file", "the product chooses the place"),
    ("external_pid_file", "the product chooses the place"),
    ("unix_socket_directories", "the product chooses the place"),
    ("cluster_name", "it is the database's name"),
    ("primary_conninfo", "it follows from who is the primary"),
    ("primary_slot_name", "it follows from who is the primary"),
    ("synchronous_standby_names", "it is the sync set, which follows from the durability"),
    ("restore_command", "a second source of log would make members differ"),
    ("promote_trigger_file", "only an agreed leadership promotes"),
    ("recovery_target", "members always recover to the end"),
    ("recovery_target_time", "members always recover to the end"),
    ("recovery_target_lsn", "members always recover to the end"),
    ("recovery_target_name", "members always recover to the end"),
    ("recovery_target_xid", "members always recover to the end"),
    ("recovery_target_action", "members always recover to the end"),
    ("archive_cleanup_command", "the product keeps the log"),
    ("recovery_end_command", "only an agreed leadership promotes"),
    ("ssl", "certificates come from the system's authority"),
    ("ssl_cert_file", "certificates come from the system's authority"),
    ("ssl_key_file", "certificates come from the system's authority"),
    ("ssl_ca_file", "certificates come from the system's authority"),
    ("include", "it names other files, and those are not the product's"),
    ("include_dir", "it names other files, and those are not the product's"),
    ("include_if_exists", "it names other files, and those are not the product's"),
];

const PROMISES: &str = "the product's promises rest on its value";

impl Settings {
    /// The user's parameters that cannot be accepted; empty when all can.
    pub fn refused(&self) -> Vec<RefusedParameter> {
        let refuse = |(name, value): (&String, &String)| {
            self.refusal(name, value).map(|because| RefusedParameter { name: name.clone(), because })
        };
        self.parameters.iter().filter_map(refuse).collect()
    }

    /// All parameters in force on a member, except those of [`Dynamic`]. Refused ones are left out.
    pub fn effective(&self, member: &Member) -> BTreeMap<String, String> {
        let mut all = owned_pairs(DEFAULTS);
        if member.installation().major >= 14 {
            all.extend(owned_pairs(DEFAULTS_14));
        }
        let accepted = self.parameters.iter().filter(|(name, value)| self.refusal(name, value).is_none());
        all.extend(accepted.map(|(name, value)| (name.to_ascii_lowercase(), value.clone())));
        all.extend(owned_pairs(FIXED));
        all.extend(self.places(member));
        if !all.contains_key("synchronous_commit") {
            all.insert("synchronous_commit".into(), "on".into());
        }
        all
    }

    fn refusal(&self, name: &str, value: &str) -> Option<&'static str> {
        let weak = name.eq_ignore_ascii_case("synchronous_commit")
            && !self.asynchronous
            && model::system::acknowledges_early(value);
        if weak { Some(PROMISES) } else { refusal(name, value) }
    }

    fn places(&self, member: &Member) -> Vec<(String, String)> {
        let paths = member.paths();
        let listen: Vec<String> = self.listen.iter().map(IpAddr::to_string).collect();
        let mut places = vec![
            ("listen_addresses", listen.join(",")),
            ("port", member.port().to_string()),
            ("unix_socket_directories", paths.run.display().to_string()),
            ("unix_socket_permissions", "0700".to_owned()),
            ("external_pid_file", paths.pid_file().display().to_string()),
            ("cluster_name", member.database().to_string()),
            ("ssl", if self.tls.is_some() { "on" } else { "off" }.to_owned()),
        ];
        if self.tls.is_some() {
            for (name, file) in TLS_FILES {
                places.push((name, paths.conf.join(file).display().to_string()));
            }
        }
        places.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn main_file(&self, member: &Member) -> String {
        let mut file = String::from(
            "# Written by mainstay before every start and at every change; what is edited here is lost.\n\
             # Parameters belong in the system file, under the database.\n\n",
        );
        for (name, value) in self.effective(member) {
            text::push(&mut file, &name, &value);
        }
        file.push_str("\n# Should the next file be lost, no commit is acknowledged.\n");
        text::push(&mut file, "synchronous_standby_names", NOBODY);
        file.push_str("include_if_exists 'dynamic.conf'\n");
        file
    }
}

const TLS_FILES: [(&str, &str); 3] =
    [("ssl_cert_file", "server.pem"), ("ssl_key_file", "server.key"), ("ssl_ca_file", "authority.pem")];

fn refusal(name: &str, value: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    if !text::is_name(&name) {
        return Some("it is not the name of a parameter");
    }
    if value.contains(['\n', '\r', '\0']) {
        return Some("a value is one line");
    }
    if let Some((_, because)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
        return Some(because);
    }
    if FIXED.iter().any(|(fixed, _)| *fixed == name) {
        return Some(PROMISES);
    }
    (name == "wal_level" && !["replica", "logical"].contains(&value)).then_some(PROMISES)
}

fn owned_pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

impl Member {
    /// Writes all configuration files except [`Dynamic`]'s. A running server takes them over at its next reload.
    ///
    /// # Errors
    /// When they cannot be written.
    pub async fn write_settings(&self, settings: &Settings) -> Result<(), FileError> {
        let settings = settings.clone();
        self.change_files("write settings", move |member| {
            let (paths, user) = (member.paths(), member.user());
            paths.prepare(user)?;
            if let Some(tls) = &settings.tls {
                let texts = [&tls.certificate, &tls.key, &tls.authority];
                for ((_, file), text) in TLS_FILES.iter().zip(texts) {
                    volume::replace(&paths.conf.join(file), text.as_bytes(), Access::ServerOwns, user)?;
                }
            }
            let own = OsUser::current()?;
            let write =
                |path: &Path, text: String| volume::replace(path, text.as_bytes(), Access::ServerReads, user);
            write(&paths.ident_conf(), hba::ident(&own, user))?;
            write(&paths.hba_conf(), hba::hba(&settings))?;
            if !volume::exists(&paths.dynamic_conf())? {
                Dynamic::default().write(member)?;
            }
            write(&paths.postgresql_conf(), settings.main_file(member))?;
            volume::sync(&paths.postgresql_conf())
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, value: &str) -> Settings {
        Settings { parameters: [(name.into(), value.into())].into(), ..Settings::default() }
    }

    #[test]
    fn what_the_promises_rest_on_cannot_be_set() {
        for (name, value) in [
            ("fsync", "off"),
            ("FSYNC", "off"),
            ("synchronous_commit", "local"),
            ("wal_level", "minimal"),
            ("synchronous_standby_names", ""),
            ("restore_command", "cp"),
            ("work_mem", "4MB\nfsync = off"),
            ("a b", "1"),
        ] {
            assert_eq!(with(name, value).refused().len(), 1, "{name} = {value}");
        }
        for (name, value) in
            [("wal_level", "logical"), ("work_mem", "8MB"), ("auto_explain.log_nested_statements", "on")]
        {
            assert_eq!(with(name, value).refused(), [], "{name} = {value}");
        }
    }

    #[test]
    fn a_commit_that_waits_for_nobody_is_for_async_durability_only() {
        for value in ["off", "local", "remote_write", "false"] {
            let zero_loss = with("synchronous_commit", value);
            assert_eq!(zero_loss.refused().len(), 1, "{value}");
            let lossy = Settings { asynchronous: true, ..zero_loss };
            assert_eq!(lossy.refused(), [], "{value}");
        }
        for value in ["on", "TRUE", "remote_apply"] {
            assert_eq!(with("synchronous_commit", value).refused(), [], "{value}");
        }
    }
}
