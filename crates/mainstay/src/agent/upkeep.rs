//! What operators ask for beyond the file: checked against what is known, then agreed on.

use coordination::{JsonCoordinator, Revision, TxnOutcome};
use model::system::System;
use model::upkeep::{Upkeep, UpkeepChange};
use model::{DatabaseName, NodeName, ServiceName};
use transport::RpcPool;

use super::store::{UPKEEP, WITHIN};
use super::{Shared, api};
use crate::api::{Refused, Reply};

/// How often a change is tried anew when another one was committed first.
const TRIES: u32 = 5;

/// Makes the change, once it is sure that it can be done.
pub(super) async fn change(shared: &Shared, rpc: &RpcPool, change: &UpkeepChange) -> Reply {
    if let UpkeepChange::Drain { node, .. } = change {
        for database in led_by(shared, node).await {
            api::flush(shared, rpc, &database).await;
        }
    }
    let system = shared.system.borrow().clone();
    for _ in 0..TRIES {
        match try_change(shared, &system, change).await {
            Ok(Some(sentence)) => return Reply::Done(sentence),
            Ok(None) => {}
            Err(refused) => return Reply::Refused(refused),
        }
    }
    Reply::refused("others changed it at the same moment", "try again")
}

/// One attempt; `None` when another change came first.
async fn try_change(
    shared: &Shared,
    system: &System,
    change: &UpkeepChange,
) -> Result<Option<String>, Refused> {
    let stored = shared.store.coordinator.get_json::<Upkeep>(UPKEEP, WITHIN).await;
    let (mut upkeep, revision) = stored.map_err(unreachable)?.unwrap_or((Upkeep::default(), Revision(0)));
    let sentence = alter(&mut upkeep, system, change)?;
    let outcome = shared.store.coordinator.compare_and_set_json(UPKEEP, revision, &upkeep, WITHIN).await;
    match outcome.map_err(unreachable)? {
        TxnOutcome::Committed(_) => Ok(Some(sentence)),
        TxnOutcome::Conflict { .. } => Ok(None),
    }
}

fn unreachable(error: coordination::Error) -> Refused {
    refused(error.to_string(), "try again when a majority of the voters answers")
}

fn refused(because: impl Into<String>, hint: impl Into<String>) -> Refused {
    Refused { because: because.into(), hint: hint.into() }
}

/// The databases whose primary is on `node`.
async fn led_by(shared: &Shared, node: &NodeName) -> Vec<DatabaseName> {
    let node = node.clone();
    let of = move |agent: &decide::agent::Agent| {
        let leads = |name: &&DatabaseName| {
            agent.record(name).is_some_and(|record| record.value.primary() == Some(&node))
        };
        agent.system().databases.keys().filter(leads).cloned().collect()
    };
    shared.inputs.ask(of).await.unwrap_or_default()
}

/// Changes what operators have asked for; says so in one sentence.
fn alter(upkeep: &mut Upkeep, system: &System, change: &UpkeepChange) -> Result<String, Refused> {
    match change {
        UpkeepChange::Drain { node, reason } => drain(upkeep, system, node, reason),
        UpkeepChange::Undrain { node } => match upkeep.drained.remove(node) {
            Some(_) => Ok(format!("{node} is used again")),
            None => Err(refused(format!("{node} is not drained"), "`mainstay status` shows which nodes are")),
        },
        UpkeepChange::Scale { service, instances } => scale(upkeep, system, service, *instances),
    }
}

fn drain(upkeep: &mut Upkeep, system: &System, node: &NodeName, reason: &str) -> Result<String, Refused> {
    if !system.nodes.contains_key(node) {
        let nodes: Vec<&str> = system.nodes.keys().map(NodeName::as_str).collect();
        return Err(refused(format!("there is no node {node}"), format!("nodes are: {}", nodes.join(", "))));
    }
    if system.is_witness(node) {
        return Err(refused(
            format!("{node} only votes, so there is nothing to drain"),
            "stop its agent when you need to; the other voters go on",
        ));
    }
    let left = |other: &&NodeName| *other != node && !upkeep.is_drained(other);
    if system.workers().map(|(name, _)| name).filter(left).count() == 0 {
        return Err(refused(
            format!("{node} is the last node that is not drained"),
            "`mainstay undrain` another node first",
        ));
    }
    upkeep.drained.insert(node.clone(), reason.to_owned());
    Ok(format!("{node} is being emptied: {reason}"))
}

