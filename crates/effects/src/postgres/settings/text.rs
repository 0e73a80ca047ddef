//! PostgreSQL's configuration syntax: writing it, and reading back what we wrote.

use std::collections::BTreeMap;

/// Whether `text` can be a parameter's name, with or without an extension's prefix.
pub(super) fn is_name(text: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    !text.is_empty() && text.split('.').count() <= 2 && text.split('.').all(part)
}

/// Appends `name = 'value'`. Inside the quotes a quote is doubled and a backslash escaped (guc-file.l).
pub(super) fn push(file: &mut String, name: &str, value: &str) {
    let value = value.replace('\\', "\\\\").replace('\'', "''");
    file.push_str(&format!("{name} = '{value}'\n"));
}

/// Reads back a file of lines made by [`push`]; other lines are ignored.
pub(super) fn parse(file: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (name, value) = line.split_once(" = '")?;
        let value = value.strip_suffix('\'')?;
        Some((name.to_owned(), value.replace("''", "'").replace("\\\\", "\\")))
    };
    file.lines().filter_map(line).collect()
}

/// A value in a connection string (libpq, "Keyword/Value Connection Strings"): quotes and backslashes are escaped.
pub(in super::super) fn conninfo_value(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut file = String::from("# comment\n");
        for value in ["", "it's", r"a\b", r"\'", "x = 'y'"] {
            push(&mut file, "a", value);
            assert_eq!(parse(&file)["a"], value);
        }
    }

    #[test]
    fn names_are_lower_case_with_at_most_one_dot() {
        assert!(is_name("work_mem") && is_name("pg_stat_statements.max"));
        for bad in ["", "a b", "a.b.c", "1a", "a=", "a\nb", ".a"] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
