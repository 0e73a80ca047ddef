//! What is measured: systems with their timers, and faults.

use std::fmt;
use std::str::FromStr;

use lab::drill::Drill;

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
}

impl Subject {
    /// All, in the order of the table.
    pub(crate) const ALL: [Self; 3] =
        [Self::Mainstay, Self::Patroni(Timers::Default), Self::Patroni(Timers::Tuned)];

    /// Its name on the command line, and in the name of its system.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Mainstay => "mainstay",
            Self::Patroni(Timers::Default) => "patroni-default",
            Self::Patroni(Timers::Tuned) => "patroni-tuned",
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

/// The faults that are compared.
pub(crate) const FAULTS: [Drill; 5] =
    [Drill::PostmasterKill, Drill::NodeKill, Drill::NodeFreeze, Drill::NetworkCut, Drill::Switchover];
