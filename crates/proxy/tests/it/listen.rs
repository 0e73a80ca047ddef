//! Listeners under supervision.

use model::routes::{DatabaseRouteState, Route};
use tokio::net::TcpStream;

use crate::agent::{Proxy, database_route, endpoint, free_address, open};
use crate::postgres::{Postgres, connect};

#[tokio::test]
async fn an_address_in_use_is_reported_by_name_and_opened_when_it_is_free() {
    let (server, proxy) = (Postgres::start().await, Proxy::start());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = taken.local_addr().unwrap();
    let mut agent = proxy.agent().await;
    let errors = agent.apply(1, open(listen, &[endpoint("e1", server.address, 1)])).await;
    assert_eq!(errors, [format!("orders-rw {listen}: Address already in use (os error 98)")]);
    drop(taken);
    assert_eq!(agent.applied(1).await, [""; 0], "the agent hears that it listens now");
    connect(listen).await.unwrap();
}

#[tokio::test]
async fn a_listen_address_changes_without_touching_sessions() {
    let (server, proxy) = (Postgres::start().await, Proxy::start());
    let (old, new) = (free_address(), free_address());
    let mut agent = proxy.agent().await;
    let member = endpoint("e1", server.address, 1);
    agent.apply(1, open(old, std::slice::from_ref(&member))).await;
    let client = connect(old).await.unwrap();
    assert_eq!(agent.apply(2, open(new, std::slice::from_ref(&member))).await, [""; 0]);
    client.query_one("select 1", &[]).await.expect("a session is not bound to the address it came by");
    connect(new).await.expect("the new address answers");
    TcpStream::connect(old).await.expect_err("the old one does not");
}

#[tokio::test]
async fn a_wildcard_gives_way_to_a_single_address_on_the_same_port() {
    let (server, proxy) = (Postgres::start().await, Proxy::start());
    let single = free_address();
    let wildcard = ([0, 0, 0, 0], single.port()).into();
    let mut agent = proxy.agent().await;
    let member = endpoint("e1", server.address, 1);
    agent.apply(1, open(wildcard, std::slice::from_ref(&member))).await;
    assert_eq!(agent.apply(2, open(single, std::slice::from_ref(&member))).await, [""; 0]);
    connect(single).await.unwrap();
}

#[tokio::test]
async fn two_routes_that_claim_one_address_are_told_apart() {
    let proxy = Proxy::start();
    let listen = free_address();
    let mut agent = proxy.agent().await;
    let closed = |name: &str| Route {
        name: name.into(),
        ..database_route(listen, DatabaseRouteState::Parked { because: String::new() })
    };
    let errors = agent.apply(1, vec![closed("one"), closed("two")]).await;
    assert_eq!(errors, [format!("two {listen}: route one listens there already")]);
}

#[tokio::test]
async fn every_agent_hears_of_a_table_and_the_older_one_is_refused() {
    let proxy = Proxy::start();
    let (mut old, mut new) = (proxy.agent().await, proxy.agent().await);
    new.apply(5, vec![]).await;
    old.applied(5).await;
    old.say(&model::routes::ToProxy::Table(model::routes::RouteTable {
        generation: 4,
        ..Default::default()
    }))
    .await;
    assert_eq!(old.refused().await, (4, 5));
}
