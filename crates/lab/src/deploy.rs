//! Putting services' own programs on the nodes, which an operator does on real machines.
//!
//! A program given as a relative path lies in the service's directory on each node. Here it is taken from beside the system
//! file, or else from beside our own binary, where a build has put both.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use model::NodeName;
use model::system::{Service, System};

use crate::error::{LabError, Problem, Result};
use crate::home::Home;
use crate::node::spawn::make_directory;

/// Copies the programs of all services that may run on `node`.
pub(crate) fn programs(system: &System, node: &NodeName, home: &Home, places: &[&Path]) -> Result<()> {
    for (name, service) in &system.services {
        let Some(relative) = relative(service).filter(|_| system.nodes_for(service).contains(&node)) else {
            continue;
        };
        let Some(source) = find(&relative, places) else { continue };
        let target = home.node_root(node).join("services").join(name.as_str()).join(&relative);
        copy(&source, &target)?;
    }
    Ok(())
}

/// Programs that are nowhere to be found.
pub(crate) fn missing(system: &System, places: &[&Path]) -> Vec<Problem> {
    let missing = system.services.iter().filter_map(|(name, service)| {
        let relative = relative(service).filter(|relative| find(relative, places).is_none())?;
        let program = &service.command[0];
        let looked = places.iter().map(|place| place.display().to_string()).collect::<Vec<_>>();
        Some(Problem {
            what: format!(
                "the program {program} of service {name} is neither in {}",
                looked.join(" nor in ")
            ),
            hint: format!("build it and put it at {}", places.first()?.join(relative).display()),
        })
    });
    missing.collect()
}

/// The program of a service below the service's directory; `None` when it is the node's own.
fn relative(service: &Service) -> Option<PathBuf> {
    let program = service.command.first().filter(|_| service.image.is_none())?;
    // What a release brings (`{release}/...`) is on no node before it.
    let own = program.starts_with(['/', '{']) || !program.contains('/');
    (!own).then(|| PathBuf::from(program.trim_start_matches("./")))
}

fn find(relative: &Path, places: &[&Path]) -> Option<PathBuf> {
    places.iter().map(|place| place.join(relative)).find(|path| path.is_file())
}

/// Replaces the program in one step: a running one keeps its file.
fn copy(source: &Path, target: &Path) -> Result<()> {
    make_directory(target.parent().unwrap_or(Path::new("/")))?;
    let fresh = target.with_extension("new");
    let copy = || {
        fs::copy(source, &fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o755))?;
        fs::rename(&fresh, target)
    };
    copy().map_err(LabError::file("copying a program to", target))
}
