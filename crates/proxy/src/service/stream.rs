//! Connections to services that speak something else than HTTP: passed on as they are (layer 4).

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::entrance::Entrance;
use super::route::{Chosen, Destination, Flight, ServiceRoute, Visit};
use super::upstream;
use crate::clock;
use crate::core::proxy_header;
use crate::core::service::{Failure, Wish};
use crate::{farewell, preamble, socket, splice};

/// The most instances that one connection is tried on.
const TRIED_MOST: usize = 3;

/// An instance that has taken the connection.
struct Joined {
    flight: Flight,
    stream: TcpStream,
    gone: watch::Receiver<bool>,
}

/// Serves a connection to its end. `_room` keeps its place among the proxy's connections.
pub(super) async fn serve(
    mut client: TcpStream,
    peer: SocketAddr,
    entrance: Arc<Entrance>,
    _room: OwnedSemaphorePermit,
) {
    socket::prepare(&client);
    let place = entrance.house().guests.enter();
    let door = entrance.door();
    let Some(route) = door.only().cloned() else { return };
    let from = tokio::select! {
        from = preamble::origin(&mut client, peer, door.is_balancer(peer.ip()), door.limits.header_timeout) => from,
        () = place.evicted() => None,
    };
    let Some(from) = from else { return farewell::reset([client]) };
    route.request();
    // A connection may be silent for as long as it likes; it never makes room for others.
    let _busy = place.busy();
    let visit = Visit::new(&door, from, false, entrance, place);
    drop(door);
    // Boxed: few bytes stay with a connection once it is under way.
    match Box::pin(find(&route, &client, from)).await {
        Some(joined) => carry(client, joined, &visit).await,
        None => {
            route.count_failed();
            farewell::reset([client]);
        }
    }
}

/// Finds an instance that takes the connection and does not break it before anything was said.
async fn find(route: &Arc<ServiceRoute>, client: &TcpStream, from: SocketAddr) -> Option<Joined> {
    let mut tried = Vec::new();
    while tried.len() < TRIED_MOST {
        let wish = Wish { avoid: &tried, repeatable: true, stay: None, first: false };
        let Chosen::Instance(destination) = route.choose(&wish) else { return None };
        let Destination { flight, upstream, deadline: _ } = destination;
        let (key, begun) = (flight.key, clock::now());
        tried.push(key);
        let failure = match upstream.open().await {
            Ok((mut stream, gone)) => match begin(route, client, &mut stream, from).await {
                Ok(()) => {
                    route.succeeded(key, clock::now().since(begun));
                    return Some(Joined { flight: flight.into_tunnel(), stream, gone });
                }
                Err(failure) => failure,
            },
            Err(error) => {
                tracing::debug!(%error, "an instance takes no connection");
                Failure::Unreachable
            }
        };
        route.failed(key, failure);
    }
    None
}

/// Tells the instance who comes, if it wants to know, and waits until one side says something.
async fn begin(
    route: &ServiceRoute,
    client: &TcpStream,
    instance: &mut TcpStream,
    from: SocketAddr,
) -> Result<(), Failure> {
    if route.sends_proxy_protocol() {
        let to = client.local_addr().map_err(|_| Failure::Broken)?;
        instance.write_all(&proxy_header::write(from, to)).await.map_err(|_| Failure::Broken)?;
    }
    let (mut byte, mut other) = ([0], [0]);
    tokio::select! {
        biased;
        said = instance.peek(&mut byte) => match said {
            Ok(1..) => Ok(()),
            Ok(0) | Err(_) => Err(Failure::Broken),
        },
        // Whatever it is: from here on the connection is this instance's. (Peeked, because readiness alone may be false.)
        _ = client.peek(&mut other) => Ok(()),
    }
}

async fn carry(client: TcpStream, joined: Joined, visit: &Visit) {
    let Joined { flight, stream, mut gone } = joined;
    let outcome = tokio::select! {
        outcome = splice::join(&client, &stream) => outcome,
        () = upstream::until(&mut gone) => Err(io::Error::other("the instance is gone")),
        () = visit.entrance.shut() => Err(io::Error::other("the route was removed")),
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke");
        farewell::reset([client, stream]);
    }
    drop(flight);
}
