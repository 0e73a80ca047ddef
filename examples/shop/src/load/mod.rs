//! The load generator: places orders, never gives up early, and then checks every single one.

mod client;
mod report;
mod run;
mod verify;

use std::process::ExitCode;
use std::sync::Arc;

use crate::cli::Load;

/// Runs the load and prints the report; success means that every acknowledged order is booked exactly once.
pub(crate) async fn run(options: Load) -> Result<ExitCode, String> {
    let client = Arc::new(client::Client::new(&options.url)?);
    let placed = run::place_orders(&client, &options).await?;
    let report = match verify::verify(&client, &placed).await {
        Ok(verified) => report::Report::new(&placed, Ok(verified)),
        Err(reason) => report::Report::new(&placed, Err(reason)),
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?);
    } else {
        print!("{report}");
    }
    Ok(if report.consistent() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
