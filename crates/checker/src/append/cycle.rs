//! Cycles that an isolation level forbids, the shortest that is found of each class.
//!
//! Each class is a kind of edge to start with and a rule for the way back to its beginning. Time counts as a dependency
//! in all of them: under each of PostgreSQL's levels what is acknowledged is visible to whoever begins later.

use std::collections::VecDeque;

use super::Level;
use super::graph::{Graph, Kind};
use crate::Anomaly;

/// Edges followed in all searches of one history.
const STEPS: usize = 50_000_000;

/// A cycle: edges as (from, place in the list of edges of `from`), each beginning where the one before ends.
pub(super) struct Cycle {
    pub(super) anomaly: Anomaly,
    pub(super) edges: Vec<(usize, usize)>,
}

#[derive(Default)]
pub(super) struct Found {
    pub(super) cycles: Vec<Cycle>,
    pub(super) undecided: Option<String>,
}

/// A class of cycles.
struct Class {
    anomaly: Anomaly,
    /// The kind of edge that every such cycle has and with which the search begins.
    first: Kind,
    way: Way,
    /// The lowest level that forbids it.
    level: Level,
}

/// What the way back may consist of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Overwriting and time.
    Writes,
    /// These, and what was seen.
    Dependencies,
    /// These, and missed writes that are not beside each other.
    NoTwoMissed,
    /// Everything.
    Anything,
}

const CLASSES: [Class; 5] = [
    Class { anomaly: Anomaly::G0, first: Kind::WriteWrite, way: Way::Writes, level: Level::ReadCommitted },
    Class {
        anomaly: Anomaly::G1c,
        first: Kind::WriteRead,
        way: Way::Dependencies,
        level: Level::ReadCommitted,
    },
    Class {
        anomaly: Anomaly::GSingle,
        first: Kind::ReadWrite,
        way: Way::Dependencies,
        level: Level::RepeatableRead,
    },
    Class {
        anomaly: Anomaly::GNonadjacent,
        first: Kind::ReadWrite,
        way: Way::NoTwoMissed,
        level: Level::RepeatableRead,
    },
    Class { anomaly: Anomaly::G2, first: Kind::ReadWrite, way: Way::Anything, level: Level::Serializable },
];

/// Looks for every class that the level forbids, from the worst to the mildest, and stops at the first that it finds:
/// every cycle of a worse class is one of the milder ones too.
pub(super) fn search(level: Level, graph: &Graph<'_>) -> Found {
    let mut steps = STEPS;
    for class in CLASSES.iter().filter(|class| class.level <= level) {
        match shortest(class, graph, &mut steps) {
            Ok(None) => {}
            Ok(Some(edges)) => {
                return Found { cycles: vec![Cycle { anomaly: class.anomaly, edges }], undecided: None };
            }
            Err(OutOfSteps) => {
                let reason = format!("the search for cycles ({}) was given up: too large", class.anomaly);
                return Found { cycles: Vec::new(), undecided: Some(reason) };
            }
        }
    }
    Found::default()
}

struct OutOfSteps;

impl Class {
    /// Whether such an edge can be part of such a cycle.
    fn has(&self, kind: Kind) -> bool {
        kind == self.first || self.way.allows(kind, false)
    }
}

impl Way {
    /// Whether an edge may follow, after a missed write or not.
    fn allows(self, kind: Kind, after_missed: bool) -> bool {
        match (self, kind) {
            (_, Kind::RealTime | Kind::WriteWrite) | (Self::Anything, _) => true,
            (Self::Writes, Kind::WriteRead | Kind::ReadWrite) => false,
            (Self::Dependencies | Self::NoTwoMissed, Kind::WriteRead) => true,
            (Self::Dependencies, Kind::ReadWrite) => false,
            (Self::NoTwoMissed, Kind::ReadWrite) => !after_missed,
        }
    }
}

type Edges = Vec<(usize, usize)>;

/// The shortest cycle of a class. The shortest of all while the steps allow to try every beginning; else the shortest so
/// far.
fn shortest(class: &Class, graph: &Graph<'_>, steps: &mut usize) -> Result<Option<Edges>, OutOfSteps> {
    let component = components(class, graph);
    let mut best: Option<Edges> = None;
    let mut search = Search::new(graph.edges.len());
    for (from, edges) in graph.edges.iter().enumerate() {
        for (place, edge) in edges.iter().enumerate() {
            if edge.kind != class.first || component[from] != component[edge.to] {
                continue;
            }
            let limit = best.as_ref().map_or(usize::MAX, Vec::len);
            match search.way_back(graph, class.way, (from, place), limit, steps) {
                Ok(None) => {}
                Ok(Some(found)) if found.len() < limit => best = Some(found),
                Ok(Some(_)) => {}
                Err(OutOfSteps) if best.is_some() => return Ok(best),
                Err(OutOfSteps) => return Err(OutOfSteps),
            }
            if best.as_ref().is_some_and(|best| best.len() == 2) {
                return Ok(best);
            }
        }
    }
    Ok(best)
}

/// A node, whether a missed write led to it, and the way there: the node and state before, and the edge's place.
#[derive(Clone, Copy)]
struct Reached {
    node: usize,
    after_missed: bool,
    length: usize,
    by: Option<(usize, bool, usize)>,
}

