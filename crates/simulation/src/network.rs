//! Which node hears which: cut per direction.

use std::collections::BTreeSet;

/// The cuts in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    cut: BTreeSet<(usize, usize)>,
}

impl Network {
    /// Whether what `from` sends arrives at `to`.
    pub(crate) fn carries(&self, from: usize, to: usize) -> bool {
        from == to || !self.cut.contains(&(from, to))
    }

    /// Whether both can talk to each other.
    pub(crate) fn connects(&self, a: usize, b: usize) -> bool {
        self.carries(a, b) && self.carries(b, a)
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut.insert((from, to));
    }

    /// Cuts a node off in both directions.
    pub(crate) fn isolate(&mut self, node: usize, count: usize) {
        for other in (0..count).filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }
}
