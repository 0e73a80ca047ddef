//! Once a member has acknowledged a write in a term, none acknowledges one in a lower term; and a term has one member
//! that acknowledges.

use crate::world::World;

pub(crate) fn broken(world: &World) -> Option<String> {
    let [.., before, last] = world.client.acknowledged.as_slice() else { return None };
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
