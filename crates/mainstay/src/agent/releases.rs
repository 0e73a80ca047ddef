//! What operators ask of releases: checked against what is known, then agreed on. The leader carries it through.

use std::collections::BTreeMap;

use coordination::{JsonCoordinator, Revision, TxnOutcome};
use decide::release::steps;
use model::ServiceName;
use model::release::{Phase, Release, Releases, Rollout, Service, Strategy};
use model::system::System;

use super::store::{RELEASES, WITHIN};
use super::{Shared, artefacts};
use crate::api::{Refused, ReleaseOrder, Reply};

/// How often a change is tried anew when another one was committed first.
const TRIES: u32 = 5;

/// How long a release that is gone back to is watched, in milliseconds: it has served before.
const BACK_BAKE_MS: u64 = 2_000;

/// How long its instances may take to become ready, in milliseconds.
const BACK_READY_MS: u64 = 60_000;

/// Begins a release.
pub(super) async fn begin(shared: &Shared, service: &ServiceName, order: &ReleaseOrder) -> Reply {
    if artefacts::directory(&shared.places, &order.digest).is_none() {
        return Reply::refused(
            format!("the artefact {} is not on {}", order.digest.short(), shared.me),
            "send it again: `mainstay release` does both",
        );
    }
    let system = shared.system.borrow().clone();
    let at_us = effects::clock::wall_us();
    let (service, order) = (service.clone(), order.clone());
    changed(shared, move |releases, instances| ordered(releases, &system, &service, &order, at_us, instances))
        .await
}

/// Takes the release on its way back, or goes back to the one before.
pub(super) async fn roll_back(shared: &Shared, service: &ServiceName) -> Reply {
    let system = shared.system.borrow().clone();
    let (service, at_us) = (service.clone(), effects::clock::wall_us());
    changed(shared, move |releases, instances| back(releases, &system, &service, at_us, instances)).await
}

type Change = Result<String, Refused>;

async fn changed(
    shared: &Shared,
    change: impl Fn(&mut Releases, &dyn Fn(&ServiceName, u32) -> u32) -> Change,
) -> Reply {
    let now = |agent: &decide::agent::Agent| -> BTreeMap<ServiceName, u32> {
        agent.system().services.keys().map(|name| (name.clone(), agent.instances_of(name))).collect()
    };
    let counts = shared.inputs.ask(now).await.unwrap_or_default();
    let instances = |service: &ServiceName, written| counts.get(service).copied().unwrap_or(written);
    for _ in 0..TRIES {
        let stored = shared.store.coordinator.get_json::<Releases>(RELEASES, WITHIN).await;
        let (mut releases, revision) = match stored {
            Ok(stored) => stored.unwrap_or((Releases::new(), Revision(0))),
            Err(error) => return unreachable(&error),
        };
        let sentence = match change(&mut releases, &instances) {
            Ok(sentence) => sentence,
            Err(refused) => return Reply::Refused(refused),
        };
        let outcome =
            shared.store.coordinator.compare_and_set_json(RELEASES, revision, &releases, WITHIN).await;
        match outcome {
            Ok(TxnOutcome::Committed(_)) => return Reply::Done(sentence),
            Ok(TxnOutcome::Conflict { .. }) => {}
            Err(error) => return unreachable(&error),
        }
    }
    Reply::refused("others changed it at the same moment", "try again")
}

fn unreachable(error: &coordination::Error) -> Reply {
    Reply::refused(error.to_string(), "try again when a majority of the voters answers")
}

fn refused(because: impl Into<String>, hint: impl Into<String>) -> Refused {
    Refused { because: because.into(), hint: hint.into() }
}

fn known<'s>(system: &'s System, service: &ServiceName) -> Result<&'s model::system::Service, Refused> {
    system.services.get(service).ok_or_else(|| {
        let services: Vec<&str> = system.services.keys().map(ServiceName::as_str).collect();
        refused(format!("there is no service {service}"), format!("services are: {}", services.join(", ")))
    })
}

fn ordered(
    releases: &mut Releases,
    system: &System,
    name: &ServiceName,
    order: &ReleaseOrder,
    at_us: i64,
    instances: &dyn Fn(&ServiceName, u32) -> u32,
) -> Change {
    let config = known(system, name)?;
    if config.is_external() {
        return Err(refused(
            format!("others run {name}: it has addresses instead of instances"),
            "release it where it runs",
        ));
    }
    if let Some(image) = &config.image {
        return Err(refused(
            format!("{name} runs from the image {image}, not from an artefact"),
            format!(
                "name another one in `services.{name}.image` and apply that: instances are replaced one after another"
            ),
        ));
    }
    if !config.needs_release() {
        return Err(refused(
            format!(
                "neither the command nor the environment of {name} names {{release}}: every release would run the same"
            ),
            "put it into the system file, for example command = [\"{release}/bin/app\"], and apply that first",
        ));
    }
    let service = releases.entry(name.clone()).or_default();
    if let Some(rollout) = &service.rollout {
        return Err(refused(
            format!("release {} of {name} is on its way", rollout.release.number),
            format!("wait for its end, or take it back: mainstay release rollback {name}"),
        ));
    }
    if let Some(current) = service.current.as_ref().filter(|current| current.digest == order.digest) {
        return Err(refused(
            format!("release {} of {name} runs from the same artefact", current.number),
            format!("`mainstay restart {name}` starts its instances anew"),
        ));
    }
    let count = instances(name, config.instances);
    has_room(config, system, name, order, count)?;
    let number = service.next_number();
    let release =
        Release { number, digest: order.digest.clone(), size: order.size, from: order.from.clone(), at_us };
    service.rollout = Some(Rollout {
        release,
        strategy: order.strategy.clone(),
        bake_ms: order.bake_ms,
        ready_within_ms: order.ready_within_ms,
        sample: order.sample,
        instances: config.scale.as_ref().map(|_| count),
        before: config.release.before.clone(),
        phase: Phase::Staging,
        because: "an operator asked for it".to_owned(),
    });
    Ok(format!("release {number} of {name} begins"))
}

