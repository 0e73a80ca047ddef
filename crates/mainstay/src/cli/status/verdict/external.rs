//! What is wrong with services that others run, as far as it can be seen from here.

use model::ServiceName;

use super::troubles::trouble;
use super::{Level, Trouble};
use crate::cli::columns::listed;
use crate::cli::status::view::View;

/// Addresses that do not answer some proxy as they should.
pub(super) fn trouble_of(view: &View, name: &ServiceName) -> Option<Trouble> {
    let all = view.external(name);
    let bad: Vec<_> = all.iter().filter(|external| !external.bad().0.is_empty()).collect();
    if bad.is_empty() {
        return None;
    }
    let serves = all.iter().any(|external| external.serves());
    let mut what = match serves {
        true => format!(
            "{} of {} addresses of {name} do not answer everybody as they should",
            bad.len(),
            all.len()
        ),
        false => format!("no address of {name} answers as it should"),
    };
    what += &format!(
        ": {}",
        listed(bad.iter().map(|external| format!(
            "{} {}",
            external.address,
            external.bad().1.unwrap_or_default()
        )))
    );
    let doing = match serves {
        true => "the others take the requests, and every proxy goes on asking",
        false => "every proxy goes on asking, and sends requests there all the same",
    };
    let unblock = format!(
        "nobody here supervises {name}: mend what runs there, or take it out of `services.{name}.addresses`"
    );
    let level = if serves { Level::Degraded } else { Level::Down };
    Some(trouble(level, format!("service/{name}"), what).doing(Some(doing)).unblock(Some(unblock)))
}
