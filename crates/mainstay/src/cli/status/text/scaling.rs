//! How many instances of services run by load, or by an operator's word, and why.

use model::ServiceName;

use crate::cli::columns::Cell;
use crate::cli::status::view::View;

/// A row for each service of which another number runs than the file alone says.
pub(super) fn rows(view: &View) -> Vec<Vec<Cell>> {
    view.system.services.keys().filter_map(|name| row(view, name)).collect()
}

fn row(view: &View, name: &ServiceName) -> Option<Vec<Cell>> {
    let config = view.system.services.get(name)?;
    let by_hand = view.overview.upkeep.scaled.contains_key(name);
    let released = view.overview.releases.get(name).is_some_and(|service| service.rollout.is_some());
    let because = match (&config.scale, view.overview.scaled.get(name)) {
        (None, _) if !by_hand => return None,
        _ if by_hand => format!("by an operator's word, until `mainstay scale {name} --undo`"),
        _ if released => "does not change while a release is on its way".to_owned(),
        (_, Some(scaled)) => scaled.because.clone(),
        (_, None) => "the leader has not said yet what the load needs".to_owned(),
    };
    let bounds = config.scale.as_ref().map(|scale| format!("{} to {}", config.instances, scale.max));
    let (placed, ready) = (view.instances(name).len(), view.ready(name).len());
    Some(vec![
        name.as_str().into(),
        view.wanted(name).to_string().into(),
        format!("{placed}, {ready} ready").into(),
        bounds.unwrap_or_else(|| config.instances.to_string()).into(),
        because.into(),
    ])
}

#[cfg(test)]
mod tests {
    use decide::agent::Scaled;
    use decide::scale::Load;

    use super::*;
    use crate::cli::columns::section;
    use crate::cli::output::{Color, Output};
    use crate::cli::testkit::{described, healthy, view};

    const FILE: &str = "[system]\nname = \"shop\"\n[nodes.a]\naddress = \"10.0.0.1\"\n[services.api]\n\
        command = [\"./api\", \"{port}\"]\ninstances = 2\nscale = { max = 6, requests = 10 }\n[services.web]\n\
        command = [\"./web\", \"{port}\"]\ninstances = 3\n[routes.api]\nlisten = \":8080\"\nservice = \"api\"\n";

    #[test]
    fn the_status_says_how_many_are_wanted_and_why() {
        let system = described(FILE);
        let told = |change: &dyn Fn(&mut decide::agent::Overview)| {
            let mut overview = healthy(&system, "a");
            change(&mut overview);
            let view = view(system.clone(), [overview]);
            section(
                "Scaling",
                &["service", "wanted", "placed", "in the file", "why"],
                &rows(&view),
                Output::new(Color::Never),
            )
        };
        let by_load = told(&|overview| {
            let because = "31.0 requests are under way, more than 10 for each of 2 instances".to_owned();
            let scaled = Scaled { wanted: 4, load: Load(31_000), because };
            overview.scaled.insert("api".into(), scaled);
        });
        let by_hand = told(&|overview| {
            overview.upkeep.scaled.insert("api".into(), 3);
            overview.upkeep.scaled.insert("web".into(), 4);
        });
        let unknown = told(&|_| {});
        insta::assert_snapshot!(format!("{by_load}{by_hand}{unknown}"));
    }
}
