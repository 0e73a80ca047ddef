//! Which node hears which: cut per direction, slow for everybody.

/// The most nodes that a simulated system has.
pub(crate) const MOST_NODES: usize = 5;

/// The cuts in force; a direction that was cut twice must be healed twice.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    cuts: [[u32; MOST_NODES]; MOST_NODES],
    slow: u32,
    narrow: [u32; MOST_NODES],
}

impl Network {
    /// Whether what `from` sends arrives at `to`.
    pub(crate) fn carries(&self, from: usize, to: usize) -> bool {
        from == to || self.cuts[from][to] == 0
    }

    /// Whether both can talk to each other.
    pub(crate) fn connects(&self, a: usize, b: usize) -> bool {
        self.carries(a, b) && self.carries(b, a)
    }

    /// Whether messages are late and come twice.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow > 0
    }

    pub(crate) fn slow_down(&mut self) {
        self.slow += 1;
    }

    pub(crate) fn speed_up(&mut self) {
        self.slow = self.slow.saturating_sub(1);
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cuts[from][to] += 1;
    }

    pub(crate) fn mend(&mut self, from: usize, to: usize) {
        self.cuts[from][to] = self.cuts[from][to].saturating_sub(1);
    }

    /// Whether long packets arrive: log, copies of data.
    pub(crate) fn carries_log(&self, a: usize, b: usize) -> bool {
        self.narrow[a] == 0 && self.narrow[b] == 0
    }

    /// Only short packets from and to a node arrive.
    pub(crate) fn narrow(&mut self, node: usize) {
        self.narrow[node] += 1;
    }

    /// Takes back what [`Network::narrow`] did.
    pub(crate) fn widen(&mut self, node: usize) {
        self.narrow[node] = self.narrow[node].saturating_sub(1);
    }

    /// Nothing that a node sends arrives.
    pub(crate) fn mute(&mut self, node: usize) {
        (0..MOST_NODES).filter(|other| *other != node).for_each(|other| self.cut(node, other));
    }

    /// Takes back what [`Network::mute`] did.
    pub(crate) fn unmute(&mut self, node: usize) {
        (0..MOST_NODES).filter(|other| *other != node).for_each(|other| self.mend(node, other));
    }

    /// Cuts a node off in both directions.
    pub(crate) fn isolate(&mut self, node: usize) {
        for other in (0..MOST_NODES).filter(|other| *other != node) {
            self.cut(node, other);
            self.cut(other, node);
        }
    }

    /// Takes back what [`Network::isolate`] did.
    pub(crate) fn rejoin(&mut self, node: usize) {
        for other in (0..MOST_NODES).filter(|other| *other != node) {
            self.mend(node, other);
            self.mend(other, node);
        }
    }

    pub(crate) fn heal(&mut self) {
        *self = Self::default();
    }
}
