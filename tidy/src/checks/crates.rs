//! The direction of dependencies, what may not be among them, and what every crate must say of itself.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use crate::problem::Problem;
use crate::ratchet::{self, Ratchet};
use crate::tree::{SourceFile, Tree};

/// Which crates of the workspace each of them may use. ARCHITECTURE.md draws the same picture.
const MAY_USE: [(&str, &[&str]); 14] = [
    ("model", &[]),
    ("decide", &["model"]),
    ("checker", &["model"]),
    ("transport", &["model"]),
    ("coordination", &["model", "checker"]),
    ("effects", &["model"]),
    ("proxy", &["model"]),
    ("lab", &["model", "checker", "effects"]),
    ("mainstay", &["model", "decide", "checker", "transport", "coordination", "effects", "proxy", "lab"]),
    ("peers", &["model", "effects", "lab"]),
    ("simulation", &["model", "decide", "proxy"]),
    ("shop", &[]),
    ("tidy", &[]),
    ("base2histogram", &[]),
];

/// Crates that must be able to run in virtual time.
const PURE: [&str; 3] = ["model", "decide", "checker"];

/// What a pure crate may not pull in, not even by way of another.
const RUNTIMES: [&str; 4] = ["tokio", "async-std", "smol", "mio"];

const DIRECTION: &str =
    "arrows point one way, so that the parts that decide can be read, tested and simulated alone";
const PURITY: &str = "decisions have no clock, no I/O and no runtime: they run unchanged in the simulator";
const FACE: &str = "the first thing a reader asks of a crate is what it is for";
const BANNED: &str = "deny.toml bans it, with the reason there";

/// Reports wrong directions, runtimes below pure crates, banned crates, and crates that do not say what they are.
/// `built` names every package that is compiled.
pub(crate) fn check(
    tree: &Tree,
    built: &BTreeSet<String>,
    ratchet: &Ratchet,
) -> Result<Vec<Problem>, String> {
    let manifests = tree.manifests().map(Manifest::read).collect::<Result<Vec<_>, _>>()?;
    let names: BTreeSet<&str> = manifests.iter().map(|m| m.name.as_str()).collect();
    let mut problems: Vec<Problem> = manifests.iter().flat_map(|m| directions(m, &names)).collect();
    problems.extend(manifests.iter().flat_map(|m| face(tree, m)));
    let lock = Lock::of(tree)?;
    problems.extend(PURE.iter().filter(|name| names.contains(**name)).filter_map(|name| lock.impure(name)));
    problems.extend(banned(tree, &lock, built, ratchet)?);
    Ok(problems)
}

struct Manifest<'a> {
    file: &'a SourceFile,
    name: String,
    table: Table,
}

impl<'a> Manifest<'a> {
    fn read(file: &'a SourceFile) -> Result<Self, String> {
        let table: Table =
            toml::from_str(&file.text).map_err(|e| format!("{} cannot be read: {e}", file.path))?;
        let name =
            table.get("package").and_then(|p| p.get("name")).and_then(Value::as_str).unwrap_or_default();
        Ok(Self { file, name: name.to_owned(), table: table.clone() })
    }

    fn dir(&self) -> &str {
        self.file.path.trim_end_matches("/Cargo.toml")
    }

    fn problem(&self, at: &str, what: String, why: &'static str, hint: String) -> Problem {
        let line =
            self.file.lines().find(|(_, line)| line.trim_start().starts_with(at)).map_or(1, |(n, _)| n);
        Problem { path: self.file.path.clone(), line, what, why, hint }
    }
}

fn directions(manifest: &Manifest<'_>, names: &BTreeSet<&str>) -> Vec<Problem> {
    let Some((_, allowed)) = MAY_USE.iter().find(|(name, _)| *name == manifest.name) else {
        let what = format!("crate `{}` has no place in the picture", manifest.name);
        let hint = "add it to MAY_USE in tidy/src/checks/crates.rs and to ARCHITECTURE.md".to_owned();
        return vec![manifest.problem("name", what, DIRECTION, hint)];
    };
    let used = ["dependencies", "build-dependencies", "dev-dependencies"]
        .into_iter()
        .filter_map(|section| manifest.table.get(section).and_then(Value::as_table))
        .flat_map(Table::keys);
    let wrong = used.filter(|used| names.contains(used.as_str()) && !allowed.contains(&used.as_str()));
    wrong
        .map(|used| {
            let what = format!("`{}` may not use `{used}`", manifest.name);
            let hint = format!(
                "it may use: {}",
                if allowed.is_empty() { "none".into() } else { allowed.join(", ") }
            );
            manifest.problem(used, what, DIRECTION, hint)
        })
        .collect()
}

