//! One macro that makes a raw table, its reader and its schema from one list of documented fields.

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
                let table = reader.table(value, &[$(stringify!($field)),*])?;
                Some(Self { $($field: reader.field(table, stringify!($field)),)* })
            }
        }
    };
}
pub(super) use table;

impl Reader<'_, '_> {
    /// `value` as a table, of which every key not among `known` is reported.
    pub(super) fn table<'t, 'i>(
        &mut self,
        value: &'t Spanned<DeValue<'i>>,
        known: &[&'static str],
    ) -> Option<&'t DeTable<'i>> {
        let DeValue::Table(table) = value.get_ref() else {
            self.wrong_type("a section", value);
            return None;
        };
        for (key, value) in table {
            if !known.contains(&key.get_ref().as_ref()) {
                self.unknown_key(key.get_ref(), &key.span(), value, known);
            }
        }
        Some(table)
    }

    /// What `table` says for `key`.
    pub(super) fn field<T: Read>(&mut self, table: &DeTable<'_>, key: &str) -> Field<T> {
        let Some(value) = table.get(key) else {
            return Field::Absent;
        };
        match self.below(key, value) {
            Some(inner) => Field::Given(At { value: inner, span: value.span() }),
            None => Field::Broken,
        }
    }

    fn unknown_key(
        &mut self,
        key: &str,
        span: &std::ops::Range<usize>,
        value: &Spanned<DeValue<'_>>,
        known: &[&'static str],
    ) {
        if self.findings.is_full() {
            return self.findings.count_only();
        }
        let place =
            if self.path.is_empty() { "the file".to_owned() } else { format!("`[{}]`", self.path_to("")) };
        let what = if self.path.is_empty() { "section" } else { "key" };
        let meant = nearest(key, known.iter().copied());
        let source = self.source(&value.span());
        let prefix = self.path_to("");
        let problem = self
            .findings
            .error(Code::UnknownKey, span, format!("{place} has no {what} `{key}`"))
            .why(format!("it takes {}", known.join(", ")));
        match (meant, value.get_ref()) {
            (Some(meant), DeValue::Table(_)) => {
                let dot = if prefix.is_empty() { "" } else { "." };
                problem.paste("did you mean", format!("[{prefix}{dot}{meant}]"));
            }
            (Some(meant), _) => {
                problem.paste("did you mean", format!("{meant} = {source}"));
            }
            (None, _) => {
                problem.hint("remove it");
            }
        }
    }
}
