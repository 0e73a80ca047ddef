//! Errors as a person sees them: `Error:`, `Caused by:`, `Hint:`.

use std::error::Error;
use std::fmt::Write;

use model::system::Invalid;

use super::exit::Exit;
use super::output::{Color, Look, Output, note};
use super::render;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum CliError {
    /// Something went wrong.
    Plain {
        /// The exit code.
        exit: Exit,
        /// What, in one sentence without a full stop.
        message: String,
        /// Why, the nearest cause first.
        causes: Vec<String>,
        /// What can be done about it; a command to paste where there is one.
        hint: Option<String>,
    },
    /// The system file is wrong.
    Invalid {
        /// Everything that is wrong with it.
        invalid: Invalid,
        /// The file's text, to show the places.
        text: String,
    },
}

impl CliError {
    /// The command failed.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self::with(Exit::Failed, message)
    }

    /// The command ends with `exit`.
    pub(crate) fn with(exit: Exit, message: impl Into<String>) -> Self {
        Self::Plain { exit, message: message.into(), causes: vec![], hint: None }
    }

    /// Adds the cause and the causes of the cause.
    pub(crate) fn because(mut self, error: &dyn Error) -> Self {
        if let Self::Plain { causes, .. } = &mut self {
            let mut next = Some(error);
            while let Some(error) = next {
                causes.push(error.to_string());
                next = error.source();
            }
        }
        self
    }

    /// Says what can be done.
    pub(crate) fn hint(mut self, text: impl Into<String>) -> Self {
        if let Self::Plain { hint, .. } = &mut self {
            *hint = Some(text.into());
        }
        self
    }

    /// What went wrong, in one sentence.
    pub(crate) fn sentence(&self) -> &str {
        match self {
            Self::Plain { message, .. } => message,
            Self::Invalid { .. } => "the system file is wrong",
        }
    }

    /// How the command ends.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Plain { exit, .. } => *exit,
            Self::Invalid { .. } => Exit::Invalid,
        }
    }

    /// Tells the person.
    pub(crate) fn print(&self, output: Output) {
        let text = match self {
            Self::Plain { message, causes, hint, .. } => plain(output, message, causes, hint.as_deref()),
            Self::Invalid { invalid, text } => render::invalid(invalid, text, output),
        };
        note(&text);
    }
}

fn plain(output: Output, message: &str, causes: &[String], hint: Option<&str>) -> String {
    let mut text = format!("{} {message}\n", output.on_stderr(Look::Error, "Error:"));
    for cause in causes {
        let _ = writeln!(text, "{} {cause}", output.on_stderr(Look::Heading, "Caused by:"));
    }
    if let Some(hint) = hint {
        let _ = writeln!(text, "{} {hint}", output.on_stderr(Look::Hint, "Hint:"));
    }
    text
}

/// Tells the person what is wrong with the command line, or prints the help that was asked for.
pub(crate) fn usage(error: &clap::Error) -> Exit {
    let output = Output::new(Color::Auto);
    if !error.use_stderr() {
        // Help and version, which clap paints itself. Nobody can be told when printing fails.
        let _ = error.print();
        return Exit::Done;
    }
    let text = error.render().to_string();
    let text = text.replacen("error:", &output.on_stderr(Look::Error, "Error:"), 1);
    note(&text.replacen("  tip:", &output.on_stderr(Look::Hint, "Hint:"), 1));
    Exit::Invalid
}
