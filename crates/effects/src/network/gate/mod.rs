//! The kernel gate: a member's port is open only while its lease is renewed, and the kernel itself closes it.
//!
//! One nftables table for each node. The set `guarded` names the ports behind the gate; a packet to or from such a port
//! passes only while the port is also an element of the set `open`, whose elements time out. Nobody has to be alive for
//! the gate to close: an agent that is dead or frozen is fenced by the kernel when its last lease ends.
//!
//! Both directions are stopped, on loopback too: a server that wakes up with requests already in its socket buffers
//! cannot answer them either. Unix sockets are not touched; the agent uses them. What the kernel's clock does not see, a
//! paused virtual machine, the gate does not see either.
//!
//! A renewal is one netlink transaction (see `netlink.rs`) that names the generation of the ruleset it expects. When
//! anybody else has changed anything, the kernel refuses it and the gate's rules are read and checked before the next
//! attempt. So a flushed ruleset is noticed by the next renewal at no cost to the others.

mod attributes;
mod netlink;
mod protection;
mod ruleset;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use model::time::Moment;
use rustix::io::Errno;

use crate::clock;
use netlink::{Change, Netlink};

pub use protection::Protection;

/// How often a transaction is repeated when others change the ruleset at the same time.
const ATTEMPTS: u32 = 8;

/// How much later than the lease's end the kernel may close because our thread lost the processor between reading the
/// clock and handing over the time-out. Beyond it the time-out is corrected.
const SLACK: Duration = Duration::from_millis(20);

/// Why the gate could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// We have no right to change the kernel's rules.
    #[error("the gate {table} cannot be used: no right to change packet filter rules (CAP_NET_ADMIN)")]
    NoRight {
        /// The table.
        table: String,
    },
    /// The kernel has no nftables.
    #[error("the gate {table} cannot be used: the kernel has no nf_tables ({because})")]
    NoKernel {
        /// The table.
        table: String,
        /// What it answered.
        because: String,
    },
    /// Rules of the gate are missing or were changed: ports may be OPEN. [`Gate::install`] repairs it.
    #[error("the gate {table} was damaged by somebody else: {because}")]
    Damaged {
        /// The table.
        table: String,
        /// What is wrong.
        because: String,
    },
    /// The port was never put behind the gate.
    #[error("port {port} is not behind the gate {table}")]
    NotGuarded {
        /// The table.
        table: String,
        /// The port.
        port: u16,
    },
    /// The rules could not be made with the `nft` program.
    #[error("the gate {table} could not be installed: {because}")]
    Install {
        /// The table.
        table: String,
        /// What went wrong.
        because: String,
    },
    /// The kernel refused a change for another reason.
    #[error("the gate {table} could not {doing}: {because}")]
    Refused {
        /// The table.
        table: String,
        /// What was tried.
        doing: String,
        /// What the kernel answered.
        because: String,
    },
}

/// The gate of one node. All calls but [`Gate::install`] and [`Gate::probe`] are synchronous and take tens of
/// microseconds; while another program changes the ruleset they wait for the kernel's lock.
#[derive(Debug)]
pub struct Gate {
    table: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    netlink: Netlink,
    /// The ports that must be in the set `guarded`.
    guarded: BTreeSet<u16>,
    /// The ruleset's generation in which the gate was last seen intact (our own changes counted on); `None` when it must
    /// be looked at before the next change.
    intact_at: Option<u32>,
}

impl Gate {
    /// Puts `ports` (and no others) behind the gate `table`, in the network namespace of the calling thread. An intact
    /// gate is taken over as it is, with the ports that are open now: a restarted agent interrupts nobody. A damaged or
    /// missing one is made anew in one transaction, with every port closed until its first renewal.
    ///
    /// # Errors
    /// No right, no kernel support, no `nft` program, each with its own words.
    pub async fn install(table: &str, ports: &BTreeSet<u16>) -> Result<Self, GateError> {
        let gate = Self::open(table)?;
        if gate.check_rules().is_err() {
            ruleset::create(table, ports).await?;
        }
        gate.guard(ports)?;
        gate.verify()?;
        Ok(gate)
    }

