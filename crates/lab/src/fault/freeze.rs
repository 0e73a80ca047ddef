//! Frozen nodes: every process stands still, as when a virtual machine is paused. The kernel still answers TCP.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use effects::clock::now;
use effects::process::{ProcessId, Signal, signal_process};
use model::NodeName;

use super::{CutOptions, Evidence};
use crate::error::{LabError, Result};
use crate::freezer::Freezer;
use crate::lab::Lab;
use crate::process;

/// How long it may take until everything stands still.
const FREEZE_LIMIT: Duration = Duration::from_secs(5);

impl Lab {
    /// Freezes a node. With `silent`, its links are cut first: a machine that hangs in its hypervisor answers nothing, not
    /// even TCP.
    pub fn freeze_node(&self, node: &NodeName, silent: bool) -> Result<Evidence> {
        let init = self.init(node)?;
        let begun = now();
        if silent {
            self.cut_node(node, &CutOptions::whole())?;
        }
        let count = match Freezer::find(self.system(), node) {
            Some(freezer) => freezer.freeze(FREEZE_LIMIT)?,
            None => stop_all(node, init)?,
        };
        let how = if silent { ", its links are silent" } else { "" };
        Ok(Evidence::since(begun, format!("all {count} processes of {node} stand still{how}")))
    }

    /// Lets a frozen node go on, first its links, then its processes: it believes that no time has passed.
    pub fn thaw_node(&self, node: &NodeName) -> Result<Evidence> {
        let init = self.init(node)?;
        let begun = now();
        if self.client_network().is_some() {
            self.heal_node(node)?;
        }
        match Freezer::find(self.system(), node) {
            Some(freezer) => freezer.thaw()?,
            None => go_on(init),
        }
        Ok(Evidence::since(begun, format!("{node} goes on")))
    }

    /// Whether every process of the node stands still.
    pub fn is_frozen(&self, node: &NodeName) -> Result<bool> {
        let init = self.init(node)?;
        Ok(match Freezer::find(self.system(), node) {
            Some(freezer) => freezer.is_frozen(),
            None => process::family(init).into_iter().all(stands_still),
        })
    }
}

fn stands_still(process: ProcessId) -> bool {
    process::is_stopped(process) || !process::is_alive(process)
}

/// Stops everything, again and again until nobody new is found: a process may be born while its parent is being stopped.
fn stop_all(node: &NodeName, init: ProcessId) -> Result<usize> {
    let end = Instant::now() + FREEZE_LIMIT;
    let mut stopped = BTreeSet::new();
    loop {
        let all: BTreeSet<ProcessId> = process::family(init).into_iter().collect();
        for process in all.difference(&stopped) {
            signal_process(*process, Signal::STOP);
        }
        if all == stopped && all.iter().copied().all(stands_still) {
            return Ok(all.len());
        }
        if Instant::now() > end {
            let seen = format!("{} processes, still changing", all.len());
            return Err(LabError::Late { what: format!("freezing {node}"), within: FREEZE_LIMIT, seen });
        }
        stopped = all;
    }
}

fn go_on(init: ProcessId) {
    for process in process::family(init) {
        signal_process(process, Signal::CONT);
    }
}
