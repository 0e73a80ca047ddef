//! What lasts of faults, remembered in the lab's record until it is taken back: whoever comes after a drill that was killed
//! knows of it, refuses to measure on it, and can take it back.

use std::time::Duration;

use effects::clock::now;
use model::DatabaseName;
use model::time::Moment;
use serde::{Deserialize, Serialize};

use crate::drill::{Step, evidence};
use crate::error::Result;
use crate::lab::Lab;

/// A fault that may still last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lasting {
    /// The database under drill.
    database: DatabaseName,
    /// What takes it back and has not been done yet.
    undo: Vec<Step>,
    /// When it has ended by itself.
    until: Moment,
}

/// What came of taking one fault back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenBack {
    /// What was done.
    pub step: Step,
    /// Why it could not be done: mostly that there was nothing left to do.
    pub because: Option<String>,
}

impl Lab {
    /// Writes down that a fault will last, before it is made.
    pub(crate) fn remember_fault(
        &mut self,
        database: &DatabaseName,
        undo: &[Step],
        lasts: Duration,
    ) -> Result<()> {
        let fault = Lasting { database: database.clone(), undo: undo.to_vec(), until: now() + lasts };
        self.change(|manifest| {
            manifest.lasting.retain(|former| former.until > now());
            manifest.lasting.push(fault);
            Ok(())
        })
    }

    /// Forgets what this step has taken back. Guards end with the last fault: they must not meddle with what comes next.
    pub(crate) fn forget_fault(&mut self, done: &Step) -> Result<()> {
        let awaited = |fault: &Lasting| fault.undo.contains(done);
        if !self.manifest().lasting.iter().any(awaited) {
            return Ok(());
        }
        let is_last = self.change(|manifest| {
            for fault in &mut manifest.lasting {
                fault.undo.retain(|undo| undo != done);
            }
            manifest.lasting.retain(|fault| !fault.undo.is_empty());
            Ok(manifest.lasting.is_empty())
        })?;
        if is_last { self.dismiss_guards() } else { Ok(()) }
    }

    /// What would take back the faults that may still last, the last one first.
    ///
    /// # Errors
    /// When the record cannot be read.
    pub fn lasting(&mut self) -> Result<Vec<(DatabaseName, Step)>> {
        self.refresh()?;
        let there = self.manifest().lasting.iter().rev().filter(|fault| fault.until > now());
        let steps =
            there.flat_map(|fault| fault.undo.iter().map(|undo| (fault.database.clone(), undo.clone())));
        Ok(steps.filter(|(_, undo)| !self.is_done(undo)).collect())
    }

    /// Takes back all that lasts of faults, the last one first, and forgets it.
    ///
    /// # Errors
    /// When the record cannot be read or written.
    pub fn take_back(&mut self) -> Result<Vec<TakenBack>> {
        let mut taken = Vec::new();
        for (database, step) in self.lasting()? {
            let because = evidence(self, &database, &step).err().map(|error| error.to_string());
            taken.push(TakenBack { step, because });
        }
        self.change(|manifest| {
            manifest.lasting.clear();
            Ok(())
        })?;
        self.dismiss_guards()?;
        Ok(taken)
    }

    /// A node may have been started by hand.
    fn is_done(&self, undo: &Step) -> bool {
        undo.starts().is_some_and(|node| self.node(node).is_ok_and(crate::manifest::Node::is_on))
    }
}
