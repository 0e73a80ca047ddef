//! One instance, its endpoints, its database coming and going.

use std::thread;
use std::time::{Duration, Instant};

use crate::postgres::Postgres;
use crate::shop::Shop;

const ORDER: &str = r#"{"product": 2, "quantity": 3}"#;

#[test]
fn three_instances_wait_for_the_database_and_start_together() {
    let mut postgres = Postgres::prepare();
    let shops: Vec<Shop> =
        ["web-1", "web-2", "web-3"].map(|name| Shop::start(name, &postgres.url(), None)).into();
    for shop in &shops {
        let health = shop.get("/healthz");
        assert_eq!(health.status, 503);
        assert_eq!(health.json()["ready"], false);
        let state = shop.get("/api/state");
        assert_eq!(state.status, 200);
        assert!(
            state.json()["primary"]["reason"].as_str().unwrap().contains("does not answer"),
            "{}",
            state.body
        );
    }
    thread::sleep(Duration::from_secs(1));
    let reason = shops[0].get("/healthz").json()["reason"].to_string();
    assert!(reason.contains("Connection refused"), "{reason}");

    postgres.boot();
    for shop in &shops {
        shop.wait_ready();
    }
    assert_eq!(postgres.sql("select count(*) from shop.products"), "6");
    assert_eq!(postgres.sql("select count(*) from shop.accounts"), "2");
}