    /// What protects the ports on this machine: the whole gate, or what is missing for it and how to get it. Asks the
    /// kernel and looks for the program; changes nothing.
    pub fn probe() -> Protection {
        protection::probe()
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        &self.table
    }

    /// Puts exactly `ports` behind the gate. A port that is new there is closed from now on, one that is no longer there
    /// is open for everybody.
    ///
    /// # Errors
    /// When the gate is damaged or the kernel refuses.
    pub fn guard(&self, ports: &BTreeSet<u16>) -> Result<(), GateError> {
        let mut state = self.state();
        let now = state
            .netlink
            .elements(&self.table, ruleset::GUARDED)
            .map_err(|e| self.refused("list ports", e))?;
        let now: BTreeSet<u16> = now.into_iter().collect();
        let added =
            ports.difference(&now).map(|&port| Change::Add { set: ruleset::GUARDED, port, timeout: None });
        let removed = now.difference(ports).map(|&port| Change::Delete { set: ruleset::GUARDED, port });
        let changes: Vec<Change> = added.chain(removed).collect();
        // What is not yet guarded is not expected to be, should the rules be checked on the way.
        state.guarded = now;
        if !changes.is_empty() {
            self.transact(&mut state, "guard ports", &changes)?;
        }
        state.guarded = ports.clone();
        Ok(())
    }

    /// Opens `port`, or keeps it open, for `lease` from now.
    ///
    /// # Errors
    /// As [`Gate::renew_until`].
    pub fn renew(&self, port: u16, lease: Duration) -> Result<Duration, GateError> {
        self.renew_until(port, clock::now() + lease)
    }

    /// Opens `port`, or keeps it open, until `deadline` and not longer, and returns for how long that is. A deadline that
    /// has passed closes the port and returns zero. Give a deadline counted from BEFORE the proof of the right to serve
    /// was asked for.
    ///
    /// # Errors
    /// [`GateError::Damaged`] when the rules are gone: the port may be open to everybody, install again. Others when the
    /// kernel refuses; the port then closes when its current lease ends.
    pub fn renew_until(&self, port: u16, deadline: Moment) -> Result<Duration, GateError> {
        let mut state = self.state();
        if !state.guarded.contains(&port) {
            return Err(GateError::NotGuarded { table: self.table.clone(), port });
        }
        loop {
            let left = clock::remaining(deadline);
            let timeout = Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
            if timeout.is_zero() {
                self.transact(&mut state, "close a port", &closing(port))?;
                return Ok(Duration::ZERO);
            }
            self.transact(&mut state, "renew a lease", &renewal(port, timeout))?;
            // We may have been frozen between reading the clock and the kernel's taking the time-out, which counts from
            // then: correct it.
            if clock::now() + timeout <= deadline + SLACK {
                return Ok(timeout);
            }
        }
    }

    /// Closes `port` at once, established connections included.
    ///
    /// # Errors
    /// When the gate is damaged (the port may be open) or the kernel refuses.
    pub fn close(&self, port: u16) -> Result<(), GateError> {
        let mut state = self.state();
        self.transact(&mut state, "close a port", &closing(port))
    }

    /// How long `port` will stay open without another renewal; `None` when it is closed. To the kernel's tick (4 to 10 ms).
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub fn remaining(&self, port: u16) -> Result<Option<Duration>, GateError> {
        let mut state = self.state();
        state
            .netlink
            .expiration(&self.table, ruleset::OPEN, port)
            .map_err(|e| self.refused("read a lease", e))
    }

    /// Checks that the gate stands as it was installed.
    ///
    /// # Errors
    /// [`GateError::Damaged`] with what is wrong.
    pub fn verify(&self) -> Result<(), GateError> {
        let mut state = self.state();
        self.look(&mut state).map(|_| ())
    }

