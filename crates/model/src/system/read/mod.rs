//! The first pass: from text to raw tables, in which every value still knows where it stands.
//!
//! The TOML tree is walked by hand instead of being deserialised: deserialisation stops at its first error, and a
//! person who writes a file wants to hear of all of them.

mod addresses;
mod field;
mod table;
pub(super) mod tables;
mod values;

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) use field::{At, Field, Named, Section, check_name};
pub(super) use tables::FileTable;
pub(super) use values::{Address, DurabilityWord, EngineWord, HumanDuration, Memory, Number, Percent};

use super::problem::{Code, Findings};

/// A kind of value that a key can take.
pub(super) trait Read: Sized {
    /// What is expected, for "must be ...": an article and a noun.
    const EXPECTED: &'static str;

    /// Reads it, or reports why it cannot be read.
    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self>;
}

/// Where the walk through the tree stands.
pub(super) struct Reader<'f, 'a> {
    findings: &'f mut Findings<'a>,
    /// The keys that lead to the value being read.
    path: Vec<String>,
}

/// Reads the whole file. `None` when its syntax is so broken that further findings would mislead.
pub(super) fn file(findings: &mut Findings<'_>) -> Option<FileTable> {
    let (tree, errors) = DeTable::parse_recoverable(findings.text);
    let mut readable = true;
    let mut last_line = None;
    let mut twice: Option<Range<usize>> = None;
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        if error.message() == "duplicate key" {
            // The keys below a heading that stands twice are no news.
            let between = twice
                .as_ref()
                .map_or("\n[", |before: &Range<usize>| findings.source(&(before.end..span.start)));
            if between.contains("\n[") {
                duplicate(&span, findings);
                twice = Some(span.clone()).filter(|span| is_heading(findings.text, span));
            }
            continue;
        }
        readable = false;
        // One slip often breaks the rest of its line too; only the first report of a line says what is wrong.
        let line = findings.text.get(..span.start).map_or(0, |before| before.matches('\n').count());
        if last_line.replace(line) != Some(line) {
            syntax(&span, error.message(), findings);
        }
    }
    if !readable {
        return None;
    }
    let whole = Spanned::new(0..0, DeValue::Table(tree.into_inner()));
    FileTable::read(&whole, &mut Reader { findings, path: vec![] })
}

/// Whether `span` stands in a line that begins a section.
fn is_heading(text: &str, span: &Range<usize>) -> bool {
    let line = text.get(..span.start).and_then(|before| before.rsplit('\n').next());
    line.is_some_and(|line| line.trim_start().starts_with('['))
}

fn duplicate(span: &Range<usize>, findings: &mut Findings<'_>) {
    let name = findings.source(span);
    findings
        .error(Code::DuplicateName, span, format!("`{name}` stands in the file twice"))
        .why("each name may be used once in its section; only one of the two could count")
        .hint("rename or remove one of them");
}

fn syntax(span: &Range<usize>, message: &str, findings: &mut Findings<'_>) {
    let start = findings.source(&(0..span.start)).rfind('\n').map_or(0, |i| i + 1);
    let line = findings.source(&(start..findings.text.len())).lines().next().unwrap_or_default();
    let problem = findings
        .error(Code::Syntax, span, format!("this is not TOML: {message}"))
        .why("the rest of the file is only checked once it can be read");
    match repaired(line.trim(), message) {
        Some(line) => problem.paste("write", line),
        None => problem.hint(
            "TOML is described at https://toml.io; texts stand in double quotes, sections in square brackets",
        ),
    };
}

/// What a line with a slip was probably meant to be.
fn repaired(line: &str, message: &str) -> Option<String> {
    let plain = line.split('#').next()?.trim_end();
    if message.starts_with("unclosed table") {
        return Some(format!("{plain}]"));
    }
    if message.starts_with("invalid basic string") && plain.matches('"').count() == 1 {
        return Some(format!("{plain}\""));
    }
    let (key, value) = plain.split_once('=')?;
    message
        .starts_with("string values must be quoted")
        .then(|| format!("{} = {}", key.trim_end(), quoted(value.trim())))
}

impl<'a> Reader<'_, 'a> {
    /// The keys that lead here, with `last` behind them, as they would be written in the file.
    fn path_to(&self, last: &str) -> String {
        self.path
            .iter()
            .map(String::as_str)
            .chain([last])
            .filter(|key| !key.is_empty())
            .collect::<Vec<_>>()
            .join(".")
    }

    fn source(&self, span: &Range<usize>) -> &'a str {
        self.findings.source(span)
    }

    /// Reads `value` as what stands at `key`.
    fn below<T: Read>(&mut self, key: &str, value: &Spanned<DeValue<'_>>) -> Option<T> {
        self.path.push(key.to_owned());
        let result = T::read(value, self);
        self.path.pop();
        result
    }

    /// Reports that `value` is of another kind than the key takes.
    fn wrong_type(&mut self, expected: &str, value: &Spanned<DeValue<'_>>) {
        let path = self.path_to("");
        let found = kind_of(value.get_ref());
        let better = better(expected, value.get_ref(), self.source(&value.span()));
        let paste = match better {
            Some(better) => Some(self.findings.line_with(&value.span(), &better)),
            None => (expected == "a section").then(|| format!("[{path}]")),
        };
        let problem = self
            .findings
            .error(Code::WrongType, &value.span(), format!("`{path}` must be {expected}, not {found}"))
            .why(form_of(expected));
        if let Some(paste) = paste {
            problem.paste("write", paste);
        }
    }
}

/// How a kind of value is written.
fn form_of(expected: &str) -> &'static str {
    match expected {
        "a section" => "a section has keys of its own, below a line in square brackets",
        "a list of addresses, or one for each site" => {
            "a list stands in square brackets, each address with its port in double quotes"
        }
        "a list of texts" => "a list stands in square brackets, each text in double quotes",
        "a whole number" => "a number stands without quotes and without a point",
        "true or false" => "one of the two words stands without quotes",
        "a duration" => "a duration is a text with units, such as \"5s\", \"250ms\" or \"1m30s\"",
        "an availability" => "an availability is a text with a percentage, so that every digit counts",
        _ => "a text stands in double quotes",
    }
}

/// What a TOML value is, with its article.
fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a point",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a section",
    }
}

/// What was probably meant by a value of the wrong kind.
fn better(expected: &str, value: &DeValue<'_>, source: &str) -> Option<String> {
    let plain = matches!(value, DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_));
    match (expected, value) {
        ("a duration", DeValue::Integer(_)) => Some(format!("\"{source}s\"")),
        ("an availability", DeValue::Integer(_) | DeValue::Float(_)) => Some(format!("\"{source}%\"")),
        ("a list of texts" | "a list of addresses, or one for each site", DeValue::String(text)) => {
            Some(format!("[{}]", text.split_whitespace().map(quoted).collect::<Vec<_>>().join(", ")))
        }
        ("a whole number", DeValue::String(text)) => text.trim().parse::<i64>().ok().map(|n| n.to_string()),
        ("true or false", DeValue::String(text)) => match text.as_ref() {
            "true" | "yes" | "on" => Some("true".to_owned()),
            "false" | "no" | "off" => Some("false".to_owned()),
            _ => None,
        },
        (expected, _) if plain && expected.starts_with("a text") => Some(quoted(source)),
        _ => None,
    }
}

/// `text` as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