#[test]
fn an_order_is_booked_once_however_often_it_is_sent() {
    let postgres = Postgres::start();
    let shops = [Shop::ready("web-1", &postgres.url(), None), Shop::ready("web-2", &postgres.url(), None)];
    let first = shops[0].order("k1", ORDER);
    assert_eq!(first.status, 201, "{}", first.body);
    assert_eq!(first.json()["amount_cents"], 1350);
    let again = shops[1].order("k1", ORDER);
    assert_eq!((again.status, &again.json()["order"]), (200, &first.json()["order"]));
    assert_eq!(again.json()["repeated"], true);

    let fresh: usize = thread::scope(|scope| {
        let sends = |number: usize| shops[number % 2].order("k2", ORDER);
        let threads: Vec<_> = (0..20).map(|number| scope.spawn(move || sends(number))).collect();
        let answers = threads.into_iter().map(|thread| thread.join().unwrap());
        answers.filter(|answer| answer.json()["repeated"] == false).count()
    });
    assert_eq!(fresh, 1);

    let other = shops[0].order("k1", r#"{"product": 1}"#);
    assert_eq!(other.status, 409, "{}", other.body);
    let audit = shops[0].get("/api/audit").json();
    assert_eq!((&audit["orders"], &audit["in_order"]), (&2.into(), &true.into()), "{audit}");
    assert_eq!(postgres.sql("select count(*), sum(amount_cents) from shop.entries"), "4|0");
}

#[test]
fn the_key_may_be_a_field_and_lists_are_bounded() {
    let postgres = Postgres::start();
    let shop = Shop::ready("web-1", &postgres.url(), None);
    for number in 0..5 {
        let body = format!(r#"{{"product": 1, "key": "run-{number}"}}"#);
        assert_eq!(shop.request("POST", "/api/orders", "", &body).status, 201);
    }
    let newest = shop.get("/api/orders?limit=2").json();
    assert_eq!(newest.as_array().unwrap().len(), 2);
    assert_eq!(newest[0]["key"], "run-4");
    let run = shop.get("/api/orders?prefix=run-&after=2&limit=100").json();
    assert_eq!(run.as_array().unwrap().len(), 3);
    assert_eq!(run[0]["key"], "run-2");
}

#[test]
fn wrong_requests_are_refused_in_words() {
    let postgres = Postgres::start();
    let shop = Shop::ready("web-1", &postgres.url(), None);
    let long = "x".repeat(17_000);
    let cases = [
        (shop.request("POST", "/api/orders", "", r#"{"product": 1}"#), 400, "needs a key"),
        (shop.order("k", "{}"), 400, "missing field `product`"),
        (shop.order("k", "not json"), 400, "not valid"),
        (shop.order("k", r#"{"product": 99}"#), 404, "no product 99"),
        (shop.order("k", r#"{"product": 1, "quantity": 0}"#), 400, "from 1 to 1000"),
        (shop.order(&"k".repeat(201), ORDER), 400, "too long"),
        (shop.order("k", &long), 413, "too long"),
        (shop.request("PUT", "/api/orders", "", ""), 405, "GET, POST"),
        (shop.get("/api/orders?limit=many"), 400, "numbers"),
        (shop.get("/admin"), 404, "nothing here"),
    ];
    for (answer, status, words) in cases {
        assert_eq!(answer.status, status, "{}", answer.body);
        assert!(answer.json()["error"].as_str().unwrap().contains(words), "{}", answer.body);
    }
    assert_eq!(postgres.sql("select count(*) from shop.orders"), "0");
}

#[test]
fn without_its_database_the_shop_says_so_in_time_and_recovers() {
    let mut postgres = Postgres::start();
    let shop = Shop::ready("web-1", &postgres.url(), None);
    assert_eq!(shop.order("before", ORDER).status, 201);
    postgres.crash();

    let begin = Instant::now();
    let health = shop.get("/healthz");
    assert_eq!(health.status, 503);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    let begin = Instant::now();
    let refused = shop.order("during", ORDER);
    assert_eq!(refused.status, 503, "{}", refused.body);
    let took = begin.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(4), "{took:?}");
    let state = shop.get("/api/state").json();
    assert_eq!(state["products"].as_array().unwrap().len(), 0, "nobody had looked yet");

    postgres.boot();
    let again = shop.order("during", ORDER);
    assert_eq!(again.status, 201, "{}", again.body);
    assert_eq!(shop.get("/api/audit").json()["orders"], 2);
}

#[test]
fn an_order_sent_while_the_database_restarts_just_takes_longer() {
    let mut postgres = Postgres::start();
    let shop = Shop::ready("web-1", &postgres.url(), None);
    assert_eq!(shop.order("warm", ORDER).status, 201);
    postgres.crash();
    thread::scope(|scope| {
        let sent = scope.spawn(|| shop.order("patient", ORDER));
        thread::sleep(Duration::from_millis(300));
        assert!(!sent.is_finished(), "answered without a database");
        postgres.boot();
        let answer = sent.join().unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
    });
}

#[test]
fn an_empty_database_put_in_place_is_filled_again() {
    let postgres = Postgres::start();
    let shop = Shop::ready("web-1", &postgres.url(), None);
    postgres.sql("drop schema shop cascade");
    let begin = Instant::now();
    while shop.order("k", ORDER).status != 201 {
        assert!(begin.elapsed() < Duration::from_secs(20), "the tables were not made again");
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn lists_come_from_the_standby_and_the_state_names_both() {
    let primary = Postgres::start();
    let standby = Postgres::standby_of(&primary);
    let shop = Shop::ready("web-1", &primary.url(), Some(&standby.url()));
    assert_eq!(shop.order("k", ORDER).status, 201);
    standby.wait_until("the order arrives", || standby.answers("select count(*) from shop.orders", "1"));
    thread::sleep(Duration::from_millis(250));

    let state = shop.get("/api/state").json();
    assert_eq!((&state["instance"], &state["node"]), (&"web-1".into(), &"e1".into()));
    assert_eq!(state["primary"]["member"]["standby"], false, "{state}");
    assert_eq!(state["primary"]["member"]["timeline"], 1);
    assert_eq!(state["standby"]["member"]["standby"], true);
    assert_eq!(state["standby"]["member"]["port"], standby.port);
    assert_eq!(state["orders_from_standby"], true);
    assert_eq!(state["orders"][0]["key"], "k");

    drop(standby);
    thread::sleep(Duration::from_millis(250));
    let state = shop.get("/api/state").json();
    assert_eq!(state["orders_from_standby"], false, "{state}");
    assert_eq!(state["orders"][0]["key"], "k");
    assert!(state["standby"]["reason"].as_str().unwrap().contains("does not answer"));
}

#[test]
fn a_promoted_standby_is_shown_with_its_new_timeline() {
    let primary = Postgres::start();
    let standby = Postgres::standby_of(&primary);
    drop(primary);
    standby.promote();
    let shop = Shop::ready("web-1", &standby.url(), None);
    assert_eq!(shop.get("/api/state").json()["primary"]["member"]["timeline"], 2);
}

#[test]
fn a_standby_takes_no_orders_until_it_is_promoted() {
    let primary = Postgres::start();
    let shop = Shop::ready("web-1", &primary.url(), None);
    assert_eq!(shop.order("k", ORDER).status, 201);
    let standby = Postgres::standby_of(&primary);
    let moved = Shop::start("web-2", &standby.url(), None);
    let refused = moved.order("k2", ORDER);
    assert_eq!(refused.status, 503);
    assert!(refused.body.contains("read-only"), "{}", refused.body);
    standby.promote();
    assert_eq!(moved.order("k2", ORDER).status, 201);
}

#[test]
fn sigterm_finishes_the_orders_under_way() {
    let postgres = Postgres::start();
    let mut shop = Shop::ready("web-1", &postgres.url(), None);
    let blocker = r#"begin; lock table shop.orders in exclusive mode; select pg_sleep(1.5); commit"#;
    thread::scope(|scope| {
        scope.spawn(|| postgres.sql(blocker));
        postgres.wait_until("the lock is held", || {
            postgres
                .sql("select count(*) from pg_locks where mode = 'ExclusiveLock' and relation is not null")
                == "1"
        });
        let under_way = scope.spawn(|| shop.order("last", ORDER));
        thread::sleep(Duration::from_millis(300));
        shop.terminate();
        thread::sleep(Duration::from_millis(200));
        assert!(std::net::TcpStream::connect(shop.address).is_err(), "new connections are still taken");
        let answer = under_way.join().unwrap();
        assert_eq!(answer.status, 201, "{}", answer.body);
    });
    assert_eq!(shop.wait().code(), Some(0));
}

#[test]
fn an_idle_instance_ends_at_once() {
    let postgres = Postgres::start();
    let mut shop = Shop::ready("web-1", &postgres.url(), None);
    // A browser keeps its connection open.
    let _idle = std::net::TcpStream::connect(shop.address).unwrap();
    let begin = Instant::now();
    shop.terminate();
    assert_eq!(shop.wait().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let postgres = Postgres::start();
    let shop = Shop::ready("web-1", &postgres.url(), None);
    let page = shop.get("/");
    assert_eq!(page.status, 200);
    let namespace = "http://www.w3.org/2000/svg";
    let rest = page.body.replace(namespace, "");
    for foreign in ["http:", "https:", "src=", "@import", "url("] {
        assert!(!rest.contains(foreign), "the page refers to `{foreign}`");
    }
}

#[test]
fn a_missing_database_url_is_explained() {
    let output = std::process::Command::new(crate::shop::SHOP).env_remove("DATABASE_URL").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("set DATABASE_URL"), "{output:?}");
}
