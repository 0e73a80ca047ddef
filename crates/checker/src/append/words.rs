//! A cycle as sentences.

use super::cycle::Cycle;
use super::graph::{Because, Graph, Kind};
use super::{Action, Step};
use crate::{Operation, Violation};

/// A transaction's text is cut here, by characters.
const LONGEST: usize = 300;

/// Says which transactions depend on each other in a circle, and by what each dependency is known.
pub(super) fn cycle(history: &[Operation<Action>], graph: &Graph<'_>, cycle: &Cycle) -> Violation {
    let hops = hops(graph, cycle);
    let name = |txn: usize| hops.iter().position(|hop| hop.from == txn).map_or(0, |place| place + 1);
    let mut lines = Vec::new();
    for hop in &hops {
        lines.push(format!(
            "T{} = {}: {}",
            name(hop.from),
            history[hop.from],
            transaction(&history[hop.from].action)
        ));
    }
    for hop in &hops {
        lines.push(sentence(hop, name(hop.from), name(hop.to)));
    }
    Violation::new(
        cycle.anomaly,
        format!("each comes before the next, in a circle:\n    {}", lines.join("\n    ")),
    )
}

/// One dependency between two transactions.
struct Hop<'a> {
    from: usize,
    to: usize,
    kind: Kind,
    because: Option<Because<'a>>,
}

/// The cycle's edges, with those along moments made one.
fn hops<'a>(graph: &Graph<'a>, cycle: &Cycle) -> Vec<Hop<'a>> {
    let mut hops = Vec::new();
    let mut since = None;
    for &(from, place) in &cycle.edges {
        let edge = &graph.edges[from][place];
        let from = since.take().unwrap_or(from);
        if edge.to >= graph.transactions {
            since = Some(from);
        } else {
            hops.push(Hop { from, to: edge.to, kind: edge.kind, because: edge.because });
        }
    }
    hops
}

fn sentence(hop: &Hop<'_>, from: usize, to: usize) -> String {
    let because = hop.because.map(|because| {
        let value =
            |value: Option<u64>| value.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
        (because.key, value(because.earlier), value(because.later))
    });
    match (hop.kind, because) {
        (Kind::RealTime, _) | (_, None) => {
            format!("T{from} < T{to} in time: T{from} was over before T{to} began")
        }
        (Kind::WriteWrite, Some((key, earlier, later))) => {
            format!(
                "T{from} < T{to} by ww: in {key}, T{from}'s {earlier} stands right before T{to}'s {later}"
            )
        }
        (Kind::WriteRead, Some((key, earlier, _))) => {
            format!("T{from} < T{to} by wr: T{to} saw T{from}'s {earlier} in {key}")
        }
        (Kind::ReadWrite, Some((key, earlier, later))) => {
            format!(
                "T{from} < T{to} by rw: T{from} saw {earlier} as the newest of {key} and missed T{to}'s {later}"
            )
        }
    }
}

/// What a transaction did, in short.
fn transaction(action: &Action) -> String {
    let step = |step: &Step| match step {
        Step::Append(key, value) => format!("append {value} to {key}"),
        Step::Read(key, Some(found)) => format!("read {key} = {found:?}"),
        Step::Read(key, None) => format!("read {key} without answer"),
    };
    let text = action.iter().map(step).collect::<Vec<_>>().join(", ");
    if text.chars().count() <= LONGEST { text } else { text.chars().take(LONGEST).chain(['…']).collect() }
}
