//! Our proxy beside HAProxy and nginx: what clients see when one of three instances is hurt, and what a proxy costs.
//!
//! `make bench-proxy` runs it in a network namespace of its own. Arguments: how many runs, then `faults`, `crowd`, `cost`
//! (all without any). Proxies take turns within a run, so that a busy minute of the machine hits all of them.

#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a measurement fails loudly, and uses the tests' helpers in part"
)]

mod cost;
mod front;
mod load;
mod site;
mod table;

#[path = "../../tests/it/agent.rs"]
mod agent;

use std::process::Command;
use std::time::Duration;

use front::{Front, KINDS, Kind};
use load::Seen;
use site::{FAULTS, Fault, Site};
use table::Figures;

/// Requests a second.
const RATE: u32 = 1000;
/// The fault comes after so long,
const HEALTHY: Duration = Duration::from_secs(3);
/// and the load goes on for so long.
const HURT: Duration = Duration::from_secs(9);
const CROWD: u32 = 5000;
const CROWD_PERIOD: Duration = Duration::from_secs(5);
const CROWD_LASTS: Duration = Duration::from_secs(15);
/// What the slow instance of three takes for an answer.
const SLOW: Duration = Duration::from_secs(2);

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, socket, state_file] = arguments.as_slice()
        && serve == "serve"
    {
        let options = proxy::ProxyOptions {
            socket: socket.into(),
            state_file: state_file.into(),
            log: std::env::temp_dir(),
            succeeds: None,
        };
        return proxy::run(options).await.unwrap();
    }
    let runs: usize = arguments.first().map_or(3, |runs| runs.parse().expect("the number of runs"));
    let wants = |part: &str| arguments.len() < 2 || arguments[1..].iter().any(|wanted| wanted == part);
    let mut figures = Figures::default();
    let kinds: Vec<Kind> = KINDS.into_iter().filter(|kind| kind.is_there()).collect();
    for kind in KINDS.into_iter().filter(|kind| !kinds.contains(kind)) {
        figures.missing(kind.name(), "it is not installed");
    }
    for run in 1..=runs {
        if wants("faults") {
            faults(&kinds, run, &mut figures).await;
        }
        if wants("crowd") {
            crowds(&kinds, run, &mut figures).await;
        }
        if wants("cost") {
            costs(&kinds, run, &mut figures).await;
        }
    }
    report(&figures);
}

/// One of three instances is hurt at 1000 requests a second.
async fn faults(kinds: &[Kind], run: usize, figures: &mut Figures) {
    let has_rules =
        Command::new("nft").args(["list", "tables"]).output().is_ok_and(|done| done.status.success());
    for fault in FAULTS {
        if fault == Fault::BlackHoled && !has_rules {
            figures.missing("one of three black-holed", "that needs root and nftables");
            continue;
        }
        for kind in kinds {
            let site = Site::start().await;
            let front = Front::start(*kind, &site.addresses(), None).await;
            let load = tokio::spawn(load::open_loop(front.listen, RATE, HEALTHY + HURT));
            tokio::time::sleep(HEALTHY).await;
            site.hurt(fault);
            let seen = load.await.unwrap();
            tell(run, *kind, fault.name(), &seen);
            note(figures, &format!("one of three {}", fault.name()), *kind, &seen);
        }
    }
}

/// Thousands of clients, and one instance that takes long.
async fn crowds(kinds: &[Kind], run: usize, figures: &mut Figures) {
    for slow in [false, true] {
        for kind in kinds {
            let site = Site::start().await;
            let front = Front::start(*kind, &site.addresses(), None).await;
            if slow {
                site.slow_down(SLOW);
            }
            let seen = load::crowd(front.listen, CROWD, CROWD_PERIOD, CROWD_LASTS).await;
            let what = if slow { "5000 connections, one of three slow" } else { "5000 connections" };
            tell(run, *kind, what, &seen);
            note(figures, what, *kind, &seen);
        }
    }
}

async fn costs(kinds: &[Kind], run: usize, figures: &mut Figures) {
    // Without it every request of nginx opens a connection, which is no comparison.
    let kept = |kind: &&Kind| **kind != Kind::Nginx;
    let backend = cost::Backend::start().await;
    for kind in kinds.iter().filter(kept) {
        match cost::per_request(*kind, &backend).await {
            Ok(micros) => figures.note("processor time per request", "us", *kind, micros),
            Err(why) => figures.missing(format!("processor time per request, {}", kind.name()), why),
        }
    }
    if run == 1 {
        for kind in kinds {
            let bytes = cost::per_idle_connection(*kind, &backend).await;
            figures.note("memory per idle connection", "bytes", *kind, bytes);
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn note(figures: &mut Figures, what: &str, kind: Kind, seen: &Seen) {
    let failed = u32::try_from(seen.failed()).unwrap_or(u32::MAX);
    figures.note(&format!("{what}: failed"), "requests", kind, failed.into());
    figures.note(&format!("{what}: p99"), "ms", kind, millis(seen.quantile(990)));
    figures.note(&format!("{what}: worst"), "ms", kind, millis(seen.quantile(1000)));
}

fn tell(run: usize, kind: Kind, what: &str, seen: &Seen) {
    let last = seen
        .last_failure()
        .map_or(String::new(), |last| format!(", the last at {:.1} s", last.as_secs_f64()));
    let [middle, p99, worst] = [500, 990, 1000].map(|part| millis(seen.quantile(part)));
    println!(
        "run {run}, {what}, {}: {} of {} failed{last}; median {middle:.2}, p99 {p99:.1}, worst {worst:.1} ms",
        kind.name(),
        seen.failed(),
        seen.requests.len()
    );
}

fn report(figures: &Figures) {
    let text = figures.markdown();
    println!("\n{text}");
    let directory = std::path::Path::new("target/bench");
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join("proxy.md"), text).unwrap();
    let json = serde_json::to_string_pretty(&figures.json()).unwrap();
    std::fs::write(directory.join("proxy.json"), json).unwrap();
    println!("also in target/bench/proxy.md and target/bench/proxy.json");
}
