//! The behaviour that both back ends promise, and what the embedded one promises besides.

// A test that cannot go on shall panic, in its helpers too.
#![allow(clippy::unwrap_used)]

mod clients;
mod conformance;
mod durability;
mod etcd;
mod failover;
mod figures;
mod group;
mod leases;
mod linearizable;
mod medium;
mod membership;
mod network;
mod referee;
mod slow;
mod storm;
mod voters;
