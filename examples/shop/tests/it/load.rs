//! `shop load`: what it does to a shop, and what it notices.

use std::process::{Command, Output};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::postgres::Postgres;
use crate::shop::{SHOP, Shop};

fn load(shops: &[&Shop], options: &[&str]) -> Output {
    let mut command = Command::new(SHOP);
    command.arg("load").args(options);
    for shop in shops {
        command.args(["--url", &shop.url()]);
    }
    command.output().unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn every_order_of_a_quiet_run_is_booked_once() {
    let postgres = Postgres::start();
    let shop = Shop::ready("web-1", &postgres.url(), None);
    let output = load(&[&shop], &["--rate", "50", "--for", "2", "--json"]);
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    for (what, expected) in [("attempts", 100), ("ok", 100), ("failed", 0), ("errors", 0)] {
        assert_eq!(report[what], expected, "{what}: {report}");
    }
    assert_eq!(report["verified"]["booked"], 100);
    assert_eq!(report["verified"]["audit"]["in_order"], true);
    assert!(report["longest_gap_ms"].as_f64().unwrap() < 1000.0, "{report}");
    println!("latency without faults: {}", report["latency_ms"]);
    let pace = &shop.get("/api/state").json()["pace"];
    assert!(pace["longest_gap_ms"].as_i64().unwrap() < 1000, "{pace}");
    let listed: i64 = pace["history"].as_array().unwrap().iter().map(|number| number.as_i64().unwrap()).sum();
    assert!(listed >= 50, "{pace}");
}

#[test]
fn a_crash_of_the_database_under_load_loses_and_doubles_nothing() {
    let mut postgres = Postgres::start();
    let shops = [Shop::ready("web-1", &postgres.url(), None), Shop::ready("web-2", &postgres.url(), None)];
    let output = thread::scope(|scope| {
        let running =
            scope.spawn(|| load(&[&shops[0], &shops[1]], &["--rate", "100", "--for", "4", "--json"]));
        thread::sleep(Duration::from_millis(1500));
        postgres.crash();
        thread::sleep(Duration::from_millis(500));
        postgres.boot();
        running.join().unwrap()
    });
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    assert_eq!((&report["ok"], &report["failed"]), (&400.into(), &0.into()), "{report}");
    let gap = report["longest_gap_ms"].as_f64().unwrap();
    assert!((500.0..5000.0).contains(&gap), "the crash was not seen: {report}");
    let pace = &shops[0].get("/api/state").json()["pace"];
    assert!(pace["last_gap"]["ms"].as_f64().unwrap() > 400.0, "the page does not show the crash: {pace}");
}

#[test]
fn an_instance_killed_under_load_is_replaced_by_the_other() {
    let postgres = Postgres::start();
    let (first, second) =
        (Shop::ready("web-1", &postgres.url(), None), Shop::ready("web-2", &postgres.url(), None));
    let urls = [first.url(), second.url()];
    let output = thread::scope(|scope| {
        let running = scope.spawn(|| {
            let options =
                ["load", "--rate", "50", "--for", "3", "--json", "--url", &urls[0], "--url", &urls[1]];
            Command::new(SHOP).args(options).output().unwrap()
        });
        thread::sleep(Duration::from_secs(1));
        drop(first);
        running.join().unwrap()
    });
    let report = report(&output);
    assert!(output.status.success(), "{report}");
    assert_eq!((&report["ok"], &report["failed"]), (&150.into(), &0.into()), "{report}");
    assert!(report["errors"].as_u64().unwrap() > 0, "nothing failed, so nothing was killed: {report}");
}

/// Runs a load, has `fault` done to the books meanwhile, and returns the report, which must not be good.
fn report_after(fault: &str) -> Value {
    let postgres = Postgres::start();
    let shop = Shop::ready("web-1", &postgres.url(), None);
    let output = thread::scope(|scope| {
        let running =
            scope.spawn(|| load(&[&shop], &["--rate", "20", "--for", "3", "--patience", "2", "--json"]));
        postgres.wait_until("orders come", || postgres.answers("select count(*) > 5 from shop.orders", "t"));
        postgres.sql(fault);
        running.join().unwrap()
    });
    let report = report(&output);
    assert!(!output.status.success(), "nothing was noticed: {report}");
    report
}

#[test]
fn a_lost_order_is_noticed() {
    let report =
        report_after("delete from shop.entries where order_id = 5; delete from shop.orders where id = 5");
    assert_eq!(report["verified"]["lost"].as_array().unwrap().len(), 1, "{report}");
}

#[test]
fn an_order_booked_twice_is_noticed() {
    // Without the constraint no further order is booked, so the rest of the run fails.
    let report = report_after(
        "alter table shop.orders drop constraint orders_key_key;
         insert into shop.orders (key, product_id, quantity, amount_cents, placed_by)
         select key, product_id, quantity, amount_cents, placed_by from shop.orders where id = 5",
    );
    assert_eq!(report["verified"]["doubled"].as_array().unwrap().len(), 1, "{report}");
}

#[test]
fn a_falsified_entry_is_noticed() {
    let report = report_after(
        "update shop.entries set amount_cents = amount_cents + 1 where order_id = 5 and account_id = 2",
    );
    assert_eq!(report["verified"]["audit"]["ledger_sum_cents"], 1, "{report}");
    assert_eq!(report["verified"]["audit"]["unbalanced"], 1, "{report}");
}

#[test]
fn a_shop_that_is_not_there_is_reported() {
    let options = ["load", "--url", "http://127.0.0.1:1", "--rate", "5", "--for", "1", "--patience", "1"];
    let wrong = Command::new(SHOP).args(["load", "--url", "shop"]).output().unwrap();
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("does not look like http://"), "{wrong:?}");
    let mut running = Command::new(SHOP).args(options).stderr(std::process::Stdio::null()).spawn().unwrap();
    // Reading back would take a minute of patience; that it goes on trying is enough.
    thread::sleep(Duration::from_secs(3));
    assert!(running.try_wait().unwrap().is_none());
    running.kill().unwrap();
    running.wait().unwrap();
}
