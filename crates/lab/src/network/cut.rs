//! Silent cuts: the switch drops what a port sends or should get, while the carrier stays up at both ends.
//!
//! A cut is an element of an nftables set of the bridge family (nft(8)), with a timeout where it should end by itself. The
//! kernel keeps the time, so a cut ends also when the one who made it is dead.

use std::fmt::Write;
use std::time::Duration;

use serde::Deserialize;

use crate::error::{LabError, Result};
use crate::namespace::NetworkNamespace;

/// The table in the switch namespace. Each element counts what it dropped: the proof that a cut was one.
const TABLE: &str = "
table bridge mainstay_lab {
    set from_port { type ifname; flags timeout; counter; }
    set to_port { type ifname; flags timeout; counter; }
    set between { type ifname . ifname; flags timeout; counter; }
    chain forward {
        type filter hook forward priority 0; policy accept;
        iifname @from_port drop
        oifname @to_port drop
        iifname . oifname @between drop
    }
}
";

/// One direction of one port, or of a pair of ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Silence {
    /// Nothing that the port sends gets anywhere.
    From(String),
    /// Nothing gets to the port.
    To(String),
    /// Nothing gets from the first to the second.
    Between(String, String),
}

/// What the kernel says about a silence or another flaw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    /// Packets dropped since it began.
    pub(crate) packets: u64,
    /// When it ends by itself; `None`: when it is healed.
    pub(crate) expires: Option<Duration>,
}

impl Silence {
    fn set(&self) -> &'static str {
        match self {
            Self::From(_) => "from_port",
            Self::To(_) => "to_port",
            Self::Between(..) => "between",
        }
    }

    fn element(&self) -> String {
        match self {
            Self::From(port) | Self::To(port) => format!("\"{port}\""),
            Self::Between(from, to) => format!("\"{from}\" . \"{to}\""),
        }
    }
}

/// Sets the table up; nothing is cut.
pub(crate) fn prepare(switch: &NetworkNamespace) -> Result<()> {
    super::nft(switch, "preparing the switch for cuts", &["-f", "-"], TABLE).map(|_| ())
}

/// Cuts, all at one instant; an earlier cut of the same gets the new end.
pub(crate) fn cut(switch: &NetworkNamespace, silences: &[Silence], lasting: Option<Duration>) -> Result<()> {
    let timeout = lasting.map(|time| format!(" timeout {}ms", time.as_millis().max(1))).unwrap_or_default();
    // Adding what is there keeps its old timeout: it is removed first, and to be removable it is added first.
    apply(switch, "cutting links", silences, |text, set, element| {
        let _ = writeln!(text, "add element bridge mainstay_lab {set} {{ {element} }}");
        let _ = writeln!(text, "delete element bridge mainstay_lab {set} {{ {element} }}");
        let _ = writeln!(text, "add element bridge mainstay_lab {set} {{ {element}{timeout} }}");
    })
}

/// Heals; what is not cut stays so.
pub(crate) fn heal(switch: &NetworkNamespace, silences: &[Silence]) -> Result<()> {
    apply(switch, "healing links", silences, |text, set, element| {
        let _ = writeln!(text, "add element bridge mainstay_lab {set} {{ {element} }}");
        let _ = writeln!(text, "delete element bridge mainstay_lab {set} {{ {element} }}");
    })
}

fn apply(
    switch: &NetworkNamespace,
    doing: &str,
    silences: &[Silence],
    write: impl Fn(&mut String, &str, &str),
) -> Result<()> {
    let mut text = String::new();
    for silence in silences {
        write(&mut text, silence.set(), &silence.element());
    }
    super::nft(switch, doing, &["-f", "-"], &text).map(|_| ())
}

/// What is cut at this moment.
pub(crate) fn active(switch: &NetworkNamespace) -> Result<Vec<(Silence, Counted)>> {
    let elements = list(switch, "mainstay_lab")?;
    let silence = |(set, value, counted): (String, Value, Counted)| {
        let silence = match (set.as_str(), value) {
            ("from_port", Value::Port(port)) => Silence::From(port),
            ("to_port", Value::Port(port)) => Silence::To(port),
            ("between", Value::Pair { concat: [from, to] }) => Silence::Between(from, to),
            _ => return None,
        };
        Some((silence, counted))
    };
    Ok(elements.into_iter().filter_map(silence).collect())
}

/// The elements of a table's sets of ports: set, port, what was counted.
pub(super) fn counted(switch: &NetworkNamespace, table: &str) -> Result<Vec<(String, String, Counted)>> {
    let port = |(set, value, counted)| match value {
        Value::Port(port) => Some((set, port, counted)),
        Value::Pair { .. } => None,
    };
    Ok(list(switch, table)?.into_iter().filter_map(port).collect())
}

/// All elements of all sets of a table.
fn list(switch: &NetworkNamespace, table: &str) -> Result<Vec<(String, Value, Counted)>> {
    let text =
        super::nft(switch, "reading the switch's rules", &["-j", "list", "table", "bridge", table], "")?;
    parse(&text).map_err(|error| LabError::Damaged {
        path: switch.path(),
        reason: format!("nft prints what cannot be read: {error}"),
    })
}

// ---- nft's JSON, see libnftables-json(5) ----

#[derive(Deserialize)]
struct Listing {
    nftables: Vec<Item>,
}

#[derive(Deserialize)]
struct Item {
    set: Option<Set>,
}

#[derive(Deserialize)]
struct Set {
    name: String,
    #[serde(default)]
    elem: Vec<Wrapped>,
}

#[derive(Deserialize)]
struct Wrapped {
    elem: Element,
}

#[derive(Deserialize)]
struct Element {
    val: Value,
    expires: Option<f64>,
    counter: Option<Counter>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Port(String),
    Pair { concat: [String; 2] },
}

#[derive(Deserialize)]
struct Counter {
    packets: u64,
}

fn parse(text: &str) -> serde_json::Result<Vec<(String, Value, Counted)>> {
    let listing: Listing = serde_json::from_str(text)?;
    let mut found = Vec::new();
    for set in listing.nftables.into_iter().filter_map(|item| item.set) {
        for Wrapped { elem } in set.elem {
            let packets = elem.counter.map_or(0, |counter| counter.packets);
            let expires = elem.expires.map(Duration::from_secs_f64);
            found.push((set.name.clone(), elem.val, Counted { packets, expires }));
        }
    }
    Ok(found)
}
