//! Slow links: what a node sends comes late, out of order, or twice.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use effects::clock::now;
use effects::process::{ProcessId, Signal, signal_process};
use model::NodeName;

use super::Evidence;
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::manifest::store;
use crate::network::relay::{Carried, Pace, Spec};
use crate::network::{self, script};
use crate::node::spawn::{detach, wait_ready};
use crate::process;

/// How long a relay may take to stand, and to be gone.
const LIMIT: Duration = Duration::from_secs(10);

impl Lab {
    /// Makes all links of a node slow for what it sends, for at most `lasting`. Cuts of the node work as before.
    ///
    /// # Errors
    /// [`LabError::NotPossible`] when its links are slow already.
    pub fn slow_node(&self, node: &NodeName, pace: Pace, lasting: Duration) -> Result<Evidence> {
        self.need_namespaces("slow links")?;
        let begun = now();
        if self.relay(node).is_some() {
            let what = format!("making the links of {node} slow");
            return Err(LabError::NotPossible { what, why: "they are slow already".to_owned() });
        }
        let account = self.account(node);
        crate::down::remove(&account)?;
        let ports = script::ports(self.manifest(), self.node(node)?).collect();
        let spec = Spec { switch: network::switch(self.system()).path(), ports, pace, lasting, account };
        let doing = || format!("starting the relay of {node}");
        let text = serde_json::to_string(&spec).map_err(LabError::io(doing))?;
        let mut command = Command::new(&self.manifest().program);
        command.args(["lab-node", "relay", &text]).current_dir("/").env(crate::node::MARK, self.directory());
        let child = detach(&mut command, None).and_then(|()| command.spawn()).map_err(LabError::io(doing))?;
        let relay = wait_ready(child, LIMIT)
            .map_err(|reason| LabError::Io { doing: doing(), source: std::io::Error::other(reason) })?;
        let record = serde_json::to_vec(&relay).map_err(LabError::io(doing))?;
        store(&self.relay_record(node), &record)?;
        let (delay, jitter) = (pace.delay.as_millis(), pace.jitter.as_millis());
        let what = format!(
            "what {node} sends goes through a relay that keeps it for {delay} ms, more or less by {jitter}"
        );
        Ok(Evidence::since(begun, what))
    }

    /// Ends the slowness of a node's links and tells what it did. When it has ended by itself before, that is told.
    pub fn speed_node(&self, node: &NodeName) -> Result<Evidence> {
        self.need_namespaces("slow links")?;
        let begun = now();
        if let Some(relay) = self.relay(node) {
            // Its other half sees that it is gone, puts the ports back and gives account.
            signal_process(relay, Signal::KILL);
        }
        let account = self.account(node);
        if !process::wait_until(LIMIT, || account.exists()) {
            return Err(LabError::Late {
                what: format!("the end of the relay of {node}"),
                within: LIMIT,
                seen: "it has not given account".to_owned(),
            });
        }
        let text = fs::read(&account).map_err(LabError::file("reading", &account))?;
        let carried: Carried = serde_json::from_slice(&text)
            .map_err(|error| LabError::Damaged { path: account, reason: error.to_string() })?;
        Ok(Evidence::since(begun, in_words(node, carried)))
    }

    /// Ends the slowness of a node that is off: its relay stands in the place of ports that the node's start makes anew.
    pub(crate) fn end_relay(&self, node: &NodeName) -> Result<()> {
        if self.relay(node).is_some() { self.speed_node(node).map(|_| ()) } else { Ok(()) }
    }

    /// The relay of a node's links that is at work.
    fn relay(&self, node: &NodeName) -> Option<ProcessId> {
        let text = fs::read(self.relay_record(node)).ok()?;
        let relay: ProcessId = serde_json::from_slice(&text).ok()?;
        process::is_alive(relay).then_some(relay)
    }

    fn relay_record(&self, node: &NodeName) -> PathBuf {
        self.directory().join("specs").join(format!("relay-{node}.json"))
    }

    /// Where a relay gives account of what it did.
    fn account(&self, node: &NodeName) -> PathBuf {
        self.directory().join("specs").join(format!("relay-{node}-done.json"))
    }
}

/// Empty when nothing came late: then nothing is proved.
fn in_words(node: &NodeName, carried: Carried) -> String {
    let Carried { frames, late_us, overtook, doubled, refused } = carried;
    let Some(mean_us) = late_us.checked_div(frames) else { return String::new() };
    format!(
        "{frames} frames of {node} came {}.{} ms late in the mean, {overtook} overtook others, {doubled} came twice, \
         {refused} found no room",
        mean_us / 1000,
        mean_us % 1000 / 100
    )
}
