//! What is printed where, and with which colours.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use owo_colors::{OwoColorize, Style};
use serde::Serialize;

use super::error::CliError;

/// When to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    Auto,
    Always,
    Never,
}

/// Where a command writes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// Colours on stdout.
    stdout: bool,
    /// Colours on stderr.
    stderr: bool,
}

/// How a piece of text looks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Look {
    /// A heading.
    Heading,
    /// Something went wrong.
    Error,
    /// Something is questionable.
    Warning,
    /// What can be done.
    Hint,
    /// As it should be.
    Good,
    /// Of little weight.
    Faint,
}

impl Look {
    fn style(self) -> Style {
        match self {
            Self::Heading => Style::new().bold(),
            Self::Error => Style::new().red().bold(),
            Self::Warning => Style::new().yellow().bold(),
            Self::Hint => Style::new().cyan().bold(),
            Self::Good => Style::new().green().bold(),
            Self::Faint => Style::new().dimmed(),
        }
    }
}

impl Output {
    pub(crate) fn new(color: Color) -> Self {
        let wanted = |terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            // https://no-color.org: set and not empty.
            Color::Auto => terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        };
        Self { stdout: wanted(io::stdout().is_terminal()), stderr: wanted(io::stderr().is_terminal()) }
    }

    /// `text` as it is to look on stdout.
    pub(crate) fn on_stdout(self, look: Look, text: &str) -> String {
        paint(self.stdout, look, text)
    }

    /// `text` as it is to look on stderr.
    pub(crate) fn on_stderr(self, look: Look, text: &str) -> String {
        paint(self.stderr, look, text)
    }

    /// Whether stderr shows colours.
    pub(crate) fn stderr_has_colors(self) -> bool {
        self.stderr
    }

    /// Prints a result.
    ///
    /// # Errors
    /// When stdout cannot be written to; a reader that has gone away (`| head`) is no error.
    pub(crate) fn print(self, text: &str) -> Result<(), CliError> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(CliError::failed("the result cannot be written").because(&error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Prints a result as JSON.
    ///
    /// # Errors
    /// As [`Self::print`].
    pub(crate) fn print_json(self, value: &impl Serialize) -> Result<(), CliError> {
        let text = serde_json::to_string_pretty(value);
        let text = text.map_err(|error| CliError::failed("the result cannot be written").because(&error))?;
        self.print(&format!("{text}\n"))
    }
}

fn paint(colors: bool, look: Look, text: &str) -> String {
    if colors { text.style(look.style()).to_string() } else { text.to_owned() }
}

/// Prints something about the way to a result. Nobody can be told when this fails.
pub(crate) fn note(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