/// Whether old and new instances have a port each, side by side.
fn has_room(
    config: &model::system::Service,
    system: &System,
    name: &ServiceName,
    order: &ReleaseOrder,
    instances: u32,
) -> Result<(), Refused> {
    let most = steps(&order.strategy, instances).iter().map(|step| step.new + step.old).max().unwrap_or(0);
    let nodes = u32::try_from(system.nodes_for(config).len()).unwrap_or(u32::MAX);
    let places = config.ports.count().saturating_mul(nodes);
    if places >= most {
        return Ok(());
    }
    Err(refused(
        format!("{most} instances of {name} run side by side for a while, and there are only {places} ports"),
        format!("give `services.{name}.ports` a larger range"),
    ))
}

fn back(
    releases: &mut Releases,
    system: &System,
    name: &ServiceName,
    at_us: i64,
    instances: &dyn Fn(&ServiceName, u32) -> u32,
) -> Change {
    let config = known(system, name)?;
    let nothing = || {
        refused(format!("{name} has no release to go back to"), format!("mainstay release history {name}"))
    };
    let service: &mut Service = releases.get_mut(name).ok_or_else(nothing)?;
    if let Some(rollout) = &mut service.rollout {
        let number = rollout.release.number;
        let runs = rollout.before.as_ref().filter(|_| rollout.phase == Phase::Before);
        let goes_on = runs.map(|job| format!("; a run of {job} that has begun goes on to its end"));
        rollout.phase = Phase::RollingBack;
        rollout.because = "an operator took it back".to_owned();
        return Ok(format!("release {number} of {name} is taken back{}", goes_on.unwrap_or_default()));
    }
    let previous = service.previous().cloned().ok_or_else(nothing)?;
    let (number, of) = (service.next_number(), previous.number);
    service.rollout = Some(Rollout {
        release: Release { number, at_us, from: format!("release {of}"), ..previous },
        strategy: Strategy::BlueGreen,
        bake_ms: BACK_BAKE_MS,
        ready_within_ms: BACK_READY_MS,
        sample: 100,
        instances: config.scale.as_ref().map(|_| instances(name, config.instances)),
        // What served before needs nothing: its run is long over.
        before: None,
        phase: Phase::Staging,
        because: format!("an operator goes back to release {of}"),
    });
    Ok(format!("{name} goes back to release {of}, as release {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::release::Digest;

    fn system(command: &str) -> System {
        let text = format!(
            "[system]\nname = \"x\"\n[nodes.a]\naddress = \"10.0.0.1\"\n[services.web]\ncommand = [\"{command}\"]\n\
             instances = 2\nports = \"20000-20002\"\n"
        );
        model::system::parse("x.toml", text.as_bytes()).unwrap().system
    }

    fn order(artefact: u64, strategy: Strategy) -> ReleaseOrder {
        let digest = Digest::try_from(format!("{artefact:064}")).unwrap();
        ReleaseOrder {
            digest,
            size: 9,
            from: "./x".to_owned(),
            strategy,
            bake_ms: 0,
            ready_within_ms: 1,
            sample: 1,
        }
    }

    fn asked(releases: &mut Releases, order: &ReleaseOrder) -> Result<String, String> {
        let written = |_: &ServiceName, written| written;
        let done = ordered(releases, &system("{release}/web"), &"web".into(), order, 1, &written);
        done.map_err(|refused| refused.because)
    }

    fn serve(releases: &mut Releases) {
        releases.get_mut("web").unwrap().completed();
    }

    #[test]
    fn what_cannot_work_is_refused_before_anything_changes() {
        let mut releases = Releases::new();
        let rolling = order(1, Strategy::Rolling);
        let plain =
            ordered(&mut releases, &system("/bin/web"), &"web".into(), &rolling, 1, &|_, written| written);
        assert!(plain.unwrap_err().because.contains("{release}"));
        let green = asked(&mut releases, &order(1, Strategy::BlueGreen)).unwrap_err();
        assert!(green.contains("4 instances of web run side by side"), "{green}");
        assert_eq!(asked(&mut releases, &rolling).unwrap(), "release 1 of web begins");
        assert_eq!(
            asked(&mut releases, &order(2, Strategy::Rolling)).unwrap_err(),
            "release 1 of web is on its way"
        );
        serve(&mut releases);
        assert!(asked(&mut releases, &rolling).unwrap_err().contains("same artefact"));
    }

    #[test]
    fn going_back_takes_back_what_is_on_its_way_or_returns_to_the_one_before() {
        let mut releases = Releases::new();
        let system = system("{release}/web");
        let go_back = |releases: &mut Releases| {
            back(releases, &system, &"web".into(), 2, &|_, written| written).map_err(|r| r.because)
        };
        assert!(go_back(&mut releases).is_err());
        asked(&mut releases, &order(1, Strategy::Rolling)).unwrap();
        assert_eq!(go_back(&mut releases).unwrap(), "release 1 of web is taken back");
        serve(&mut releases);
        assert_eq!(go_back(&mut releases).unwrap_err(), "web has no release to go back to");
        asked(&mut releases, &order(2, Strategy::Rolling)).unwrap();
        serve(&mut releases);
        assert_eq!(go_back(&mut releases).unwrap(), "web goes back to release 1, as release 3");
    }
}
