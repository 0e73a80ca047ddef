//! Physical replication slots: one for each other member, on every member, so that a new primary has kept the log that
//! the others still need.

use std::collections::BTreeMap;
use std::time::Duration;

use model::NodeName;
use model::postgres::Lsn;

use super::{Postmaster, SqlError};

/// What our slots' names begin with; others are the user's and left alone.
const PREFIX: &str = "mainstay_";

/// The slot that `node` streams through on any other member. Slot names allow no hyphen, node names no underscore, so no
/// two nodes get the same.
pub fn slot_name(node: &NodeName) -> String {
    format!("{PREFIX}{}", node.as_str().replace('-', "_"))
}

impl Postmaster {
    /// Makes the missing slots of `others`, and moves forward those that nobody streams through: a member streams from
    /// one place only, and elsewhere its slot follows what it is known to have flushed. How much log a slot may hold back
    /// is bounded by `max_slot_wal_keep_size`; a slot that has lost its log for that is made anew, because its member could
    /// not even stream what is still there.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn keep_slots(
        &self,
        others: &BTreeMap<NodeName, Option<Lsn>>,
        deadline: Duration,
    ) -> Result<(), SqlError> {
        if others.is_empty() {
            return Ok(());
        }
        self.member.control().text(&keep_statement(others), deadline).await.map(drop)
    }

    /// On a standby: lets the slot of its primary, through which nobody streams, hold back no more log than that needs as a
    /// former primary that was rewound: it starts from its last checkpoint that this server knows of, whose log begins where
    /// this one's last restart point does. Without this the slot would hold back all log since it was made, and a rewind
    /// from this server would copy it all.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn release_log_of_primary(
        &self,
        primary: &NodeName,
        deadline: Duration,
    ) -> Result<(), SqlError> {
        self.member.control().text(&release_statement(primary), deadline).await.map(drop)
    }

    /// Removes the slot of a member that was taken out of the database. Fine when there is none.
    ///
    /// # Errors
    /// When somebody streams through it.
    pub async fn drop_slot(&self, node: &NodeName, deadline: Duration) -> Result<(), SqlError> {
        let sql = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = '{}'",
            slot_name(node)
        );
        self.member.control().text(&sql, deadline).await.map(drop)
    }

    /// The slots of members that are none any more (not in `others`), by name.
    ///
    /// # Errors
    /// See [`SqlError`].
    pub async fn stray_slots(
        &self,
        others: &[NodeName],
        deadline: Duration,
    ) -> Result<Vec<String>, SqlError> {
        let slots = self.member.observer().observe(deadline).await?.slots;
        let known: Vec<String> = others.iter().map(slot_name).collect();
        let stray = slots.into_iter().map(|slot| slot.name);
        Ok(stray.filter(|name| name.starts_with(PREFIX) && !known.contains(name)).collect())
    }
}

fn release_statement(primary: &NodeName) -> String {
    format!(
        "SELECT pg_replication_slot_advance(slot_name, redo_lsn) FROM pg_replication_slots, pg_control_checkpoint()
           WHERE slot_name = '{}' AND NOT active AND pg_is_in_recovery() AND redo_lsn > restart_lsn",
        slot_name(primary)
    )
}

/// A slot is never moved beyond this server's own log, never backwards, and never while somebody streams through it.
fn keep_statement(others: &BTreeMap<NodeName, Option<Lsn>>) -> String {
    let rows: Vec<String> = others
        .iter()
        .map(|(node, flushed)| {
            let flushed = flushed.map_or("NULL".to_owned(), |lsn| format!("'{lsn}'"));
            format!("('{}', {flushed}::pg_lsn)", slot_name(node))
        })
        .collect();
    let rows = rows.join(", ");
    format!(
        "SELECT pg_drop_replication_slot(name) FROM (VALUES {rows}) AS w(name, flushed)
           JOIN pg_replication_slots ON slot_name = name WHERE NOT active AND wal_status = 'lost';
         SELECT pg_create_physical_replication_slot(name, true) FROM (VALUES {rows}) AS w(name, flushed)
           WHERE name NOT IN (SELECT slot_name FROM pg_replication_slots);
         SELECT pg_replication_slot_advance(name, least(flushed, own)) FROM (VALUES {rows}) AS w(name, flushed)
           JOIN pg_replication_slots ON slot_name = name,
           (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END AS own) AS o
           WHERE NOT active AND least(flushed, own) > restart_lsn AND flushed IS NOT NULL"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_has_its_own_slot_name() {
        assert_eq!(slot_name(&"w-1".into()), "mainstay_w_1");
        let names = [("a".into(), None), ("b".into(), Some(Lsn(0x300_0148)))].into();
        let statement = keep_statement(&names);
        assert!(
            statement.contains("('mainstay_a', NULL::pg_lsn), ('mainstay_b', '0/3000148'::pg_lsn)"),
            "{statement}"
        );
    }
}