fn face(tree: &Tree, manifest: &Manifest<'_>) -> Vec<Problem> {
    let package = manifest.table.get("package");
    let mut problems = Vec::new();
    let described =
        package.and_then(|p| p.get("description")).and_then(Value::as_str).is_some_and(|d| d.len() >= 10);
    if !described {
        let what = format!("crate `{}` has no description", manifest.name);
        problems.push(manifest.problem("[package]", what, FACE, "add `description = \"...\"`".to_owned()));
    }
    for (section, key) in [("package", "license"), ("lints", "workspace")] {
        if manifest.table.get(section).and_then(|s| s.get(key)).is_none() {
            let what =
                format!("crate `{}` does not take `{section}.{key}` from the workspace", manifest.name);
            let hint = if key == "license" {
                "add `license.workspace = true`"
            } else {
                "add `[lints]\\nworkspace = true`"
            };
            problems.push(manifest.problem(
                "[package]",
                what,
                "one licence and one set of lints for all",
                hint.to_owned(),
            ));
        }
    }
    let roots = ["lib.rs", "main.rs"].map(|root| format!("{}/src/{root}", manifest.dir()));
    let undocumented = roots.iter().filter_map(|path| tree.file(path)).filter(|f| !f.text.starts_with("//!"));
    problems.extend(undocumented.map(|file| Problem {
        path: file.path.clone(),
        line: 1,
        what: format!("crate `{}` has no crate documentation", manifest.name),
        why: FACE,
        hint: "begin the file with `//! ...`".to_owned(),
    }));
    problems
}

/// `Cargo.lock`: which package uses which.
struct Lock {
    uses: BTreeMap<String, Vec<String>>,
}

impl Lock {
    fn of(tree: &Tree) -> Result<Self, String> {
        let text = tree.file("Cargo.lock").map_or("", |file| &file.text);
        let table: Table = toml::from_str(text).map_err(|e| format!("Cargo.lock cannot be read: {e}"))?;
        let mut uses: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for package in table.get("package").and_then(Value::as_array).into_iter().flatten() {
            let Some(name) = package.get("name").and_then(Value::as_str) else { continue };
            let used = package.get("dependencies").and_then(Value::as_array).into_iter().flatten();
            // An entry is `name`, `name version` or `name version (source)`.
            let used = used.filter_map(Value::as_str).filter_map(|entry| entry.split(' ').next());
            uses.entry(name.to_owned()).or_default().extend(used.map(str::to_owned));
        }
        Ok(Self { uses })
    }

    /// The packages that may use `name`.
    fn users(&self, name: &str) -> Vec<&str> {
        let uses = |(_, used): &(&String, &Vec<String>)| used.iter().any(|used| used == name);
        self.uses.iter().filter(uses).map(|(user, _)| user.as_str()).collect()
    }

    /// The way from a pure crate to a runtime, if there is one.
    fn impure(&self, name: &str) -> Option<Problem> {
        let mut ways = vec![vec![name.to_owned()]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            let last = way.last()?.clone();
            if RUNTIMES.contains(&last.as_str()) {
                return Some(Problem {
                    path: format!("crates/{name}/Cargo.toml"),
                    line: 1,
                    what: format!("`{name}` pulls in `{last}` ({})", way.join(" -> ")),
                    why: PURITY,
                    hint: "move what needs it to `effects`, or drop the dependency's feature".to_owned(),
                });
            }
            if seen.insert(last.clone()) {
                let next = self.uses.get(&last).into_iter().flatten();
                ways.extend(next.map(|used| way.iter().cloned().chain([used.clone()]).collect()));
            }
        }
        None
    }
}

