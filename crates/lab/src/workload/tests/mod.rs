//! Workloads on real PostgreSQL: what is right is valid, what is spoiled is caught.

mod careless;
mod postgres;
