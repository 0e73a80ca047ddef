//! One macro that makes a raw table, its reader and its schema from one list of documented fields.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::super::nearest::nearest;
use super::super::problem::Code;
use super::{At, Field, Read, Reader};

/// Makes a struct with a [`Field`] for every key, and reads it: unknown keys are reported with the nearest known one.
macro_rules! table {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }) => {
        #[derive(Clone, Debug, Default, schemars::JsonSchema)]
        #[schemars(deny_unknown_fields, default)]
        $(#[$meta])*
        pub(in super::super) struct $name {
            $($(#[$field_meta])* pub(in super::super) $field: $crate::system::read::Field<$kind>,)*
        }

        impl $crate::system::read::Read for $name {
            const EXPECTED: &'static str = "a section";

            fn read(
                value: &toml::Spanned<toml::de::DeValue<'_>>,
                reader: &mut $crate::system::read::Reader<'_, '_>,
            ) -> Option<Self> {
                let (table, meant) = reader.table(value, &[$(stringify!($field)),*])?;
                Some(Self { $($field: reader.field(table, stringify!($field), &meant),)* })
            }
        }
    };
}
pub(super) use table;

impl Reader<'_, '_> {
    /// `value` as a table, of which every key not among `known` is reported; with the keys that were meant by them.
    pub(super) fn table<'t, 'i>(
        &mut self,
        value: &'t Spanned<DeValue<'i>>,
        known: &[&'static str],
    ) -> Option<(&'t DeTable<'i>, Vec<&'static str>)> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type("a section", value);
            return None;
        };
        let mut meant = vec![];
        for (key, value) in table {
            if known.contains(&key.get_ref().as_ref()) {
                continue;
            }
            if self.findings.is_full() {
                self.findings.count_only();
                continue;
            }
            let nearest = nearest(key.get_ref(), known.iter().copied());
            self.unknown_key(key.get_ref(), &key.span(), value, nearest, known);
            meant.extend(nearest);
        }
        Some((table, meant))
    }

    /// What `table` says for `key`. A key that was misspelled, so that it is among `meant`, was not left out.
    pub(super) fn field<T: Read>(&mut self, table: &DeTable<'_>, key: &str, meant: &[&str]) -> Field<T> {
        let Some(value) = table.get(key) else {
            return if meant.contains(&key) { Field::Broken } else { Field::Absent };
        };
        match self.below(key, value) {
            Some(inner) => Field::Given(At { value: inner, span: value.span() }),
            None => Field::Broken,
        }
    }

    fn unknown_key(
        &mut self,
        key: &str,
        span: &Range<usize>,
        value: &Spanned<DeValue<'_>>,
        meant: Option<&str>,
        known: &[&str],
    ) {
        let (place, what) = match self.path_to("").as_str() {
            "" => ("the file".to_owned(), "section"),
            path => (format!("`[{path}]`"), "key"),
        };
        let paste = meant.map(|meant| match value.get_ref() {
            // A section, or the first part of a dotted key: its line is shown with the name put right.
            DeValue::Table(_) => self.findings.line_with(span, meant),
            DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_) => format!("{meant} = {}", self.source(&value.span())),
        });
        let problem = self
            .findings
            .error(Code::UnknownKey, span, format!("{place} has no {what} `{key}`"))
            .why(format!("it takes {}", known.join(", ")));
        match paste {
            Some(paste) => problem.paste("did you mean", paste),
            None => problem.hint("remove it"),
        };
    }
}
