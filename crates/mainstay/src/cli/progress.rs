//! Waiting for a running system, with a line for each step and its time since the command began.

use std::time::{Duration, Instant};

use super::connect::Connection;
use super::error::CliError;
use super::output::{Look, Output, note};
use super::status::view::View;

/// How often the system is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A step of which nothing but the figures has changed is told again after this long.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// The steps of one command.
pub(crate) struct Progress {
    began: Instant,
    output: Output,
    told: String,
    told_at: Instant,
}

impl Progress {
    /// Begins now.
    pub(crate) fn begin(output: Output) -> Self {
        let began = Instant::now();
        Self { began, output, told: String::new(), told_at: began }
    }

    /// The time since the beginning.
    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Tells a step, unless it was the last one told, or merely counts on from it.
    pub(crate) fn say(&mut self, step: &str) {
        let words = |text: &str| -> String { text.chars().filter(|c| !c.is_ascii_digit()).collect() };
        let counts = self.told_at.elapsed() < COUNT_EVERY && words(step) == words(&self.told);
        if step != self.told && !counts {
            self.told_at = Instant::now();
            let at = format!("{:>7} ms", self.began.elapsed().as_millis());
            note(&format!("{}  {step}\n", self.output.on_stderr(Look::Faint, &at)));
            step.clone_into(&mut self.told);
        }
    }

    /// Looks at the system until `missing` finds nothing any more or `limit` has passed; what is missing is told on the
    /// way, and returned when the time is over.
    ///
    /// An agent that does not answer for a moment is part of what is waited for: nodes restart in a change.
    pub(crate) async fn until(
        &mut self,
        connection: &mut Connection,
        limit: Duration,
        mut missing: impl FnMut(&View) -> Option<String>,
    ) -> Result<Option<String>, CliError> {
        let end = Instant::now() + limit;
        loop {
            let awaited = match connection.view().await {
                Ok(view) => match missing(&view) {
                    Some(awaited) => awaited,
                    None => return Ok(None),
                },
                Err(error) if Instant::now() > end => return Err(error),
                Err(error) => error.sentence().to_owned(),
            };
            self.say(&awaited);
            if Instant::now() > end {
                return Ok(Some(awaited));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
