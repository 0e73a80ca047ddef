//! Which versions were measured.

use std::fs;
use std::path::Path;
use std::process::Command;

/// All that a reader of the table wants to know, as one line: name and version of each.
pub(crate) fn all(postgres: &str, modules: &Path) -> String {
    let tools = [
        ("etcd", "etcd", "--version"),
        ("HAProxy", "haproxy", "-v"),
        ("pg_auto_failover", "pg_autoctl", "--version"),
    ];
    let tools = tools.into_iter().filter_map(|(name, program, option)| {
        let output = Command::new(program).arg(option).output().ok()?;
        Some(format!("{name} {}", number(&String::from_utf8_lossy(&output.stdout))?))
    });
    let patroni = fs::read_to_string(modules.join("patroni/version.py")).unwrap_or_default();
    let patroni = number(&patroni).map(|version| format!("Patroni {version}"));
    let ours = format!("PostgreSQL {postgres}");
    std::iter::once(ours).chain(patroni).chain(tools).collect::<Vec<_>>().join(", ")
}

/// The first word of numbers with dots between them.
fn number(text: &str) -> Option<String> {
    let mut words =
        text.split(|c: char| !(c.is_ascii_digit() || c == '.')).map(|word| word.trim_matches('.'));
    words.find(|word| word.contains('.')).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        assert_eq!(number("pg_autoctl version 2.0\n").as_deref(), Some("2.0"));
        assert_eq!(number("HAProxy version 2.6.12-1+deb12u4 2025/10/03").as_deref(), Some("2.6.12"));
        assert_eq!(number("\"\"\"The version.\n\n\"\"\"\n__version__ = '4.1.5'\n").as_deref(), Some("4.1.5"));
        assert_eq!(number("none."), None);
    }
}
