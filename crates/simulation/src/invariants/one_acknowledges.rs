//! Once a member has acknowledged a write in a term, none acknowledges one in a lower term; and a term has one member
//! that acknowledges.

use crate::client::Acknowledged;
use crate::system::node_name;
use crate::world::World;

pub(crate) fn broken(world: &World) -> Option<String> {
    let new = world.client.acknowledged.get(world.judged.saturating_sub(1)..)?;
    new.windows(2).find_map(|pair| differ(pair.first()?, pair.last()?))
}

fn differ(before: &Acknowledged, last: &Acknowledged) -> Option<String> {
    if last.term < before.term {
        return Some(format!(
            "{} acknowledged write {} in term {} after {} had acknowledged one in term {}",
            node_name(last.node),
            last.write,
            last.term,
            node_name(before.node),
            before.term
        ));
    }
    (last.term == before.term && last.node != before.node).then(|| {
        format!(
            "{} and {} both acknowledged writes in term {}",
            node_name(before.node),
            node_name(last.node),
            last.term
        )
    })
}
