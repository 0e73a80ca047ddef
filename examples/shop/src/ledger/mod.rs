//! Orders and the double-entry ledger, in SQL.

mod audit;
mod facts;
mod order;
mod read;

pub(crate) use audit::audit;
pub(crate) use facts::{Member, Pace, Totals, member, pace, totals};
pub(crate) use order::{NewOrder, OrderError, book};
pub(crate) use read::{Listing, Order, Product, orders, products};
