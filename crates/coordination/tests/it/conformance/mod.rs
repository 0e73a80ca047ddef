//! One suite, three stores: what [`coordination::Coordinator`] promises holds for each of them.

mod cases;
pub(crate) mod etcd_server;
mod faults;
mod stores;

/// Makes one test of each case for a store.
macro_rules! conformance {
    ($store:ident: $($module:ident :: { $($case:ident),* $(,)? }),* $(,)?) => {
        mod $store {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    super::$module::$case(&super::stores::$store().await).await;
                }
            )*)*
        }
    };
}

conformance!(embedded_one: cases::{
    revisions_order_every_change, no_update_is_lost_in_a_race, a_watch_delivers_from_an_old_revision,
    a_watch_of_forgotten_history_says_so, a_lease_takes_its_keys_with_it, a_renewed_lease_lives,
    listing_takes_a_prefix_at_one_revision, what_is_too_large_is_refused, values_are_typed_at_the_edge,
    all_nodes_name_the_same_leader,
});
conformance!(embedded_three: cases::{
    revisions_order_every_change, no_update_is_lost_in_a_race, a_watch_delivers_from_an_old_revision,
    a_watch_of_forgotten_history_says_so, a_lease_takes_its_keys_with_it, a_renewed_lease_lives,
    listing_takes_a_prefix_at_one_revision, what_is_too_large_is_refused, values_are_typed_at_the_edge,
    all_nodes_name_the_same_leader,
}, faults::{
    a_watch_has_no_gap, outcomes_are_what_they_claim, a_lease_outlives_a_fault, the_unreachable_is_reported_in_time,
});
conformance!(etcd: cases::{
    revisions_order_every_change, no_update_is_lost_in_a_race, a_watch_delivers_from_an_old_revision,
    a_watch_of_forgotten_history_says_so, a_lease_takes_its_keys_with_it, a_renewed_lease_lives,
    listing_takes_a_prefix_at_one_revision, what_is_too_large_is_refused, values_are_typed_at_the_edge,
    all_nodes_name_the_same_leader,
}, faults::{
    a_watch_has_no_gap, outcomes_are_what_they_claim, a_lease_outlives_a_fault, the_unreachable_is_reported_in_time,
});
