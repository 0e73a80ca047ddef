//! Bad links: the switch loses some packets, the long ones, or those above a rate, of a port.
//!
//! As cuts are ([`super::cut`]), a flaw is an element of an nftables set of the bridge family with a timeout: the kernel ends
//! it also when the one who made it is dead. Dice, length and rate are asked first, so that the elements count what was
//! really dropped.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::cut::{Counted, counted};
use crate::error::Result;
use crate::namespace::NetworkNamespace;

/// A packet between two flawed ports rolls the dice once, so that it is lost as often as one between a flawed port and a
/// good one. A rate counts each direction by itself: two sets hold the limits, as an element can count or limit but nft
/// lists only one of both.
const TABLE: &str = "
table bridge mainstay_flaws {
    set leaky { type ifname; flags timeout; counter; }
    set lossy { type ifname; flags timeout; counter; }
    set narrow { type ifname; flags timeout; counter; }
    set slim { type ifname; flags timeout; counter; }
    set slim_from { type ifname; flags timeout; limit rate over 20 kbytes/second burst 8 kbytes; }
    set slim_to { type ifname; flags timeout; limit rate over 20 kbytes/second burst 8 kbytes; }
    chain leak {
        iifname @leaky drop
        oifname @leaky drop
    }
    chain lose {
        iifname @lossy drop
        oifname @lossy drop
    }
    chain pass_short {
        iifname @narrow drop
        oifname @narrow drop
    }
    chain forward {
        type filter hook forward priority 10; policy accept;
        numgen random mod 100 < 5 jump leak
        numgen random mod 100 < 20 jump lose
        meta length > 1000 jump pass_short
        iifname @slim_from iifname @slim drop
        oifname @slim_to oifname @slim drop
    }
}
";

/// What is wrong with a link. The figures are those of the table above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// Every twentieth packet is lost, by chance.
    Leaky,
    /// Every fifth packet is lost, by chance.
    Lossy,
    /// Packets of more than 1000 bytes are lost, as behind a tunnel whose path MTU nobody is told of.
    Narrow,
    /// What exceeds 20 kB in a second, each way, is lost: less than replication and agents need together.
    Slim,
}

impl Flaw {
    pub(crate) const ALL: [Self; 4] = [Self::Leaky, Self::Lossy, Self::Narrow, Self::Slim];

    /// What is lost because of it.
    pub const fn losses(self) -> &'static str {
        match self {
            Self::Leaky => "every twentieth packet",
            Self::Lossy => "every fifth packet",
            Self::Narrow => "packets of more than 1000 bytes",
            Self::Slim => "what exceeds 20 kB in a second",
        }
    }

    /// The set whose elements count.
    const fn counting(self) -> &'static str {
        match self {
            Self::Leaky => "leaky",
            Self::Lossy => "lossy",
            Self::Narrow => "narrow",
            Self::Slim => "slim",
        }
    }

    const fn sets(self) -> &'static [&'static str] {
        match self {
            Self::Leaky => &["leaky"],
            Self::Lossy => &["lossy"],
            Self::Narrow => &["narrow"],
            Self::Slim => &["slim", "slim_from", "slim_to"],
        }
    }
}

/// Sets the table up; no link is bad.
pub(crate) fn prepare(switch: &NetworkNamespace) -> Result<()> {
    super::nft(switch, "preparing the switch for bad links", &["-f", "-"], TABLE).map(|_| ())
}

/// Makes the links of these ports bad, all at one instant; an earlier flaw of the same kind gets the new end.
pub(crate) fn spoil(
    switch: &NetworkNamespace,
    flaw: Flaw,
    ports: &[String],
    lasting: Duration,
) -> Result<()> {
    let timeout = lasting.as_millis().max(1);
    let mut text = removal(flaw, ports);
    for (set, port) in each(flaw, ports) {
        let _ =
            writeln!(text, "add element bridge mainstay_flaws {set} {{ \"{port}\" timeout {timeout}ms }}");
    }
    super::nft(switch, "making links bad", &["-f", "-"], &text).map(|_| ())
}

/// Makes the links of these ports good again, whatever was wrong.
pub(crate) fn mend(switch: &NetworkNamespace, ports: &[String]) -> Result<()> {
    let text: String = Flaw::ALL.into_iter().map(|flaw| removal(flaw, ports)).collect();
    super::nft(switch, "mending links", &["-f", "-"], &text).map(|_| ())
}

/// The flaws at this moment by port, with what was lost.
pub(crate) fn active(switch: &NetworkNamespace) -> Result<BTreeMap<(String, Flaw), Counted>> {
    let found = counted(switch, "mainstay_flaws")?;
    let flaw = |set: &str| Flaw::ALL.into_iter().find(|flaw| flaw.counting() == set);
    Ok(found.into_iter().filter_map(|(set, port, counted)| Some(((port, flaw(&set)?), counted))).collect())
}

fn each(flaw: Flaw, ports: &[String]) -> impl Iterator<Item = (&'static str, &String)> {
    flaw.sets().iter().flat_map(move |set| ports.iter().map(move |port| (*set, port)))
}

/// To be removable an element is added first (adding what is there changes nothing).
fn removal(flaw: Flaw, ports: &[String]) -> String {
    let mut text = String::new();
    for (set, port) in each(flaw, ports) {
        let _ = writeln!(text, "add element bridge mainstay_flaws {set} {{ \"{port}\" }}");
        let _ = writeln!(text, "delete element bridge mainstay_flaws {set} {{ \"{port}\" }}");
    }
    text
}
