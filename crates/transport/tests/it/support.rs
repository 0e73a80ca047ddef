//! A system of nodes on loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use model::{NodeName, SystemName};
use tempfile::TempDir;
use transport::{
    Accepted, Authority, Connection, Credentials, DialError, Identity, Listener, StreamKind, dial,
};

pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

pub(crate) struct World {
    pub(crate) authority: Authority,
    pub(crate) dir: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(&dir.path().join("authority"), &SystemName::from("shop")).unwrap();
        Self { authority, dir }
    }

    pub(crate) fn credentials(&self, node: &str) -> Credentials {
        self.authority.issue(&NodeName::from(node), &[Ipv4Addr::LOCALHOST.into()]).unwrap()
    }

    pub(crate) fn identity(&self, node: &str) -> Identity {
        Identity::from_credentials(self.credentials(node)).unwrap()
    }

    pub(crate) fn listener(&self, node: &str) -> Listener {
        Listener::bind(any_port(), &self.identity(node)).unwrap()
    }
}

pub(crate) fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

pub(crate) async fn dial_as(
    identity: &Identity,
    listener: &Listener,
    expected: &str,
    kind: StreamKind,
) -> Result<Connection, DialError> {
    dial(listener.local_addr(), &NodeName::from(expected), kind, identity, DEADLINE, None).await
}

/// Both ends of a connection from `w1` to `e1`.
pub(crate) async fn pair(world: &World, kind: StreamKind) -> (Connection, Accepted, Listener) {
    let mut listener = world.listener("e1");
    let dialled = dial_as(&world.identity("w1"), &listener, "e1", kind).await.unwrap();
    let accepted = listener.accept().await;
    (dialled, accepted, listener)
}

/// The next connection, or a failed test.
pub(crate) async fn accept(listener: &mut Listener) -> Accepted {
    tokio::time::timeout(DEADLINE, listener.accept()).await.expect("no connection was accepted")
}

/// Asserts that nobody was let in.
pub(crate) async fn assert_nobody(listener: &mut Listener) {
    let let_in = tokio::time::timeout(Duration::from_millis(100), listener.accept()).await;
    assert!(let_in.is_err(), "{let_in:?} was let in");
}
