//! Runs seeds: `cargo run --release -p simulation --example sweep -- FIRST COUNT`.

use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<u64>().expect("a number"));
    let (first, count) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(1000));
    let (begun, mut simulated, mut acknowledged, mut terms, mut faults) = (Instant::now(), 0.0, 0, 0, 0);
    let mut failed = 0;
    for seed in first..first + count {
        match simulation::run(seed) {
            Ok(report) => {
                simulated += report.simulated.as_secs_f64();
                acknowledged += report.acknowledged;
                terms += report.terms;
                faults += report.faults;
            }
            Err(violation) => {
                failed += 1;
                if failed <= 3 {
                    println!("{violation}\n");
                }
            }
        }
    }
    println!(
        "{count} seeds, {failed} failed, {:.1} h simulated in {:.1} s: {acknowledged} writes acknowledged, {terms} terms, {faults} faults",
        simulated / 3600.0,
        begun.elapsed().as_secs_f64()
    );
    ExitCode::from(u8::from(failed > 0))
}
