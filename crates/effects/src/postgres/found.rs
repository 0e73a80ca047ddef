//! Founding a database: the first data directory, its roles and the application's own database.

use std::time::Duration;

use tokio::time::Instant;

use super::control::ControlError;
use super::session::left;
use super::volume::{self, Access, FileError};
use super::{Member, REPLICATION_ROLE, REWIND_ROLE, SUPERUSER, Secrets, Settings};
use crate::process::{ToolError, ToolOutput, run_tool};

/// The size of log files, in megabytes. A standby that connects anew gets the file that it is in from the beginning on, and
/// commits wait for that where all connect anew; a rewind copies whole files. With PostgreSQL's own 16 MB that is seconds on
/// slow lines; with 1 MB there would be very many files where much is written.
const SEGMENT: &str = "--wal-segsize=4";

/// The locale of a new database: bytewise order, which no upgrade of the C library can change under an index, and
/// Unicode character classes. `C` where the system lacks it.
const LOCALES: [&str; 2] = ["C.UTF-8", "C"];

/// What of a database server belongs to the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Application {
    /// The role that owns the database and logs in with [`Secrets::owner`].
    pub role: String,
    /// The database.
    pub database: String,
}

impl Application {
    /// Role and database of one name.
    pub fn named(name: &str) -> Self {
        Self { role: name.to_owned(), database: name.to_owned() }
    }
}

/// A founded database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Founded {
    /// PostgreSQL's identifier of the cluster.
    pub system_identifier: u64,
    /// How long it took.
    pub took: Duration,
}

/// Why a database was not founded. No data directory was left behind.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// There is data already, which is never touched.
    #[error(
        "{0} exists already and is not touched. Hint: start the member; or remove the directory if its data is worthless"
    )]
    Exists(String),
    /// Somebody else works on this member.
    #[error("another agent works on this member (it holds {0})")]
    Locked(String),
    /// `initdb`, or the making of roles, failed.
    #[error("cannot found the database: {0}")]
    Tool(#[from] ToolError),
    /// What was founded cannot be read.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// Files could not be written.
    #[error(transparent)]
    Files(#[from] FileError),
}

impl Member {
    /// Makes the data directory: `initdb` with data checksums, UTF-8 and SCRAM; the roles of the product; the
    /// application's role and database. Takes a second or two. The directory appears as a whole or not at all.
    ///
    /// # Errors
    /// See [`FoundError`].
    pub async fn found(
        &self,
        application: &Application,
        settings: &Settings,
        secrets: &Secrets,
        deadline: Duration,
    ) -> Result<Founded, FoundError> {
        let begin = Instant::now();
        let Some(_lock) = self.lock().await? else {
            return Err(FoundError::Locked(self.paths().lock().display().to_string()));
        };
        self.finish_swap().await?;
        let (data, founding) = (self.paths().data.clone(), self.paths().database.join("data.founding"));
        let name = data.display().to_string();
        let clear = (data.clone(), founding.clone());
        let exists = move || {
            volume::remove_all(&clear.1)?;
            volume::exists(&clear.0)
        };
        if volume::run("look for data", volume::PATIENCE, exists).await? {
            return Err(FoundError::Exists(name));
        }
        self.keep_secrets(secrets).await?;
        self.write_settings(settings).await?;
        self.initdb(&founding, left(begin, deadline)).await?;
        self.make_roles(&founding, statements(application, secrets), left(begin, deadline)).await?;
        let control = self.control_data_of(&founding, left(begin, deadline)).await?;
        let finish = move || {
            volume::sync_volume(&founding)?;
            volume::rename(&founding, &data)
        };
        volume::run("found", left(begin, deadline), finish).await?;
        Ok(Founded { system_identifier: control.system_identifier, took: begin.elapsed() })
    }

    async fn initdb(&self, data: &std::path::Path, deadline: Duration) -> Result<(), FoundError> {
        let begin = Instant::now();
        let run = async |locale: &str| {
            let data = data.display().to_string();
            let locale = format!("--locale={locale}");
            let arguments = [
                "-D",
                &data,
                "-U",
                SUPERUSER,
                "-E",
                "UTF8",
                &locale,
                "--data-checksums",
                SEGMENT,
                "--auth=scram-sha-256",
                "--auth-local=peer",
                "--no-sync",
                "--no-instructions",
            ];
            let known = usize::from(self.installation().major < 14);
            let arguments = &arguments[..arguments.len() - known];
            run_tool(self.tool("initdb", arguments.to_vec(), left(begin, deadline))).await?.checked()
        };
        match run(LOCALES[0]).await {
            Err(ToolError::Failed { stderr, .. }) if stderr.contains("locale") => run(LOCALES[1]).await?,
            other => other?,
        };
        self.replace_unused_configuration(data).await?;
        Ok(())
    }

    /// Says in `initdb`'s configuration files, which are not read, where the real ones are.
    async fn replace_unused_configuration(&self, data: &std::path::Path) -> Result<(), FileError> {
        let (member, data) = (self.clone(), data.to_owned());
        volume::run("write notes", volume::PATIENCE, move || {
            for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
                let note = "# Not read: mainstay keeps the configuration outside the data directory, on every node its own.\n";
                volume::replace(&data.join(name), note.as_bytes(), Access::ServerOwns, member.user())?;
            }
            Ok(())
        })
        .await
    }

    /// Runs SQL in single-user mode: no server is open to anyone meanwhile, and no password is in any argument list or
    /// log. Each line is one statement.
    async fn make_roles(
        &self,
        data: &std::path::Path,
        statements: Vec<String>,
        deadline: Duration,
    ) -> Result<ToolOutput, ToolError> {
        let data = data.display().to_string();
        let config = format!("config_file={}", self.paths().postgresql_conf().display());
        let arguments = [
            "--single",
            "-D",
            &data,
            "-c",
            &config,
            "-c",
            "synchronous_standby_names=",
            "-c",
            "exit_on_error=on",
            "-c",
            "log_min_messages=warning",
            "-c",
            "log_min_error_statement=panic",
            "postgres",
        ];
        let mut tool = self.tool("postgres", arguments, deadline);
        tool.stdin = statements.join("\n").into_bytes();
        run_tool(tool).await?.checked()
    }
}

/// The names are identifiers and the passwords hexadecimal (both checked where they are made), so quoting is plain.
fn statements(application: &Application, secrets: &Secrets) -> Vec<String> {
    let Application { role, database } = application;
    let mut statements = vec![
        format!("CREATE ROLE {REPLICATION_ROLE} LOGIN REPLICATION PASSWORD '{}';", secrets.replication),
        format!("CREATE ROLE {REWIND_ROLE} LOGIN PASSWORD '{}';", secrets.rewind),
        format!("CREATE ROLE \"{role}\" LOGIN PASSWORD '{}';", secrets.owner),
        format!("CREATE DATABASE \"{database}\" OWNER \"{role}\";"),
        "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC;".to_owned(),
        format!("GRANT CONNECT ON DATABASE postgres TO {REWIND_ROLE};"),
    ];
    // PostgreSQL documentation, "pg_rewind", and what `Member::ask_source` asks for.
    let functions = [
        "pg_ls_dir(text, boolean, boolean)",
        "pg_stat_file(text, boolean)",
        "pg_read_binary_file(text)",
        "pg_read_binary_file(text, bigint, bigint, boolean)",
        "pg_control_checkpoint()",
        "pg_control_system()",
    ];
    let grant = |function| format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {REWIND_ROLE};");
    statements.extend(functions.into_iter().map(grant));
    statements.push(String::new());
    statements
}
