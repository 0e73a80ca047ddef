//! Once a member has acknowledged a write in a term, none acknowledges one in a lower term; and a term has one member
//! that acknowledges.

use crate::client::Acknowledged;
use crate::world::World;

pub(crate) fn broken(world: &World) -> Option<String> {
    let new = world.client.acknowledged.get(world.judged.saturating_sub(1)..)?;
    new.windows(2).find_map(|pair| differ(pair.first()?, pair.last()?))
}

fn differ(before: &Acknowledged, last: &Acknowledged) -> Option<String> {
    if last.term < before.term {
        return Some(format!(
            "n{} acknowledged write {} in term {} after n{} had acknowledged one in term {}",
            last.node, last.write, last.term, before.node, before.term
        ));
    }
    (last.term == before.term && last.node != before.node).then(|| {
        format!("n{} and n{} both acknowledged writes in term {}", before.node, last.node, last.term)
    })
}
