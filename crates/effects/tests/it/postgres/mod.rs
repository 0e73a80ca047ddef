//! A member against real PostgreSQL servers. Needs PostgreSQL 13 to 18, which `make setup` installs; as root also the
//! operating-system user `postgres`.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used)]

mod cluster;
mod damage;
mod failover;
mod founding;
mod leftovers;
mod rejoin;
mod settings;
mod sync_set;
