//! What must hold before `up` creates anything. All that is wrong is said at once.

use std::net::SocketAddr;
use std::path::Path;

use model::system::System;

use crate::deploy;
use crate::error::Problem;
use crate::forward::Forward;
use crate::home::Home;
use crate::listeners;
use crate::loopback;
use crate::manifest::{Manifest, Mode};
use crate::network;
use crate::options::Options;
use crate::process;
use crate::programs;
use crate::up;

/// Free space that a database member needs to be founded and to fill its WAL (`max_wal_size` is 1 GB by default).
const SPACE_PER_MEMBER: u64 = 600 << 20;
/// Free space for everything else of a node.
const SPACE_PER_NODE: u64 = 50 << 20;
/// The longest path of a unix socket, without the final zero byte (unix(7)).
const SOCKET_PATH_LIMIT: usize = 107;

/// Everything that stands in the way.
pub(crate) fn check(
    system: &System,
    manifest: &Manifest,
    former: Option<&Manifest>,
    home: &Home,
    options: &Options,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    missing_programs(manifest, options, &mut problems);
    too_little_space(system, home, options, &mut problems);
    closed_directories(system, home, &mut problems);
    long_paths(system, home, &mut problems);
    match manifest.mode {
        Mode::Namespaces => strangers(home, &mut problems),
        Mode::Loopback => taken_ports(system, &mut problems),
    }
    // A system all of whose nodes are dead may still have its door, which goes before the new one comes.
    let own: &[Forward] = match former {
        Some(former) if former.forwarder.is_some_and(process::is_alive) => &former.forwards,
        Some(_) | None => &[],
    };
    for forward in manifest.forwards.iter().filter(|forward| !own.iter().any(|o| o.listen == forward.listen))
    {
        if let Some(what) = listeners::obstacle(forward.listen) {
            let what = format!("route {} cannot be reached from this machine: {what}", forward.route);
            let hint =
                "end that process, or use `--no-forward` to run without a door to the machine".to_owned();
            problems.push(Problem { what, hint });
        }
    }
    problems.extend(deploy::missing(system, &up::sources(&manifest.source, options)));
    for check in &options.checks {
        problems.extend(check(system));
    }
    problems
}

fn missing_programs(manifest: &Manifest, options: &Options, problems: &mut Vec<Problem>) {
    let mut needed = Vec::new();
    if manifest.mode == Mode::Namespaces {
        needed.extend([("ip", "iproute2"), ("nft", "nftables")]);
    }
    if options.data_volume.is_some() {
        needed.extend([("mkfs.ext4", "e2fsprogs"), ("mount", "mount"), ("losetup", "mount")]);
    }
    for (program, package) in needed {
        if programs::find(program).is_none() {
            let what = format!("the program {program} is not installed");
            let hint = format!("`make setup` installs it, as does `apt-get install {package}`");
            problems.push(Problem { what, hint });
        }
    }
    if !options.program.is_file() {
        let what = format!("the program {} does not exist", options.program.display());
        problems.push(Problem { what, hint: "it must be the mainstay binary".to_owned() });
    }
}

fn too_little_space(system: &System, home: &Home, options: &Options, problems: &mut Vec<Problem>) {
    let members: usize = system.databases.values().map(|database| database.members.len()).sum();
    let volumes = options.data_volume.unwrap_or(0) * system.nodes.len() as u64;
    let needed = SPACE_PER_MEMBER * members as u64 + SPACE_PER_NODE * system.nodes.len() as u64 + volumes;
    let Some(existing) = home.directory().ancestors().find(|directory| directory.exists()) else { return };
    let Ok(space) = rustix::fs::statvfs(existing) else { return };
    let free = space.f_bavail * space.f_frsize;
    if free < needed {
        let what = format!(
            "{} has {} MB free, the system needs about {} MB",
            existing.display(),
            free >> 20,
            needed >> 20
        );
        problems.push(Problem { what, hint: "free space there".to_owned() });
    }
}

/// PostgreSQL runs as a user of its own, who must be able to enter every directory above the data.
fn closed_directories(system: &System, home: &Home, problems: &mut Vec<Problem>) {
    use std::os::unix::fs::PermissionsExt;
    if system.databases.is_empty() || !rustix::process::geteuid().is_root() {
        return;
    }
    let closed =
        |directory: &&Path| std::fs::metadata(directory).is_ok_and(|m| m.permissions().mode() & 0o001 == 0);
    for directory in home.directory().ancestors().skip(1).filter(closed) {
        let what = format!("the user PostgreSQL runs as cannot enter {}", directory.display());
        let hint = format!("`chmod o+x {}`", directory.display());
        problems.push(Problem { what, hint });
    }
}

fn long_paths(system: &System, home: &Home, problems: &mut Vec<Problem>) {
    let longest = system.databases.iter().flat_map(|(name, database)| {
        let socket = move |node| {
            let port = database.port;
            home.node_root(node).join("run").join(format!("pg-{name}")).join(format!(".s.PGSQL.{port}.lock"))
        };
        database.members.iter().map(socket)
    });
    for path in longest.filter(|path| path.as_os_str().len() > SOCKET_PATH_LIMIT) {
        let what = format!("the path of a unix socket would be too long: {}", path.display());
        problems
            .push(Problem { what, hint: "use a shorter name for the system, node or database".to_owned() });
    }
}

/// Namespaces with our names that no record speaks of.
fn strangers(home: &Home, problems: &mut Vec<Problem>) {
    if home.manifest().exists() {
        return;
    }
    for namespace in network::existing(&home.system) {
        let what = format!("the network namespace {} already exists", namespace.name());
        let hint = format!("`mainstay down {}` removes it", home.system);
        problems.push(Problem { what, hint });
    }
}

/// In loopback mode every port of every node is one of this machine.
fn taken_ports(system: &System, problems: &mut Vec<Problem>) {
    let loopback = loopback::addresses(system);
    for (name, node) in &system.nodes {
        for address in node.lines.values().filter_map(|address| loopback.get(address)) {
            for (port, what) in ports(system, name) {
                if let Some(obstacle) = listeners::obstacle(SocketAddr::new(*address, port)) {
                    let what = format!("{what} of node {name} cannot listen: {obstacle}");
                    problems.push(Problem { what, hint: "end that process or change the port".to_owned() });
                }
            }
        }
    }
}

/// The ports that a node listens on, with the name of what listens.
fn ports(system: &System, name: &model::NodeName) -> Vec<(u16, String)> {
    let agent = system.nodes.get(name).map(|node| (node.agent_port, "the agent".to_owned()));
    let databases = system.databases_on(name).map(|(d, database)| (database.port, format!("database {d}")));
    let works = !system.is_witness(name);
    let routes =
        system.routes.iter().filter(|_| works).map(|(r, route)| (route.listen.port, format!("route {r}")));
    agent.into_iter().chain(databases).chain(routes).collect()
}
