//! Switching a node on.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use effects::process::ProcessId;
use model::NodeName;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::setsid;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::init::READY;
use super::{MARK, NodeSpec};
use crate::clocks::Files;
use crate::error::{LabError, Result};
use crate::freezer::Freezer;
use crate::home::Home;
use crate::manifest::{Manifest, Mode, store};
use crate::namespace;
use crate::network;
use crate::process;
use crate::programs;

/// How long an init may take to mount what it needs.
const START_LIMIT: Duration = Duration::from_secs(20);

/// Variables of the user's environment that nodes get; a real node has none of the others.
const INHERITED: [&str; 6] = ["LANG", "LC_ALL", "TZ", "RUST_LOG", "RUST_BACKTRACE", "HOME"];

/// Writes down how the node is started, now and later.
pub(crate) fn write_spec(home: &Home, manifest: &Manifest, name: &NodeName) -> Result<()> {
    let record = manifest.node(name)?;
    let root = home.node_root(name);
    let spec = NodeSpec {
        node: name.clone(),
        isolated: manifest.mode == Mode::Namespaces,
        log: home.node_log(name),
        command: record.command.clone(),
        directory: manifest.source.parent().unwrap_or(Path::new("/")).to_owned(),
        environment: environment(&root),
        volume: record.volume.map(|_| (home.volume(name), root.join("databases"))),
        clocks: record.own_clocks.then(|| Files::of(home, name)),
        root,
    };
    let path = home.node_spec(name);
    let text = serde_json::to_vec_pretty(&spec)
        .map_err(|error| LabError::Damaged { path: path.clone(), reason: error.to_string() })?;
    store(&path, &text)
}

/// Starts the init and waits until it is in charge. The node's network must exist.
pub(crate) fn power_on(home: &Home, manifest: &Manifest, name: &NodeName) -> Result<ProcessId> {
    let root = home.node_root(name);
    for directory in [root.join("run"), root.join("databases")] {
        make_directory(&directory)?;
    }
    if manifest.node(name)?.own_clocks {
        Files::of(home, name).make()?;
    }
    let mut command = Command::new(&manifest.program);
    command.args(["lab-node", "init"]).arg(home.node_spec(name));
    command.env_clear().envs(environment(&root)).current_dir("/");
    let freezer = Freezer::create(&manifest.system, name);
    let child = match manifest.mode {
        Mode::Namespaces => {
            spawn_isolated(network::node(&manifest.system, name).open()?, command, freezer.as_ref())
        }
        Mode::Loopback => {
            without_network_rights(&mut command);
            detach(&mut command, freezer.as_ref()).and_then(|()| command.spawn())
        }
    };
    let child = child.map_err(LabError::io(|| format!("starting node {name}")))?;
    wait_ready(child, START_LIMIT).map_err(|reason| LabError::NodeStart { node: name.clone(), reason })
}

/// The environment of everything in the node.
fn environment(root: &Path) -> BTreeMap<String, String> {
    // A container engine's set-up too: on a real node that is the machine's.
    let names = INHERITED.iter().chain(&effects::service::container::SETUP);
    let inherited = names.filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?)));
    let own = [("PATH".to_owned(), programs::search_path()), (MARK.to_owned(), root.display().to_string())];
    inherited.chain(own).collect()
}

/// Spawns the command as the first process of new namespaces around an existing network namespace.
fn spawn_isolated(network: fs::File, mut command: Command, freezer: Option<&Freezer>) -> io::Result<Child> {
    namespace::on_thread(move || {
        namespace::enter(&network)?;
        let flags = UnshareFlags::NEWNS | UnshareFlags::NEWUTS | UnshareFlags::NEWIPC | UnshareFlags::NEWPID;
        // SAFETY: file descriptors are not unshared, and the thread ends after the spawn.
        unsafe { unshare_unsafe(flags)? };
        // The machine's mounts and unmounts arrive here, ours do not get out.
        mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        detach(&mut command, freezer)?;
        command.spawn()
    })
}

/// Nodes on the machine's own loopback must not set rules of the machine's own kernel, not even as root: several of them would
/// guard the same port, and the rules would stay when they are gone (capabilities(7)).
fn without_network_rights(command: &mut Command) {
    /// `CAP_NET_ADMIN` (`linux/capability.h`).
    const NET_ADMIN: libc::c_ulong = 12;
    let give_up = || {
        // SAFETY: a plain system call with numbers only. It fails for users who do not have the right anyway.
        unsafe { libc::prctl(libc::PR_CAPBSET_DROP, NET_ADMIN, 0, 0, 0) };
        Ok(())
    };
    // SAFETY: a system call is allowed between fork and exec.
    unsafe { command.pre_exec(give_up) };
}

/// Makes the command a session of its own in the node's control group, with a pipe to say that it is ready.
pub(crate) fn detach(command: &mut Command, freezer: Option<&Freezer>) -> io::Result<()> {
    let door = freezer.map(Freezer::door).transpose()?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let prepare = move || {
        if let Some(door) = &door {
            rustix::io::write(door, b"0")?;
        }
        setsid()?;
        Ok(())
    };
    // SAFETY: both are plain system calls on a descriptor opened before, which is allowed between fork and exec.
    unsafe { command.pre_exec(prepare) };
    Ok(())
}

/// Waits for the child's word that it is in charge; from then on it lives on its own. The error is what it said.
pub(crate) fn wait_ready(mut child: Child, within: Duration) -> std::result::Result<ProcessId, String> {
    let identity = process::of_child(&child);
    let said = child.stdout.take().map(|stdout| first_line(stdout, within)).unwrap_or_default();
    if said != READY {
        let _ = child.kill();
    }
    // Whoever starts a node and lives on must not keep its corpse when it is killed.
    thread::spawn(move || child.wait());
    match (said.as_str(), identity) {
        (READY, Some(identity)) => Ok(identity),
        ("", _) => Err("its first process ended or hung without a word".to_owned()),
        (reason, _) => Err(reason.to_owned()),
    }
}

fn first_line(stdout: ChildStdout, within: Duration) -> String {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut line = String::new();
        let _ = BufReader::new(stdout).read_line(&mut line);
        let _ = sender.send(line.trim_end().to_owned());
    });
    receiver.recv_timeout(within).unwrap_or_default()
}

/// Makes a directory and its missing parents such that other users can pass through, whatever the umask.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let missing: Vec<PathBuf> =
        path.ancestors().take_while(|ancestor| !ancestor.exists()).map(Path::to_owned).collect();
    for directory in missing.iter().rev() {
        let make = || {
            fs::create_dir(directory)?;
            fs::set_permissions(directory, fs::Permissions::from_mode(0o755))
        };
        make().map_err(LabError::file("creating", directory))?;
    }
    Ok(())
}

/// Says that this process is in charge, as [`wait_ready`] expects it.
pub(crate) fn say_ready() -> io::Result<()> {
    println!("{READY}");
    io::stdout().flush()
}
