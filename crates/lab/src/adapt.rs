//! Changing a lab that runs: nodes come and go while the others go on.

use std::fs;
use std::path::Path;

use model::NodeName;
use model::system::System;

use crate::cgroup::Group;
use crate::error::{LabError, Result};
use crate::lab::Lab;
use crate::manifest::{Manifest, Mode};
use crate::network;
use crate::options::Options;
use crate::up;

impl Lab {
    /// Adds the nodes that `system` has and the lab has not, and switches them on; returns which. Those that the lab has
    /// beyond the system stay, see [`Lab::remove_node`].
    ///
    /// # Errors
    /// [`LabError::NotPossible`] when a node that is there already has other addresses now.
    pub fn add_nodes(&mut self, system: &System, file: &Path, options: &Options) -> Result<Vec<NodeName>> {
        let source = fs::canonicalize(file).map_err(LabError::file("reading", file))?;
        let home = self.home.clone();
        self.change(|manifest| {
            let planned = up::plan_in(manifest.mode, system, &source, &home, options, Some(manifest));
            refuse_moves(manifest, &planned)?;
            let old_lines = manifest.lines.len();
            let added: Vec<NodeName> =
                planned.nodes.keys().filter(|name| !manifest.nodes.contains_key(*name)).cloned().collect();
            // The record first: whatever interrupts us, `down` finds what there may be.
            manifest.lines = planned.lines;
            manifest.file = planned.file;
            manifest.source = planned.source;
            manifest.nodes.extend(planned.nodes.into_iter().filter(|(name, _)| added.contains(name)));
            manifest.save(&home)?;
            if manifest.mode == Mode::Namespaces {
                network::extend(manifest, old_lines)?;
            }
            up::prepare(&home, manifest, system, &added, options)?;
            if manifest.mode == Mode::Namespaces {
                network::introduce(manifest, &added)?;
            }
            up::start_nodes(&home, manifest, &added)?;
            Ok(added)
        })
    }

    /// Switches a node off for good and removes its files. Its system must have let go of it before.
    pub fn remove_node(&mut self, node: &NodeName) -> Result<()> {
        if self.node(node)?.is_on() {
            self.stop_node(node)?;
        }
        let home = self.home.clone();
        self.change(|manifest| {
            Group::of_node(&manifest.system, node).iter().try_for_each(Group::remove)?;
            for path in [home.node_root(node), home.node_spec(node), home.node_log(node), home.volume(node)] {
                crate::down::remove(&path)?;
            }
            manifest.nodes.remove(node);
            Ok(())
        })
    }
}

/// A node cannot get other addresses while it runs, no more than a machine gets other cables.
fn refuse_moves(manifest: &Manifest, planned: &Manifest) -> Result<()> {
    let moved = |(name, node): &(&NodeName, &crate::manifest::Node)| {
        planned.nodes.get(*name).is_some_and(|planned| planned.addresses != node.addresses)
    };
    match manifest.nodes.iter().find(moved) {
        None => Ok(()),
        Some((name, _)) => Err(LabError::NotPossible {
            what: format!("giving node {name} other addresses"),
            why: "it runs with those it has; take the system down with its data kept and up again".to_owned(),
        }),
    }
}