/// Breadth first over (node, whether a missed write led there); what was visited is stamped, so that a search need not
/// clean up what the one before left.
struct Search {
    stamp: u32,
    visited: Vec<[u32; 2]>,
    came: Vec<[Option<(usize, bool, usize)>; 2]>,
}

impl Search {
    fn new(nodes: usize) -> Self {
        Self { stamp: 0, visited: vec![[0; 2]; nodes], came: vec![[None; 2]; nodes] }
    }

    /// The shortest way from the end of the edge `first` back to its beginning, with that edge in front. Edges along
    /// moments cost nothing: in words they are one.
    fn way_back(
        &mut self,
        graph: &Graph<'_>,
        way: Way,
        first: (usize, usize),
        limit: usize,
        steps: &mut usize,
    ) -> Result<Option<Edges>, OutOfSteps> {
        self.stamp += 1;
        let edge = &graph.edges[first.0][first.1];
        let begin =
            Reached { node: edge.to, after_missed: edge.kind == Kind::ReadWrite, length: 1, by: None };
        let mut queue = VecDeque::from([begin]);
        while let Some(reached) = queue.pop_front() {
            let Reached { node, after_missed, length, by } = reached;
            if self.is_visited(node, after_missed) || length >= limit {
                continue;
            }
            self.visited[node][usize::from(after_missed)] = self.stamp;
            self.came[node][usize::from(after_missed)] = by;
            for (place, edge) in graph.edges[node].iter().enumerate() {
                *steps = steps.checked_sub(1).ok_or(OutOfSteps)?;
                let is_missed = edge.kind == Kind::ReadWrite;
                let ends_badly = way == Way::NoTwoMissed && edge.to == first.0 && is_missed;
                if !way.allows(edge.kind, after_missed) || ends_badly || self.is_visited(edge.to, is_missed) {
                    continue;
                }
                if edge.to == first.0 {
                    return Ok(Some(self.trace(first, (node, after_missed, place))));
                }
                let by = Some((node, after_missed, place));
                let next = Reached { node: edge.to, after_missed: is_missed, length, by };
                if edge.to < graph.transactions {
                    queue.push_back(Reached { length: length + 1, ..next });
                } else {
                    queue.push_front(next);
                }
            }
        }
        Ok(None)
    }

    fn is_visited(&self, node: usize, after_missed: bool) -> bool {
        self.visited[node][usize::from(after_missed)] == self.stamp
    }

    fn trace(&self, first: (usize, usize), last: (usize, bool, usize)) -> Edges {
        let mut edges = Vec::new();
        let mut step = Some(last);
        while let Some((node, after_missed, place)) = step {
            edges.push((node, place));
            step = self.came[node][usize::from(after_missed)];
        }
        edges.push(first);
        edges.reverse();
        edges
    }
}

/// For each node the number of its strongly connected component, in the graph of a class's edges (Tarjan's algorithm,
/// with a stack of its own because a history may be long).
fn components(class: &Class, graph: &Graph<'_>) -> Vec<usize> {
    let mut tarjan = Tarjan::new(graph.edges.len());
    for root in 0..graph.edges.len() {
        if tarjan.index[root].is_none() {
            tarjan.visit(root, class, graph);
        }
    }
    tarjan.component
}

struct Tarjan {
    index: Vec<Option<usize>>,
    low: Vec<usize>,
    component: Vec<usize>,
    on_stack: Vec<bool>,
    stack: Vec<usize>,
    next: usize,
}

impl Tarjan {
    fn new(nodes: usize) -> Self {
        Self {
            index: vec![None; nodes],
            low: vec![0; nodes],
            component: vec![usize::MAX; nodes],
            on_stack: vec![false; nodes],
            stack: Vec::new(),
            next: 0,
        }
    }

    fn visit(&mut self, root: usize, class: &Class, graph: &Graph<'_>) {
        let mut path = vec![(root, 0)];
        self.enter(root);
        while let Some((node, place)) = path.pop() {
            let Some(edge) = graph.edges[node].get(place) else {
                self.leave(node, path.last().map(|(parent, _)| *parent));
                continue;
            };
            path.push((node, place + 1));
            if !class.has(edge.kind) {
                continue;
            }
            match self.index[edge.to] {
                None => {
                    self.enter(edge.to);
                    path.push((edge.to, 0));
                }
                Some(index) if self.on_stack[edge.to] => self.low[node] = self.low[node].min(index),
                Some(_) => {}
            }
        }
    }

    fn enter(&mut self, node: usize) {
        self.index[node] = Some(self.next);
        self.low[node] = self.next;
        self.next += 1;
        self.stack.push(node);
        self.on_stack[node] = true;
    }

    fn leave(&mut self, node: usize, parent: Option<usize>) {
        if self.index[node] == Some(self.low[node]) {
            while let Some(member) = self.stack.pop() {
                self.on_stack[member] = false;
                self.component[member] = node;
                if member == node {
                    break;
                }
            }
        }
        if let Some(parent) = parent {
            self.low[parent] = self.low[parent].min(self.low[node]);
        }
    }
}