fn scale(
    upkeep: &mut Upkeep,
    system: &System,
    service: &ServiceName,
    instances: Option<u32>,
) -> Result<String, Refused> {
    let Some(config) = system.services.get(service) else {
        let services: Vec<&str> = system.services.keys().map(ServiceName::as_str).collect();
        let hint = match services.is_empty() {
            true => "the system file has no services".to_owned(),
            false => format!("services are: {}", services.join(", ")),
        };
        return Err(refused(format!("there is no service {service}"), hint));
    };
    if config.is_external() {
        return Err(refused(
            format!("others run {service}: it has addresses instead of instances"),
            format!("change `services.{service}.addresses` in the system file"),
        ));
    }
    // Where the number follows the load, the file's own is an order too.
    let Some(wanted) = instances.filter(|wanted| *wanted != config.instances || config.scale.is_some())
    else {
        upkeep.scaled.remove(service);
        let count = config.instances;
        if let Some(scale) = &config.scale {
            return Ok(format!("{service} follows its load again, in {count} to {} instances", scale.max));
        }
        return Ok(format!("{service} runs in {count} instances, as the file says"));
    };
    if wanted == 0 {
        return Err(refused(
            "a service runs in at least 1 instance",
            "remove it from the system file to end it",
        ));
    }
    let ports = config.ports.count();
    if wanted > ports {
        return Err(refused(
            format!("{service} has {ports} ports, too few for {wanted} instances on one node"),
            format!("give `services.{service}.ports` a larger range"),
        ));
    }
    upkeep.scaled.insert(service.clone(), wanted);
    if config.scale.is_some() {
        return Ok(format!("{service} runs in {wanted} instances, whatever its load"));
    }
    Ok(format!("{service} runs in {wanted} instances instead of the file's {}", config.instances))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system() -> System {
        let text = "[system]\nname = \"x\"\n[nodes.a]\naddress = \"10.0.0.1\"\n[nodes.b]\naddress = \"10.0.0.2\"\n\
                    [nodes.c]\naddress = \"10.0.0.3\"\n[services.web]\ncommand = [\"./web\"]\ninstances = 2\n\
                    ports = \"20000-20004\"\n";
        model::system::parse("x.toml", text.as_bytes()).unwrap().system
    }

    fn asked(upkeep: &mut Upkeep, change: UpkeepChange) -> Result<String, String> {
        alter(upkeep, &system(), &change).map_err(|refused| refused.because)
    }

    fn drain_of(node: &str) -> UpkeepChange {
        UpkeepChange::Drain { node: node.into(), reason: "new disk".to_owned() }
    }

    #[test]
    fn the_last_node_is_not_drained_and_an_unknown_one_is_named() {
        let mut upkeep = Upkeep::default();
        assert_eq!(asked(&mut upkeep, drain_of("d")).unwrap_err(), "there is no node d");
        assert_eq!(asked(&mut upkeep, drain_of("a")).unwrap(), "a is being emptied: new disk");
        asked(&mut upkeep, drain_of("b")).unwrap();
        assert_eq!(asked(&mut upkeep, drain_of("c")).unwrap_err(), "c is the last node that is not drained");
        assert_eq!(
            asked(&mut upkeep, UpkeepChange::Undrain { node: "a".into() }).unwrap(),
            "a is used again"
        );
        assert!(asked(&mut upkeep, UpkeepChange::Undrain { node: "a".into() }).is_err());
        assert_eq!(upkeep.drained_nodes(), ["b".into()].into());
    }

    #[test]
    fn a_service_is_scaled_within_its_ports_and_back_to_the_file() {
        let mut upkeep = Upkeep::default();
        let to = |instances| UpkeepChange::Scale { service: "web".into(), instances };
        asked(&mut upkeep, to(Some(5))).unwrap();
        assert_eq!(upkeep.instances(&"web".into(), 2), 5);
        assert!(asked(&mut upkeep, to(Some(6))).unwrap_err().contains("5 ports"));
        assert!(asked(&mut upkeep, to(Some(0))).is_err());
        asked(&mut upkeep, to(Some(2))).unwrap();
        assert!(upkeep.scaled.is_empty(), "the file's own number needs no note");
        asked(&mut upkeep, to(Some(1))).unwrap();
        asked(&mut upkeep, to(None)).unwrap();
        assert!(upkeep.scaled.is_empty());
    }
}
