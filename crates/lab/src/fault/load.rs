//! Load that takes from others what they need: processes that only count, clients that take every connection, a statement
//! that takes all memory.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use effects::clock::now;
use effects::process::{ProcessId, Signal, signal_process};
use model::NodeName;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use super::Evidence;
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::node::spawn::{detach, say_ready, wait_ready};
use crate::process;

/// The variable that marks processes which are a fault; its value says whose.
const MARK: &str = "MAINSTAY_LAB_FAULT";

/// How long such processes may take to begin.
const START_LIMIT: Duration = Duration::from_secs(20);

/// More connections than any test system has.
const MOST: usize = 5000;

/// How soon busy processes must have counted.
const WATCHED: Duration = Duration::from_secs(10);

/// How an ordinary client of the system gets to its primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// The route's address on each node.
    pub entries: Vec<(NodeName, SocketAddr)>,
    /// User, password and database.
    pub login: Config,
}

/// What a client of another process must know.
#[derive(Serialize, Deserialize)]
struct Login {
    user: String,
    password: String,
    database: String,
}

impl Door {
    /// The same, the entry on this node last.
    pub(super) fn past(&self, node: &NodeName) -> Self {
        let mut entries = self.entries.clone();
        entries.sort_by_key(|(at, _)| at == node);
        Self { entries, ..self.clone() }
    }

    fn login(&self) -> Login {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Login {
            user: self.login.get_user().unwrap_or_default().to_owned(),
            password: text(self.login.get_password().unwrap_or_default()),
            database: self.login.get_dbname().unwrap_or_default().to_owned(),
        }
    }
}

impl Lab {
    /// Starts processes in a node that do nothing but count, which the kernel's own clock ends after `lasting`.
    pub fn hog_processors(&self, node: &NodeName, count: usize, lasting: Duration) -> Result<Evidence> {
        let begun = now();
        let seconds = lasting.as_secs().to_string();
        let mut hogs = Vec::new();
        for _ in 0..count {
            let mut command = Command::new(&self.manifest().program);
            command.args(["lab-node", "hog", &seconds]).env(MARK, self.fault(node, "hog"));
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let child = self.spawn_in_node(node, &mut command)?;
            hogs.extend(process::of_child(&child));
            left_alone(child);
        }
        let idle = || hogs.iter().filter(|hog| process::processor_ticks(hog.pid) == 0).count();
        // On a busy machine each waits for its turn.
        if !process::wait_until(WATCHED, || idle() == 0) {
            let seen = format!("{} of {count} have used none", idle());
            return Err(LabError::Late { what: "using processors".to_owned(), within: WATCHED, seen });
        }
        let ticks: u64 = hogs.iter().map(|hog| process::processor_ticks(hog.pid)).sum();
        Ok(Evidence::since(
            begun,
            format!("{count} busy processes on {node} have used {ticks} ticks of processors"),
        ))
    }

    /// Ends the busy processes of a node.
    pub fn end_hogs(&self, node: &NodeName) -> Result<Evidence> {
        self.end_faults(&self.fault(node, "hog"), "busy processes")
    }

    /// Takes every connection that the application's role may have, by a client of its own, which the kernel's clock ends
    /// after `lasting`. Returns when a further client is refused.
    pub fn flood_connections(&self, node: &NodeName, lasting: Duration) -> Result<Evidence> {
        let door = self.door()?.past(node);
        let doing = || "taking all connections".to_owned();
        let Some((_, address)) = door.entries.first().cloned() else {
            return Err(LabError::NotPossible { what: doing(), why: "no route leads there".to_owned() });
        };
        let begun = now();
        let mut command = Command::new(&self.manifest().program);
        command.args(["lab-node", "flood", &address.to_string(), &lasting.as_secs().to_string()]);
        detach(&mut command, None).map_err(LabError::io(doing))?;
        command.env(MARK, self.fault(node, "flood")).env(crate::node::MARK, self.directory());
        let mut child = self.spawn_as_client(command.stdin(Stdio::piped()))?;
        let login =
            serde_json::to_vec(&door.login()).map_err(std::io::Error::other).map_err(LabError::io(doing))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&login).map_err(LabError::io(doing))?;
        }
        let flood = wait_ready(child, START_LIMIT)
            .map_err(|reason| LabError::Io { doing: doing(), source: std::io::Error::other(reason) })?;
        let runtime = self.client_runtime()?;
        let refused = runtime.run(async move { connect(address, &door.login).await });
        runtime.shutdown();
        let count = process::connections(flood.pid);
        match refused {
            Err(Refused::Full(words)) => Ok(Evidence::since(
                begun,
                format!("{count} connections are taken; a further client hears: {words}"),
            )),
            Ok(_) | Err(Refused::Otherwise(_)) => Err(LabError::Late {
                what: doing(),
                within: START_LIMIT,
                seen: format!("{count} are taken, and a further client is not refused for it"),
            }),
        }
    }

    /// Ends the client that holds all connections.
    pub fn end_flood(&self, node: &NodeName) -> Result<Evidence> {
        self.end_faults(&self.fault(node, "flood"), "the client with all connections")
    }

    fn fault(&self, node: &NodeName, what: &str) -> String {
        format!("{}/{node}/{what}", self.directory().display())
    }

    fn end_faults(&self, mark: &str, what: &str) -> Result<Evidence> {
        let begun = now();
        let ours = || -> Vec<ProcessId> {
            process::matching(|facts| facts.environment_variable(MARK).is_some_and(|its| its == mark))
        };
        for process in ours() {
            signal_process(process, Signal::KILL);
        }
        process::kill_all(what, START_LIMIT, ours)?;
        Ok(Evidence::since(begun, format!("{what}: none is left")))
    }
}

