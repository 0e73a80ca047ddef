//! PostgreSQL as the shop sees it: a few connections, retries, a schema.

mod fault;
mod pool;
mod schema;

pub(crate) use fault::Fault;
pub(crate) use pool::Pool;
pub(crate) use schema::Schema;
