//! The judge is judged: forged histories against the checker, real servers against client, prober and the whole drill.

mod checker;
mod client;
pub(crate) mod postgres;
mod run;
