//! The rules, one file per kind.

pub(crate) mod crates;
pub(crate) mod docs;
pub(crate) mod length;
pub(crate) mod modules;
pub(crate) mod words;

use std::collections::BTreeSet;

use crate::problem::Problem;
use crate::ratchet::Ratchet;
use crate::tree::Tree;

/// Every problem of the tree, by file and line. `built` names every package that is compiled.
pub(crate) fn all(tree: &Tree, built: &BTreeSet<String>) -> Result<Vec<Problem>, String> {
    let ratchet = Ratchet::of(tree)?;
    let mut problems = crates::check(tree, built, &ratchet)?;
    problems.extend(length::check(tree, &ratchet));
    problems.extend(words::check(tree));
    problems.extend(docs::check(tree));
    problems.extend(modules::check(tree));
    problems.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(problems)
}