/// Banned packages that are compiled. `Cargo.lock` alone does not tell: it also lists what a feature that nobody asks for
/// would bring.
fn banned(
    tree: &Tree,
    lock: &Lock,
    built: &BTreeSet<String>,
    ratchet: &Ratchet,
) -> Result<Vec<Problem>, String> {
    let Some(file) = tree.file("deny.toml") else { return Ok(Vec::new()) };
    let table: Table = toml::from_str(&file.text).map_err(|e| format!("deny.toml cannot be read: {e}"))?;
    let list = table.get("bans").and_then(|b| b.get("deny")).and_then(Value::as_array).into_iter().flatten();
    let mut problems = Vec::new();
    for name in list.filter_map(|entry| entry.get("crate").and_then(Value::as_str)) {
        let (present, listed) = (built.contains(name), ratchet.banned.iter().any(|b| b == name));
        let problem = |path: &str, what: String, hint: &str| Problem {
            path: path.to_owned(),
            line: 1,
            what,
            why: BANNED,
            hint: hint.to_owned(),
        };
        if present && !listed {
            let what = format!("`{name}` is in the tree, used by {}", lock.users(name).join(", "));
            let hint = "find the feature that pulls it in: `cargo tree --workspace -e features -i NAME`";
            problems.push(problem("Cargo.lock", what, hint));
        } else if listed && !present {
            let what = format!("`{name}` is gone and still listed");
            problems.push(problem(ratchet::PATH, what, "remove it from `banned`"));
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::tree;

    const GOOD: &str = "[package]\nname = \"decide\"\ndescription = \"Every decision\"\nlicense.workspace = true\n\
                        [lints]\nworkspace = true\n[dependencies]\nmodel.workspace = true\n";
    const MODEL: &str = "[package]\nname = \"model\"\ndescription = \"The words of it\"\nlicense.workspace = true\n\
                         [lints]\nworkspace = true\n";

    fn whats(decide: &str, lock: &str, ratchet: &Ratchet) -> Vec<String> {
        let source = tree(&[
            ("Cargo.lock", lock),
            ("crates/decide/Cargo.toml", decide),
            ("crates/decide/src/lib.rs", "//! Decisions.\n"),
            ("crates/model/Cargo.toml", MODEL),
            ("crates/model/src/lib.rs", "//! Words.\n"),
            ("deny.toml", "[bans]\ndeny = [{ crate = \"ring\" }]\n"),
        ]);
        let lock: Table = toml::from_str(lock).unwrap();
        let built = lock.get("package").and_then(Value::as_array).into_iter().flatten();
        let built = built.filter_map(|package| package.get("name")?.as_str().map(str::to_owned)).collect();
        check(&source, &built, ratchet).unwrap().into_iter().map(|p| p.what).collect()
    }

    #[test]
    fn a_good_crate_is_left_alone() {
        assert_eq!(whats(GOOD, "", &Ratchet::default()), [""; 0]);
    }

    #[test]
    fn wrong_directions_are_found() {
        let upside_down = GOOD.replace("name = \"decide\"", "name = \"model\"");
        assert_eq!(whats(&upside_down, "", &Ratchet::default()), ["`model` may not use `model`"]);
        let stranger = GOOD.replace("name = \"decide\"", "name = \"new\"");
        assert_eq!(whats(&stranger, "", &Ratchet::default()), ["crate `new` has no place in the picture"]);
    }

    #[test]
    fn crates_say_what_they_are() {
        let silent =
            GOOD.replace("description = \"Every decision\"\n", "").replace("workspace = true\n[dep", "[dep");
        let found = whats(&silent, "", &Ratchet::default());
        assert_eq!(found.len(), 2, "{found:?}");
    }

    #[test]
    fn a_runtime_is_found_through_others() {
        let lock = "[[package]]\nname = \"decide\"\ndependencies = [\"far 1.0.0\"]\n\
                    [[package]]\nname = \"far\"\ndependencies = [\"tokio\"]\n[[package]]\nname = \"tokio\"\n";
        assert_eq!(
            whats(GOOD, lock, &Ratchet::default()),
            ["`decide` pulls in `tokio` (decide -> far -> tokio)"]
        );
    }

    #[test]
    fn a_banned_crate_that_is_only_locked_is_not_built() {
        let source = tree(&[
            ("Cargo.lock", "[[package]]\nname = \"ring\"\n"),
            ("deny.toml", "[bans]\ndeny = [{ crate = \"ring\" }]\n"),
        ]);
        assert_eq!(check(&source, &BTreeSet::new(), &Ratchet::default()), Ok(vec![]));
    }

    #[test]
    fn banned_crates_are_found_and_the_ratchet_lets_go() {
        let lock = "[[package]]\nname = \"tls\"\ndependencies = [\"ring\"]\n[[package]]\nname = \"ring\"\n";
        let listed = Ratchet { banned: vec!["ring".to_owned()], ..Ratchet::default() };
        assert_eq!(whats(GOOD, lock, &Ratchet::default()), ["`ring` is in the tree, used by tls"]);
        assert_eq!(whats(GOOD, lock, &listed), [""; 0]);
        assert_eq!(whats(GOOD, "", &listed), ["`ring` is gone and still listed"]);
    }
}
