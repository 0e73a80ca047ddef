//! What is wrong with a system file, said so that a person can put it right: what, where, why, and what to write instead.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

pub use super::code::Code;

/// One thing that is wrong, or questionable, in a system file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Which rule it breaks.
    pub code: Code,
    /// The file, as it was named to [`parse`](super::parse).
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Where it stands, in bytes of the file; always within the file and on character boundaries.
    pub span: Range<usize>,
    /// What is wrong, with the names of the file.
    pub message: String,
    /// Why it is wrong.
    pub why: String,
    /// How to put it right.
    pub hint: Option<Hint>,
    /// Other places that belong to it.
    pub others: Vec<Label>,
}

/// How to put a problem right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hint {
    /// What to do.
    pub words: String,
    /// Text for the file, where there is one.
    pub paste: Option<String>,
}

/// Another place that belongs to a problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Label {
    /// Where, in bytes of the file.
    pub span: Range<usize>,
    /// What is there.
    pub text: String,
}

/// Everything that keeps a file from being used, in the order of the file, and everything questionable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Invalid {
    /// Never empty. At most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// What is only questionable.
    pub warnings: Vec<Problem>,
    /// How many further problems were left out.
    pub left_out: usize,
}

/// More problems than this are counted, not listed: a file that is no system file must not fill the screen.
pub const MAX_PROBLEMS: usize = 100;

/// Texts longer than this, in characters, are cut.
const LONGEST_TEXT: usize = 500;

/// The file and what was found in it so far.
pub(super) struct Findings<'a> {
    file: &'a str,
    pub(super) text: &'a str,
    problems: Vec<Problem>,
    warnings: Vec<Problem>,
    left_out: usize,
}

impl Problem {
    /// Says why it is wrong.
    pub(super) fn why(&mut self, why: impl Into<String>) -> &mut Self {
        self.why = why.into();
        self
    }

    /// Says what to do, in words only.
    pub(super) fn hint(&mut self, words: impl Into<String>) -> &mut Self {
        self.hint = Some(Hint { words: words.into(), paste: None });
        self
    }

    /// Says what to write into the file.
    pub(super) fn paste(&mut self, words: impl Into<String>, paste: impl Into<String>) -> &mut Self {
        self.hint = Some(Hint { words: words.into(), paste: Some(paste.into()) });
        self
    }

    /// Points at another place.
    pub(super) fn other(&mut self, span: &Range<usize>, text: impl Into<String>) -> &mut Self {
        self.others.push(Label { span: span.clone(), text: text.into() });
        self
    }
}

impl<'a> Findings<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self { file, text, problems: vec![], warnings: vec![], left_out: 0 }
    }

    /// Reports something that keeps the file from being used.
    pub(super) fn error(
        &mut self,
        code: Code,
        span: &Range<usize>,
        message: impl Into<String>,
    ) -> &mut Problem {
        // One more than is ever shown: everything beyond overwrites the last, which `finish` drops and counts.
        if self.problems.len() > MAX_PROBLEMS {
            self.problems.pop();
            self.left_out += 1;
        }
        self.problems.push(self.problem(code, span, message.into()));
        let last = self.problems.len() - 1;
        &mut self.problems[last]
    }

    /// Reports something questionable.
    pub(super) fn warning(
        &mut self,
        code: Code,
        span: &Range<usize>,
        message: impl Into<String>,
    ) -> &mut Problem {
        self.warnings.push(self.problem(code, span, message.into()));
        let last = self.warnings.len() - 1;
        &mut self.warnings[last]
    }

    /// Whether nothing keeps the file from being used so far.
    pub(super) fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Whether further problems are only counted.
    pub(super) fn is_full(&self) -> bool {
        self.problems.len() > MAX_PROBLEMS
    }

    /// Counts one more problem without saying what it is; for use while [`Self::is_full`].
    pub(super) fn count_only(&mut self) {
        self.left_out += 1;
    }

    /// The text at `span`.
    pub(super) fn source(&self, span: &Range<usize>) -> &'a str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// The line in which `span` stands, with `text` in its place.
    pub(super) fn line_with(&self, span: &Range<usize>, text: &str) -> String {
        let before = self.source(&(0..span.start)).rsplit('\n').next().unwrap_or_default();
        let after = self.source(&(span.end..self.text.len())).lines().next().unwrap_or_default();
        format!("{before}{text}{after}").trim().to_owned()
    }

    /// The line in which `span` stands, with `new` for the first `old` within the span.
    pub(super) fn line_with_part(&self, span: &Range<usize>, old: &str, new: &str) -> String {
        self.line_with(span, &self.source(span).replacen(old, new, 1))
    }

    /// All that was found, in the order of the file; without problems it is no error.
    pub(super) fn finish(mut self) -> Invalid {
        if self.problems.len() > MAX_PROBLEMS {
            self.problems.pop();
            self.left_out += 1;
        }
        let lines: Vec<usize> =
            std::iter::once(0).chain(self.text.match_indices('\n').map(|(i, _)| i + 1)).collect();
        for problem in self.problems.iter_mut().chain(&mut self.warnings) {
            locate(problem, self.text, &lines);
        }
        self.problems.sort_by_key(|p| (p.span.start, p.span.end));
        self.warnings.sort_by_key(|p| (p.span.start, p.span.end));
        Invalid { problems: self.problems, warnings: self.warnings, left_out: self.left_out }
    }

    fn problem(&self, code: Code, span: &Range<usize>, message: String) -> Problem {
        Problem {
            code,
            file: self.file.to_owned(),
            line: 1,
            column: 1,
            span: span.clone(),
            message,
            why: String::new(),
            hint: None,
            others: vec![],
        }
    }
}

/// Puts the spans inside the file, fills in line and column, and tames texts that came from the file.
fn locate(problem: &mut Problem, text: &str, lines: &[usize]) {
    for said in [&mut problem.message, &mut problem.why] {
        *said = tame(said);
    }
    if let Some(paste) = problem.hint.as_mut().and_then(|hint| hint.paste.as_mut()) {
        *paste = tame(paste);
    }
    problem.span = clamp(&problem.span, text);
    for other in &mut problem.others {
        other.span = clamp(&other.span, text);
    }
    let line = lines.partition_point(|start| *start <= problem.span.start);
    let start = lines[line - 1];
    problem.line = line;
    problem.column = text[start..problem.span.start].chars().count() + 1;
}

/// `text` without control characters, which could drive the terminal that shows it, and of bounded length.
fn tame(text: &str) -> String {
    let mut tame = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == LONGEST_TEXT {
            tame.push_str(" ...");
            break;
        }
        if c.is_control() && c != '\n' { tame.extend(c.escape_default()) } else { tame.push(c) }
    }
    tame
}

fn clamp(span: &Range<usize>, text: &str) -> Range<usize> {
    let start = (0..=span.start.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    let end = (span.end..text.len()).find(|i| text.is_char_boundary(*i)).unwrap_or(text.len());
    start..end.max(start)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {} [{}]", self.file, self.line, self.column, self.message, self.code)?;
        if !self.why.is_empty() {
            write!(f, ": {}", self.why)?;
        }
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Hint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.paste {
            Some(paste) => write!(f, "{}: {paste}", self.words),
            None => f.write_str(&self.words),
        }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.problems.iter().enumerate() {
            let line_end = if i == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        match self.left_out {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}
