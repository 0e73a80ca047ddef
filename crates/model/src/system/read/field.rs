//! Values that know where they stand.

use std::borrow::Cow;
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use toml::Spanned;
use toml::de::DeValue;

use super::super::problem::Code;
use super::{Read, Reader};
use crate::name;

/// A value and where it stands, in bytes of the file.
#[derive(Clone, Debug)]
pub(in super::super) struct At<T> {
    pub(in super::super) value: T,
    pub(in super::super) span: Range<usize>,
}

/// What the file says for a key.
#[derive(Clone, Debug, Default)]
pub(in super::super) enum Field<T> {
    /// Nothing: the default holds.
    #[default]
    Absent,
    /// Something that could not be read and was reported; nothing further may be said about it.
    Broken,
    /// This.
    Given(At<T>),
}

/// A section whose keys are names given by the file, in the order of the file.
#[derive(Clone, Debug)]
pub(in super::super) struct Section<T>(pub(in super::super) Vec<Named<T>>);

/// More entries than this in one section are refused, so that checking a file stays quick whatever is in it.
const MAX_ENTRIES: usize = 1000;
/// The longest name, in bytes, of anything in the file; names of nodes, routes and so on are shorter still.
const MAX_NAME: usize = 256;

/// One entry of a [`Section`].
#[derive(Clone, Debug)]
pub(in super::super) struct Named<T> {
    pub(in super::super) name: String,
    /// Where the name stands.
    pub(in super::super) span: Range<usize>,
    /// Where the value stands; for a section, its heading.
    pub(in super::super) value_span: Range<usize>,
    /// `None` when it could not be read, which was reported.
    pub(in super::super) body: Option<T>,
}

impl<T> Field<T> {
    /// The value, if the file gives one that could be read.
    pub(in super::super) fn given(&self) -> Option<&At<T>> {
        match self {
            Self::Given(at) => Some(at),
            Self::Absent | Self::Broken => None,
        }
    }

    /// Where the value stands, if the file gives one that could be read.
    pub(in super::super) fn span(&self) -> Option<&Range<usize>> {
        self.given().map(|at| &at.span)
    }

    pub(in super::super) fn is_absent(&self) -> bool {
        match self {
            Self::Absent => true,
            Self::Broken | Self::Given(_) => false,
        }
    }
}

impl<T> Default for Section<T> {
    fn default() -> Self {
        Self(vec![])
    }
}

impl<T: Read> Read for At<T> {
    const EXPECTED: &'static str = T::EXPECTED;

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        T::read(value, reader).map(|inner| Self { value: inner, span: value.span() })
    }
}

impl<T: Read> Read for Vec<At<T>> {
    const EXPECTED: &'static str = "a list of texts";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let DeValue::Array(array) = value.get_ref() else {
            reader.wrong_type(Self::EXPECTED, value);
            return None;
        };
        // Every element is read, so that each broken one is reported, before one of them breaks the list.
        let items: Vec<Option<At<T>>> = array.iter().map(|item| At::<T>::read(item, reader)).collect();
        items.into_iter().collect()
    }
}

impl<T: Read> Read for Section<T> {
    const EXPECTED: &'static str = "a section";

    fn read(value: &Spanned<DeValue<'_>>, reader: &mut Reader<'_, '_>) -> Option<Self> {
        let DeValue::Table(table) = value.get_ref() else {
            reader.wrong_type(Self::EXPECTED, value);
            return None;
        };
        if table.len() > MAX_ENTRIES {
            reader.too_many(table.len(), value);
            return None;
        }
        let mut entries = Vec::new();
        for (key, value) in table {
            if key.get_ref().len() > MAX_NAME {
                reader.too_long(&key.span());
                continue;
            }
            let body = reader.below(key.get_ref(), value);
            let name = key.get_ref().to_string();
            entries.push(Named { name, span: key.span(), value_span: value.span(), body });
        }
        entries.sort_by_key(|entry| entry.span.start);
        Some(Self(entries))
    }
}

impl Reader<'_, '_> {
    fn too_many(&mut self, count: usize, value: &Spanned<DeValue<'_>>) {
        let path = self.path_to("");
        self.findings
            .error(Code::TooMany, &value.span(), format!("`{path}` has {count} entries"))
            .why(format!("{MAX_ENTRIES} are the most for one system"))
            .hint("describe several systems, one file each");
    }

    fn too_long(&mut self, span: &Range<usize>) {
        self.findings
            .error(Code::InvalidName, span, "this name is too long")
            .why(format!("no name has more than {MAX_NAME} bytes"))
            .hint("choose a short name");
    }
}

impl<T> Section<T> {
    /// Every name of the section, also of entries that could not be read.
    pub(in super::super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| entry.name.as_str())
    }
}

/// Reports a name that cannot be a host label.
pub(in super::super) fn check_name(
    kind: &str,
    name: &str,
    span: &Range<usize>,
    findings: &mut super::super::problem::Findings<'_>,
) {
    if name::is_valid(name) {
        return;
    }
    let paste = tidy_name(name).map(|better| findings.line_with_part(span, name, &better));
    let problem = findings
        .error(Code::InvalidName, span, format!("`{name}` cannot be the name of a {kind}"))
        .why(format!(
            "names become host names, file names and PostgreSQL identifiers: lower-case letters, digits and `-`, \
             beginning with a letter, not ending in `-`, at most {} characters",
            name::MAX_LENGTH
        ));
    if let Some(paste) = paste {
        problem.paste("write for example", paste);
    }
}

/// `name` with what is not allowed replaced or dropped.
fn tidy_name(name: &str) -> Option<String> {
    let letter = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '-',
    };
    let text: String = name.chars().map(letter).collect();
    let text = text.trim_start_matches(|c: char| !c.is_ascii_lowercase());
    let text: String = text.chars().take(name::MAX_LENGTH).collect();
    let text = text.trim_end_matches('-').to_owned();
    (!text.is_empty()).then_some(text)
}

impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }
}

impl<T: JsonSchema> JsonSchema for Section<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("Section of {}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "additionalProperties": generator.subschema_for::<T>() })
    }
}
