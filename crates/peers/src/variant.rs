//! What is measured: systems with their timers, and faults.

use std::fmt;
use std::str::FromStr;

use lab::drill::{Drill, UnknownDrill};

/// How fast a peer is told to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timers {
    /// As it comes.
    Default,
    /// The shortest that it accepts.
    Tuned,
}

/// A system under the bench.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// Ours.
    Mainstay,
    /// Patroni with etcd and HAProxy.
    Patroni(Timers),
    /// pg_auto_failover.
    AutoFailover(Timers),
}

impl Subject {
    /// Those that are measured at the same time. With default timers an outage is a wait of many seconds, which another
    /// system that waits too does not disturb; everything else is measured alone.
    pub(crate) const GROUPS: [&[Self]; 4] = [
        &[Self::Mainstay],
        &[Self::Patroni(Timers::Default), Self::AutoFailover(Timers::Default)],
        &[Self::Patroni(Timers::Tuned)],
        &[Self::AutoFailover(Timers::Tuned)],
    ];

    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 5] = [
        Self::Mainstay,
        Self::Patroni(Timers::Default),
        Self::Patroni(Timers::Tuned),
        Self::AutoFailover(Timers::Default),
        Self::AutoFailover(Timers::Tuned),
    ];

    /// Its name on the command line, and in the name of its system.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mainstay => "mainstay",
            Self::Patroni(Timers::Default) => "patroni-default",
            Self::Patroni(Timers::Tuned) => "patroni-tuned",
            Self::AutoFailover(Timers::Default) => "autofailover-default",
            Self::AutoFailover(Timers::Tuned) => "autofailover-tuned",
        }
    }

    /// Its name in the table.
    pub(crate) const fn title(self) -> &'static str {
        match self {
            Self::Mainstay => "Mainstay",
            Self::Patroni(Timers::Default) => "Patroni, default",
            Self::Patroni(Timers::Tuned) => "Patroni, tuned",
            Self::AutoFailover(Timers::Default) => "pg_auto_failover, default",
            Self::AutoFailover(Timers::Tuned) => "pg_auto_failover, tuned",
        }
    }

    /// The name of its system in the lab.
    pub(crate) fn system(self) -> String {
        format!("peers-{self}")
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Subject {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|subject| subject.name() == name);
        found.ok_or_else(|| format!("there is no system `{name}`; there are: {names}"))
    }
}

/// A fault that is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The primary's postmaster is killed.
    Postmaster,
    /// The primary's node loses power.
    Death,
    /// The primary's node stands still.
    Freeze,
    /// The primary's node loses its network.
    Cut,
    /// The primary hands over in an orderly way.
    Switchover,
}

impl Fault {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 5] =
        [Self::Postmaster, Self::Death, Self::Freeze, Self::Cut, Self::Switchover];

    /// The lab's drill that does it.
    ///
    /// # Errors
    /// When the catalogue does not have it any more.
    pub(crate) fn drill(self) -> Result<&'static Drill, String> {
        self.name().parse().map_err(|error: UnknownDrill| error.to_string())
    }

    /// Its name on the command line and in figures: the drill's.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Postmaster => "postmaster-kill",
            Self::Death => "node-kill",
            Self::Freeze => "node-freeze",
            Self::Cut => "network-cut",
            Self::Switchover => "switchover",
        }
    }

    /// Whether it is over in a moment. What lasts is taken back, which is measured apart.
    pub(crate) const fn is_momentary(self) -> bool {
        match self {
            Self::Postmaster | Self::Switchover => true,
            Self::Death | Self::Freeze | Self::Cut => false,
        }
    }

    /// Its name in the table.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Postmaster => "death of the postmaster",
            Self::Death => "death of the primary's node",
            Self::Freeze => "freeze of the primary's node",
            Self::Cut => "cut of the primary's network",
            Self::Switchover => "switchover",
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        let found = Self::ALL.into_iter().find(|fault| fault.name() == name);
        found.ok_or_else(|| format!("`{name}` is not compared; there are: {names}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_is_measured_once_and_found_by_its_name() {
        let mut grouped = Subject::GROUPS.concat();
        grouped.sort();
        assert_eq!(grouped, Subject::ALL);
        assert!(Subject::ALL.into_iter().all(|subject| subject.name().parse() == Ok(subject)));
        assert!("repmgr".parse::<Subject>().unwrap_err().contains("patroni-tuned"));
    }

    #[test]
    fn faults_have_the_names_of_their_drills() {
        assert!(Fault::ALL.into_iter().all(|fault| fault.name().parse() == Ok(fault)));
        assert!("soak".parse::<Fault>().unwrap_err().contains("node-freeze"));
    }
}
