//! Scripts as text.

use std::fmt;
use std::time::Duration;

use super::{Fault, Script, ScriptFile, Shape, Step, Target};

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary => f.write_str("the primary"),
            Self::Standby => f.write_str("a standby"),
            Self::Node(index) => write!(f, "n{}", index + 1),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Power(target) => write!(f, "power off {target}"),
            Self::Agent(target) => write!(f, "kill the agent of {target}"),
            Self::AgentStalls(target) => write!(f, "freeze the agent of {target}"),
            Self::Freeze(target) => write!(f, "freeze {target}"),
            Self::Isolate(target) => write!(f, "cut off {target}"),
            Self::Mute(target) => write!(f, "cut what {target} sends"),
            Self::OneWay(target, to) => write!(f, "cut what {target} sends to n{}", to + 1),
            Self::Narrow(target) => write!(f, "lose the long packets of {target}"),
            Self::Slow => f.write_str("delay all messages"),
            Self::Postmaster(target) => write!(f, "kill the postmaster of {target}"),
            Self::Disk(target) => write!(f, "hang the disk of {target}"),
            Self::LogGone(target) => write!(f, "drop the log that {target} needs"),
            Self::Wipe(target) => write!(f, "lose the data of {target}"),
            Self::Leaderless => f.write_str("leave the coordination without a leader"),
            Self::Switchover => f.write_str("switch over"),
            Self::Force(target) => write!(f, "force {target} to lead"),
            Self::Pause => f.write_str("pause the automation"),
            Self::Apply(connections) => write!(f, "set max_connections to {connections}"),
        }
    }
}

/// `8 s`, `8250 ms`: the shortest that says it to the millisecond.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        if micros.is_multiple_of(1_000_000) {
            write!(f, "{} s", micros / 1_000_000)
        } else if micros.is_multiple_of(1000) {
            write!(f, "{} ms", micros / 1000)
        } else {
            write!(f, "{micros} us")
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {}", Time(self.at))?;
        if self.fault.lasts() {
            write!(f, " for {}", Time(self.lasts))?;
        }
        write!(f, ": {}", self.fault)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { nodes, members, confirm } = self;
        write!(f, "{nodes} nodes, {members} members, {confirm} must confirm")
    }
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        if let Some(shape) = self.shape {
            writeln!(f, "{shape}")?;
        }
        if self.single {
            writeln!(f, "one fault at a time")?;
        }
        writeln!(f)?;
        self.steps.iter().try_for_each(|step| writeln!(f, "{step}"))
    }
}

impl fmt::Display for ScriptFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.about {
            writeln!(f, "{}", format!("# {line}").trim_end())?;
        }
        writeln!(f)?;
        if self.in_the_lab {
            writeln!(f, "also in the lab")?;
        }
        write!(f, "{}", self.script)?;
        for (name, lines) in [("transcript", &self.transcript), ("story", &self.story)] {
            if !lines.is_empty() {
                writeln!(f, "\n{name}:")?;
                lines.iter().try_for_each(|line| writeln!(f, "{}", format!("  {line}").trim_end()))?;
            }
        }
        Ok(())
    }
}
