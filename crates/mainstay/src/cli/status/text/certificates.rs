//! Until when the certificates of routes count.

use jiff::Timestamp;

use crate::cli::columns::{Cell, listed};
use crate::cli::output::Look;
use crate::cli::status::certificates::{Certificate, Standing, length, now, of_route};
use crate::cli::status::view::View;

/// A row for each certificate of each route, those that are the same on several nodes together.
pub(super) fn rows(view: &View) -> Vec<Vec<Cell>> {
    let now = now();
    let mut rows = vec![];
    for route in view.system.routes.keys() {
        let mut different: Vec<(Certificate, Vec<String>)> = vec![];
        for one in of_route(view, route, now) {
            let node = one.node.to_string();
            match different.iter_mut().find(|(known, _)| known.report == one.report) {
                Some((_, nodes)) => nodes.push(node),
                None => different.push((one, vec![node])),
            }
        }
        for (one, nodes) in different {
            rows.push(vec![route.as_str().into(), listed(nodes).into(), until(&one, now)]);
        }
    }
    rows
}

fn until(certificate: &Certificate, now: i64) -> Cell {
    let Some(report) = &certificate.report else { return Cell::new(Look::Error, "there is none to show") };
    let day =
        Timestamp::from_second(report.ends).map_or("-".to_owned(), |at| at.strftime("%Y-%m-%d").to_string());
    match &certificate.standing {
        Standing::Good | Standing::WrongNames(_) => format!("{day}, in {}", length(report.ends - now)).into(),
        Standing::EndsSoon => Cell::new(Look::Warning, format!("{day}, in {}", length(report.ends - now))),
        Standing::TooEarly => Cell::new(Look::Error, format!("{day}, and does not count yet")),
        Standing::Over | Standing::Missing => {
            Cell::new(Look::Error, format!("{day}, {} ago", length(now - report.ends)))
        }
    }
}