    /// Removes the gate: every port is open for everybody. A gate that is gone already is fine.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn uninstall(&self) -> Result<(), GateError> {
        let mut state = self.state();
        state.guarded.clear();
        state.intact_at = None;
        match state.netlink.transact(0, &self.table, &[Change::DeleteTable]) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(self.refused("be removed", error)),
        }
    }

    fn open(table: &str) -> Result<Self, GateError> {
        let failed = |error| open_error(table, error);
        let mut netlink = Netlink::open().map_err(failed)?;
        netlink.generation().map_err(failed)?;
        let state = State { netlink, guarded: BTreeSet::new(), intact_at: None };
        Ok(Self { table: table.to_owned(), state: Mutex::new(state) })
    }

    fn check_rules(&self) -> Result<(), GateError> {
        self.look_at_rules(&mut self.state())
    }

    /// Runs a transaction against the gate as it was last seen intact; when others changed anything meanwhile, checks the
    /// gate first and tries again.
    fn transact(&self, state: &mut State, doing: &str, changes: &[Change]) -> Result<(), GateError> {
        let mut last = Errno::AGAIN;
        for _ in 0..ATTEMPTS {
            let generation = match state.intact_at {
                Some(generation) => generation,
                None => self.look(state)?,
            };
            match state.netlink.transact(generation, &self.table, changes) {
                Ok(()) => {
                    state.intact_at = Some(netlink::after(generation));
                    return Ok(());
                }
                // NOENT: the table is gone, or an element ended between two of our own changes; the look tells which.
                Err(error @ (netlink::OTHER_GENERATION | Errno::NOENT)) => last = error,
                Err(error) => return Err(self.refused(doing, error)),
            }
            state.intact_at = None;
        }
        Err(self.refused(doing, last))
    }

    /// Reads and checks the whole gate; the generation in which it is intact.
    fn look(&self, state: &mut State) -> Result<u32, GateError> {
        state.intact_at = None;
        // First the generation: a change after it makes the next transaction fail and look again.
        let generation = state.netlink.generation().map_err(|e| self.refused("be read", e))?;
        self.look_at_rules(state)?;
        let elements = state.netlink.elements(&self.table, ruleset::GUARDED);
        let found: BTreeSet<u16> = elements.map_err(|e| self.refused("be read", e))?.into_iter().collect();
        if let Some(port) = state.guarded.difference(&found).next() {
            return Err(self.damaged(format!("port {port} is no longer behind it")));
        }
        state.intact_at = Some(generation);
        Ok(generation)
    }

    fn look_at_rules(&self, state: &mut State) -> Result<(), GateError> {
        let dormant = state.netlink.is_dormant(&self.table).map_err(|error| match error {
            Errno::NOENT => self.damaged("its table is gone, so its ports are open to everybody".to_owned()),
            error => self.refused("be read", error),
        })?;
        if dormant {
            return Err(self.damaged("its table was switched off (flag dormant)".to_owned()));
        }
        let rules = state.netlink.rules(&self.table).map_err(|e| self.refused("be read", e))?;
        ruleset::check(&rules).map_err(|because| self.damaged(because))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves nothing half-done here: the kernel holds the state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn damaged(&self, because: String) -> GateError {
        GateError::Damaged { table: self.table.clone(), because }
    }

    fn refused(&self, doing: &str, error: Errno) -> GateError {
        if error == Errno::PERM {
            return GateError::NoRight { table: self.table.clone() };
        }
        GateError::Refused { table: self.table.clone(), doing: doing.to_owned(), because: error.to_string() }
    }
}

fn open_error(table: &str, error: Errno) -> GateError {
    let table = table.to_owned();
    match error {
        Errno::PERM => GateError::NoRight { table },
        error => GateError::NoKernel { table, because: error.to_string() },
    }
}

/// Replaces the element of `port` whatever there is of it. Kernels before 6.12 cannot change an element's time-out in
/// place, and deleting one that is absent fails: so it is added (which is fine when it exists), deleted and added, in one
/// transaction that packets see as a whole.
fn renewal(port: u16, timeout: Duration) -> [Change; 3] {
    let [add, delete] = closing(port);
    [add, delete, Change::Add { set: ruleset::OPEN, port, timeout: Some(timeout) }]
}

fn closing(port: u16) -> [Change; 2] {
    let set = ruleset::OPEN;
    // The first one is never seen by a packet; its time-out only keeps it from being a permanent element in any case.
    let timeout = Some(Duration::from_millis(1000));
    [Change::Add { set, port, timeout }, Change::Delete { set, port }]
}
