//! Problems of a system file as a person sees them. The only place that knows `miette`.

use std::fmt::Write;

use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteDiagnostic, NamedSource, Report};
use model::system::{Hint, Invalid, Problem};

use super::output::{Look, Output};

/// Lines longer than this are not shown: a file that is no system file must not fill the screen.
const LONGEST_LINE: usize = 400;

/// Everything that is wrong with a file, what is questionable, and how much it is.
pub(crate) fn invalid(invalid: &Invalid, text: &str, output: Output) -> String {
    let mut out = String::new();
    for problem in &invalid.problems {
        out += &one(problem, text, (Look::Error, "Error:"), output);
        out.push('\n');
    }
    out += &warnings(&invalid.warnings, text, output);
    let file = invalid.problems.first().map_or("", |problem| problem.file.as_str());
    let errors = count(invalid.problems.len() + invalid.left_out, "error");
    let and_warnings = match invalid.warnings.len() {
        0 => String::new(),
        some => format!(" and {}", count(some, "warning")),
    };
    let left_out = match invalid.left_out {
        0 => String::new(),
        some => format!("; {} not shown", count(some, "error")),
    };
    let _ = writeln!(out, "{file} has {errors}{and_warnings}{left_out}.");
    out
}

/// A number with its noun.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// What is questionable in a file.
pub(crate) fn warnings(warnings: &[Problem], text: &str, output: Output) -> String {
    warnings.iter().fold(String::new(), |out, warning| {
        let label = (Look::Warning, "Warning:");
        out + &one(warning, text, label, output) + "\n"
    })
}

fn one(problem: &Problem, text: &str, (look, label): (Look, &str), output: Output) -> String {
    let mut out = format!("{} {}\n", output.on_stderr(look, label), problem.message);
    out += &snippet(problem, text, output);
    if !problem.why.is_empty() {
        let _ = writeln!(out, "{} {}", output.on_stderr(Look::Heading, "Because:"), problem.why);
    }
    match &problem.hint {
        Some(Hint { words, paste: None }) => {
            let _ = writeln!(out, "{} {words}", output.on_stderr(Look::Hint, "Hint:"));
        }
        Some(Hint { words, paste: Some(paste) }) => {
            let _ = writeln!(out, "{} {words}", output.on_stderr(Look::Hint, "Hint:"));
            paste.lines().for_each(|line| out += &format!("    {line}\n"));
        }
        None => {}
    }
    out
}

/// The place in the file, with a line around it.
fn snippet(problem: &Problem, text: &str, output: Output) -> String {
    let place = format!("   --> {}:{}:{}\n", problem.file, problem.line, problem.column);
    let spans = || std::iter::once(&problem.span).chain(problem.others.iter().map(|other| &other.span));
    if text.is_empty()
        || text.lines().any(|line| line.len() > LONGEST_LINE)
        || spans().any(|s| s.end > text.len())
    {
        return place;
    }
    let others =
        problem.others.iter().map(|o| LabeledSpan::new(Some(o.text.clone()), o.span.start, o.span.len()));
    let here = LabeledSpan::new_primary_with_span(None, problem.span.clone());
    let diagnostic = MietteDiagnostic::new("").with_labels(std::iter::once(here).chain(others));
    let source = NamedSource::new(&problem.file, harmless(text));
    let theme = if output.stderr_has_colors() {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler =
        GraphicalReportHandler::new_themed(theme).with_links(false).with_width(110).with_context_lines(1);
    let mut rendered = String::new();
    let report = Report::new(diagnostic).with_source_code(source);
    if handler.render_report(&mut rendered, report.as_ref()).is_err() {
        return place;
    }
    // The head is the (empty) message; the snippet begins with its frame.
    let lines = rendered.lines().skip_while(|line| !line.contains('╭'));
    lines.fold(String::new(), |out, line| out + line.trim_end() + "\n")
}

/// `text` without characters that could drive the terminal; every character keeps its length, so that places stay right.
fn harmless(text: &str) -> String {
    let tame = |c: char| {
        if c.is_control() && c != '\n' && c != '\t' { "?".repeat(c.len_utf8()) } else { c.to_string() }
    };
    text.chars().map(tame).collect()
}
