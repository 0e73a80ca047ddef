//! Old sinners with their present size, which may only go down.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::checks::length;
use crate::tree::Tree;

/// Where the ratchet is kept.
pub(crate) const PATH: &str = "tidy/ratchet.toml";

/// Sizes that were there before the rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Ratchet {
    /// Banned crates that are still in `Cargo.lock`.
    #[serde(default)]
    pub(crate) banned: Vec<String>,
    /// Files longer than the limit.
    #[serde(default)]
    pub(crate) files: BTreeMap<String, usize>,
    /// Functions longer than the limit, as `path::name`.
    #[serde(default)]
    pub(crate) functions: BTreeMap<String, usize>,
}

impl Ratchet {
    /// The ratchet of this tree; an absent file is an empty ratchet.
    pub(crate) fn of(tree: &Tree) -> Result<Self, String> {
        tree.file(PATH).map_or(Ok(Self::default()), |file| {
            toml::from_str(&file.text).map_err(|e| format!("{PATH} cannot be read: {e}"))
        })
    }

    /// The same entries at today's sizes: never raised, never added, and gone when they obey the limit.
    pub(crate) fn lowered(&self, tree: &Tree) -> Self {
        let lower = |old: &BTreeMap<String, usize>, now: &BTreeMap<String, usize>, limit: usize| {
            let sinks = |(key, was): (&String, &usize)| {
                let size = (*now.get(key)?).min(*was);
                (size > limit).then(|| (key.clone(), size))
            };
            old.iter().filter_map(sinks).collect()
        };
        Self {
            banned: self.banned.clone(),
            files: lower(&self.files, &length::file_sizes(tree), length::FILE_LIMIT),
            functions: lower(&self.functions, &length::function_sizes(tree), length::FUNCTION_LIMIT),
        }
    }

    /// The file's text.
    pub(crate) fn to_text(&self) -> String {
        let table = |entries: &BTreeMap<String, usize>| {
            entries.iter().map(|(key, size)| format!("\"{key}\" = {size}\n")).collect::<String>()
        };
        let banned: Vec<String> = self.banned.iter().map(|name| format!("\"{name}\"")).collect();
        format!(
            "# What broke a house rule before it was a rule. Entries may only shrink or go: `cargo run -p tidy -- \
             --lower`.\nbanned = [{}]\n\n[files]\n{}\n[functions]\n{}",
            banned.join(", "),
            table(&self.files),
            table(&self.functions)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tree;

    #[test]
    fn lowering_never_raises_and_never_adds() {
        let long = "let x = 1;\n".repeat(700);
        let source = tree(&[
            ("crates/a/src/grown.rs", &long),
            ("crates/a/src/new.rs", &long),
            ("crates/a/src/shrunk.rs", &long),
            ("crates/a/src/short.rs", "fn a() {}\n"),
        ]);
        let old = Ratchet {
            files: [("grown", 650), ("shrunk", 900), ("short", 800), ("gone", 800)]
                .map(|(name, size)| (format!("crates/a/src/{name}.rs"), size))
                .into(),
            ..Ratchet::default()
        };
        let lowered = old.lowered(&source);
        let expected =
            [("crates/a/src/grown.rs".to_owned(), 650), ("crates/a/src/shrunk.rs".to_owned(), 700)];
        assert_eq!(lowered.files, expected.into());
        let read_back = tree(&[(PATH, &lowered.to_text())]);
        assert_eq!(Ratchet::of(&read_back), Ok(lowered));
    }
}
