//! Every Rust file is part of a crate: a test that no `main.rs` declares is compiled by nobody.

use crate::code;
use crate::problem::Problem;
use crate::tree::{SourceFile, Tree};

/// Reports source and test files that nobody declares, and integration tests outside the crate's one test binary.
pub(crate) fn check(tree: &Tree) -> Vec<Problem> {
    tree.rust().filter_map(|file| problem_of(tree, file)).collect()
}

fn problem_of(tree: &Tree, file: &SourceFile) -> Option<Problem> {
    let dir = file.crate_dir()?;
    let inside = &file.path[dir.len() + 1..];
    let (folder, name) = inside.rsplit_once('/')?;
    if is_named(tree, dir, folder, inside, name) {
        return None;
    }
    if folder == "tests" || (inside.starts_with("tests/") && !inside.starts_with("tests/it/")) {
        return Some(Problem {
            path: file.path.clone(),
            line: 1,
            what: "integration test outside `tests/it/`".to_owned(),
            why: "each test binary links the whole crate again; one binary per crate keeps the build short",
            hint: format!("move it to `{dir}/tests/it/` and declare it in `main.rs` there"),
        });
    }
    let is_root = ["main.rs", "lib.rs"].contains(&name) && ["src", "tests/it"].contains(&folder);
    if is_root || folder.starts_with("src/bin") {
        return None;
    }
    let (module, parents) = place(dir, folder, name)?;
    let declared = parents.iter().filter_map(|path| tree.file(path)).any(|parent| declares(parent, module));
    (!declared).then(|| Problem {
        path: file.path.clone(),
        line: 1,
        what: format!("no `mod {module};` declares this file"),
        why: "a file that nobody declares is not compiled and its tests do not run",
        hint: format!("declare it in one of {}", parents.join(", ")),
    })
}

/// Whether the manifest names the file as a program's or a test's root, or a file beside it as a module's path.
fn is_named(tree: &Tree, dir: &str, folder: &str, inside: &str, name: &str) -> bool {
    let manifest = tree.file(&format!("{dir}/Cargo.toml"));
    let beside = format!("{dir}/{folder}/");
    let attribute = format!("#[path = \"{name}\"]");
    let is_beside =
        |file: &&SourceFile| file.path.strip_prefix(&beside).is_some_and(|rest| !rest.contains('/'));
    manifest.is_some_and(|manifest| manifest.text.contains(&format!("path = \"{inside}\"")))
        || tree.rust().filter(is_beside).any(|file| file.text.contains(&attribute))
}

/// The module's name and the files that may declare it.
fn place<'a>(dir: &str, folder: &'a str, name: &'a str) -> Option<(&'a str, Vec<String>)> {
    let (module, above) = match name.strip_suffix(".rs")? {
        "mod" => folder.rsplit_once('/').map(|(above, module)| (module, above))?,
        stem => (stem, folder),
    };
    let parents = if ["src", "tests/it"].contains(&above) {
        ["lib.rs", "main.rs"].map(|root| format!("{dir}/{above}/{root}")).to_vec()
    } else {
        vec![format!("{dir}/{above}/mod.rs"), format!("{dir}/{above}.rs")]
    };
    Some((module, parents))
}

fn declares(parent: &SourceFile, module: &str) -> bool {
    let masked = code::mask(&parent.text);
    code::words(&masked, "mod").any(|at| {
        let after = masked[at + 3..].trim_start();
        code::identifier(after) == module && after[module.len()..].trim_start().starts_with(';')
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tree;

    #[test]
    fn forgotten_files_are_found() {
        let source = tree(&[
            ("crates/a/src/lib.rs", "pub mod b;\nmod here;\n// mod lost;\nmod c { mod d; }\n"),
            ("crates/a/src/b/mod.rs", "mod inner;"),
            ("crates/a/src/b/inner.rs", ""),
            ("crates/a/src/b/lost.rs", ""),
            ("crates/a/src/lost.rs", ""),
            ("crates/a/src/here.rs", "#[cfg(test)]\n#[path = \"elsewhere.rs\"]\nmod tests;"),
            ("crates/a/src/elsewhere.rs", ""),
            ("crates/a/Cargo.toml", "[[bin]]\npath = \"tests/helper/main.rs\"\n"),
            ("crates/a/tests/helper/main.rs", ""),
            ("crates/a/tests/it/main.rs", "mod good;"),
            ("crates/a/tests/it/good.rs", ""),
            ("crates/a/tests/it/lost.rs", ""),
            ("crates/a/tests/other.rs", ""),
        ]);
        let found: Vec<String> = check(&source).into_iter().map(|p| p.path).collect();
        let lost = ["src/b/lost.rs", "src/lost.rs", "tests/it/lost.rs", "tests/other.rs"];
        assert_eq!(found, lost.map(|path| format!("crates/a/{path}")));
    }
}
