//! Where requests of a service can go: instances that a supervisor knows, and addresses that none does.

use std::net::SocketAddr;

use model::SiteName;
use model::routes::{InstanceRouteState, ServiceTarget};

/// One destination of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name: `web-2@e1`, or the address of one that nobody supervises.
    pub id: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// The site it stands in; `None`: it is as near to all.
    pub site: Option<SiteName>,
    /// Its weight in the file.
    pub weight: u32,
    /// What its supervisor knows. Of an address nobody knows anything beforehand.
    pub state: InstanceRouteState,
}

impl Endpoint {
    /// Every destination of a route.
    pub fn all(target: &ServiceTarget) -> impl Iterator<Item = Self> {
        let instances = target.instances.iter().map(|instance| Self {
            id: instance.id.clone(),
            address: instance.address,
            site: Some(instance.site.clone()),
            weight: target.traffic.weight(&instance.node),
            state: instance.state,
        });
        let addresses = target.external.iter().flat_map(|external| &external.addresses);
        instances.chain(addresses.map(|external| Self {
            id: external.address.to_string(),
            address: external.address,
            site: external.site.clone(),
            weight: 1,
            state: InstanceRouteState::Ready,
        }))
    }
}
