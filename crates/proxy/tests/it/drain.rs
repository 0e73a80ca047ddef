//! Draining for a switchover.

use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};
use tokio_postgres::NoTls;
use tokio_postgres::error::SqlState;

use crate::agent::{Agent, LONG, Proxy, draining, endpoint, free_address, open};
use crate::postgres::{Postgres, connect};

struct Stage {
    server: Postgres,
    listen: std::net::SocketAddr,
    agent: Agent,
    _proxy: Proxy,
}

async fn stage() -> Stage {
    let (server, proxy, listen) = (Postgres::start().await, Proxy::start(), free_address());
    let mut agent = proxy.agent().await;
    agent.apply(1, open(listen, &[endpoint("e1", server.address, 1)])).await;
    Stage { server, listen, agent, _proxy: proxy }
}

#[tokio::test]
async fn idle_sessions_leave_with_a_word_and_transactions_finish() {
    let Stage { server, listen, mut agent, _proxy } = stage().await;
    let settings = format!("host=127.0.0.1 port={} user=postgres", listen.port());
    let (_idle, idle_connection) = tokio_postgres::connect(&settings, NoTls).await.unwrap();
    let idle_end = tokio::spawn(async move { (idle_connection.await, Instant::now()) });
    let mut busy = connect(listen).await.unwrap();
    busy.execute("create table ledger (amount int)", &[]).await.unwrap();
    let transaction = busy.transaction().await.unwrap();
    transaction.execute("insert into ledger values (1)", &[]).await.unwrap();

    let begin = Instant::now();
    agent.apply(2, draining(listen, &[endpoint("e1", server.address, 1)], 20_000)).await;
    let (outcome, when) = timeout(LONG, idle_end).await.unwrap().unwrap();
    let error = outcome.expect_err("told to leave");
    println!("the idle session was told after {:?}", when - begin);
    assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN), "{error:?}");
    assert_eq!(error.as_db_error().unwrap().message(), "terminating connection due to switchover");

    let waiting = tokio::spawn(connect(listen));
    sleep(Duration::from_millis(200)).await;
    transaction.execute("insert into ledger values (2)", &[]).await.expect("a transaction goes on");
    transaction.commit().await.expect("and commits");
    let committed = Instant::now();
    assert_eq!(agent.drained().await, (2, 0));
    println!("drained {:?} after the last commit", committed.elapsed());
    busy.query_one("select 1", &[]).await.expect_err("told to leave once idle");

    agent.apply(3, open(listen, &[endpoint("e1", server.address, 2)])).await;
    let next = timeout(LONG, waiting).await.unwrap().unwrap().expect("a new connection waits and goes on");
    assert_eq!(next.query_one("select sum(amount) from ledger", &[]).await.unwrap().get::<_, i64>(0), 3);
}

#[tokio::test]
async fn what_is_not_idle_by_the_deadline_is_cut() {
    let Stage { server, listen, mut agent, _proxy } = stage().await;
    let mut open_transaction = connect(listen).await.unwrap();
    let transaction = open_transaction.transaction().await.unwrap();
    transaction.query_one("select 1", &[]).await.unwrap();
    let running = connect(listen).await.unwrap();
    let query = tokio::spawn(async move { running.execute("select pg_sleep(60)", &[]).await });
    sleep(Duration::from_millis(100)).await;
    let begin = Instant::now();
    agent.apply(2, draining(listen, &[endpoint("e1", server.address, 1)], 400)).await;
    assert_eq!(agent.drained().await, (0, 2));
    println!("cut after {:?}", begin.elapsed());
    assert!(begin.elapsed() >= Duration::from_millis(400), "not before the deadline");
    query.await.unwrap().expect_err("cut");
    transaction.query_one("select 1", &[]).await.expect_err("cut");
}

#[tokio::test]
async fn an_empty_route_is_drained_at_once() {
    let Stage { server, listen, mut agent, _proxy } = stage().await;
    agent.apply(2, draining(listen, &[endpoint("e1", server.address, 1)], 20_000)).await;
    assert_eq!(agent.drained().await, (0, 0));
}

/// Clients that connect for each transaction, while the primary is drained and opened again over and over.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_connect_anew_see_no_error_in_twenty_switchovers() {
    let Stage { server, listen, mut agent, _proxy } = stage().await;
    connect(listen).await.unwrap().execute("create table ledger (amount int)", &[]).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(2);
    let workers: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                let mut done = 0_i64;
                while Instant::now() < deadline {
                    let mut client = connect(listen).await.expect("a connection");
                    let transaction = client.transaction().await.expect("begin");
                    transaction.execute("insert into ledger values (1)", &[]).await.expect("insert");
                    transaction.commit().await.expect("commit");
                    done += 1;
                }
                done
            })
        })
        .collect();
    let mut term = 1;
    for round in 0..20 {
        let here = endpoint("e1", server.address, term);
        agent.apply(2 + 2 * round, draining(listen, std::slice::from_ref(&here), 20_000)).await;
        agent.drained().await;
        term += 1;
        agent.apply(3 + 2 * round, open(listen, &[endpoint("e1", server.address, term)])).await;
        sleep(Duration::from_millis(60)).await;
    }
    let mut done = 0;
    for worker in workers {
        done += timeout(LONG, worker).await.unwrap().expect("no client saw an error");
    }
    let direct = connect(server.address).await.unwrap();
    let rows = direct.query_one("select count(*) from ledger", &[]).await.unwrap().get::<_, i64>(0);
    println!("{done} transactions over {term} terms, no error");
    assert_eq!(rows, done);
}