/// A child that nobody waits for would stay as a zombie.
fn left_alone(mut child: Child) {
    thread::spawn(move || child.wait());
}

/// Has the kernel end this process: its own clock, which no fault of clocks touches.
fn end_after(seconds: u32) {
    // SAFETY: a plain system call; the signal's default is the end.
    unsafe { libc::alarm(seconds.max(1)) };
}

/// A process that only counts.
pub(crate) fn hog(seconds: u32) -> ExitCode {
    end_after(seconds);
    let mut number: u64 = 0;
    loop {
        number = std::hint::black_box(number.wrapping_add(1));
    }
}

/// A client that takes every connection it can have and holds it; whatever is freed it takes again.
pub(crate) fn flood(address: &str, seconds: u32) -> ExitCode {
    end_after(seconds);
    let mut text = Vec::new();
    let login = std::io::stdin().read_to_end(&mut text).ok().and_then(|_| serde_json::from_slice(&text).ok());
    let (Some(login), Ok(address)) = (login, address.parse()) else {
        println!("the login or the address is not understood");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(|error| error.to_string()).and_then(|r| r.block_on(hold_all(address, login))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("{reason}");
            ExitCode::FAILURE
        }
    }
}

async fn hold_all(
    address: SocketAddr,
    Login { user, password, database }: Login,
) -> std::result::Result<(), String> {
    let mut login = Config::new();
    login.user(user).password(password).dbname(database);
    let (mut held, mut told): (Vec<Client>, bool) = (vec![], false);
    loop {
        held.retain(|client| !client.is_closed());
        match connect(address, &login).await {
            Ok(client) if held.len() < MOST => held.push(client),
            Ok(_) => return Err(format!("there are more than {MOST} connections to be had")),
            Err(Refused::Otherwise(reason)) if !told => return Err(reason),
            Err(Refused::Full(_) | Refused::Otherwise(_)) => {
                if !told {
                    say_ready().map_err(|error| error.to_string())?;
                    told = true;
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Why there is no connection.
enum Refused {
    /// All are taken.
    Full(String),
    /// Another reason.
    Otherwise(String),
}

async fn connect(address: SocketAddr, login: &Config) -> std::result::Result<Client, Refused> {
    let stream = TcpStream::connect(address).await.map_err(|error| Refused::Otherwise(error.to_string()))?;
    let (client, connection) =
        login.connect_raw(stream, NoTls).await.map_err(|error| match error.as_db_error() {
            Some(db) if *db.code() == SqlState::TOO_MANY_CONNECTIONS => {
                Refused::Full(db.message().to_owned())
            }
            Some(_) | None => Refused::Otherwise(error.to_string()),
        })?;
    tokio::spawn(connection);
    Ok(client)
}

/// Runs a statement that holds so many bytes in the memory of its backend.
pub(super) async fn eat_memory(door: &Door, bytes: u64) {
    for (_, address) in &door.entries {
        if let Ok(client) = connect(*address, &door.login).await {
            let sql = format!(
                "select length(string_agg(repeat('x', 1000000), '')) from generate_series(1, {})",
                (bytes / 1_000_000).min(900)
            );
            // It ends with the backend.
            let _ = client.simple_query(&sql).await;
            return;
        }
    }
}
