//! Disks that fill up, hang, or lose what was not flushed. They need the node's data volume (see
//! [`Options::data_volume`](crate::Options)).

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use effects::clock::now;
use effects::process::ProcessId;
use model::NodeName;
use rustix::fs::FallocateFlags;

use super::{CutOptions, Evidence, guard};
use crate::error::{LabError, Result};
use crate::home::Home;
use crate::lab::Lab;
use crate::manifest::Manifest;
use crate::node::spawn::{detach, wait_ready};
use crate::process;

/// `FIFREEZE` and `FITHAW` (ioctl_fs(2const), `linux/fs.h`): `_IOWR('X', 119, int)` and `_IOWR('X', 120, int)`.
const FREEZE: libc::Ioctl = 0xc004_5877_u32 as libc::Ioctl;
const THAW: libc::Ioctl = 0xc004_5878_u32 as libc::Ioctl;
/// `EXT4_IOC_SHUTDOWN` (`fs/ext4/ext4.h`): `_IOR('X', 125, u32)`.
const SHUTDOWN: libc::Ioctl = 0x8004_587d_u32 as libc::Ioctl;
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`: the journal is not written out, as when power fails.
const WITHOUT_FLUSH: u32 = 2;
/// The file that fills a volume.
const FILLER: &str = ".lab-filler";
/// How long an operation on a volume may take; one that hangs is left behind on its thread.
const VOLUME_LIMIT: Duration = Duration::from_secs(10);

/// A hung disk; ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskFreeze {
    /// The guard that ends it.
    pub guard: ProcessId,
}

impl Lab {
    /// Fills a node's volume to the last block.
    pub fn fill_volume(&self, node: &NodeName) -> Result<Evidence> {
        let directory = self.volume_directory(node)?;
        let begun = now();
        let bytes = on_volume("filling a volume", move || fill(&directory))?;
        Ok(Evidence::since(begun, format!("the volume of {node} is full: {bytes} bytes more were taken")))
    }

    /// Gives the space back.
    pub fn unfill_volume(&self, node: &NodeName) -> Result<Evidence> {
        let filler = self.volume_directory(node)?.join(FILLER);
        let begun = now();
        on_volume("freeing a volume", move || fs::remove_file(filler))?;
        Ok(Evidence::since(begun, format!("the volume of {node} has space again")))
    }

    /// Makes a node's volume hang: whoever writes waits, and cannot even be killed. It ends after `lasting` at the latest,
    /// by a guard process that does not depend on this one.
    pub fn freeze_volume(&mut self, node: &NodeName, lasting: Duration) -> Result<(DiskFreeze, Evidence)> {
        let directory = self.volume_directory(node)?;
        let guard = self.start_guard(&directory, lasting)?;
        let begun = now();
        let path = directory.clone();
        on_volume("freezing a volume", move || control(&path, FREEZE, 0))?;
        let what = format!("the volume of {node} hangs, at most {lasting:?}");
        Ok((DiskFreeze { guard }, Evidence::since(begun, what)))
    }

    /// Ends the hang.
    pub fn thaw_volume(&self, node: &NodeName) -> Result<Evidence> {
        let directory = self.volume_directory(node)?;
        let begun = now();
        on_volume("thawing a volume", move || control(&directory, THAW, 0))?;
        Ok(Evidence::since(begun, format!("the volume of {node} goes on")))
    }

    /// Cuts the power of a node such that also its volume loses what was not flushed.
    pub fn lose_power(&mut self, node: &NodeName) -> Result<Evidence> {
        let directory = self.volume_directory(node)?;
        let begun = now();
        self.cut_node(node, &CutOptions::whole())?;
        on_volume("stopping a volume", move || control(&directory, SHUTDOWN, WITHOUT_FLUSH))?;
        let killed = self.kill_node(node)?;
        Ok(Evidence::since(begun, format!("{}; its volume stopped without a flush", killed.what)))
    }

    /// The volume's directory, through the node's own mounts.
    fn volume_directory(&self, node: &NodeName) -> Result<PathBuf> {
        if self.node(node)?.volume.is_none() {
            return Err(LabError::NotPossible {
                what: format!("a fault of the disk of {node}"),
                why: "it has no volume of its own; use `mainstay up --data-volume SIZE`".to_owned(),
            });
        }
        Ok(inside(self.home(), self.init(node)?, node))
    }

    /// Starts the process that ends a hang, and records it, before the hang begins.
    fn start_guard(&mut self, directory: &Path, lasting: Duration) -> Result<ProcessId> {
        let program = self.manifest().program.clone();
        let doing = || "starting the guard of a hung disk".to_owned();
        let mut command = Command::new(program);
        command.args(["lab-node", "unfreeze"]).arg(directory).arg(lasting.as_millis().to_string());
        command.current_dir("/").env(crate::node::MARK, self.home().directory());
        let child = detach(&mut command, None).and_then(|()| command.spawn()).map_err(LabError::io(doing))?;
        let guard = wait_ready(child, VOLUME_LIMIT)
            .map_err(|reason| LabError::Io { doing: doing(), source: io::Error::other(reason) })?;
        self.change(|manifest| {
            manifest.guards.retain(|guard| process::is_alive(*guard));
            manifest.guards.push(guard);
            Ok(guard)
        })
    }
}

/// The guard: waits and thaws. It holds the volume open, so that it can do so also when the node is dead.
pub(crate) fn run_guard(directory: &Path, millis: u64) -> ExitCode {
    let volume = match File::open(directory) {
        Ok(volume) => volume,
        Err(error) => {
            println!("opening {}: {error}", directory.display());
            return ExitCode::FAILURE;
        }
    };
    if guard::wait(Duration::from_millis(millis)).is_err() {
        return ExitCode::FAILURE;
    }
    // One that was thawed before says EINVAL.
    let _ = order(&volume, THAW, 0);
    ExitCode::SUCCESS
}

/// Thaws every volume of a lab, so that its processes can die.
pub(crate) fn thaw_all(home: &Home, manifest: &Manifest) {
    for (name, node) in manifest.nodes.iter().filter(|(_, node)| node.volume.is_some()) {
        if let Some(init) = node.init.filter(|init| process::is_alive(*init)) {
            let _ = control(&inside(home, init, name), THAW, 0);
        }
    }
}

fn inside(home: &Home, init: ProcessId, node: &NodeName) -> PathBuf {
    let directory = home.node_root(node).join("databases");
    let relative = directory.strip_prefix("/").unwrap_or(&directory).to_owned();
    PathBuf::from(format!("/proc/{}/root", init.pid)).join(relative)
}

/// Runs something that may hang for ever on a thread that is left behind then.
fn on_volume<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(work()));
    match receiver.recv_timeout(VOLUME_LIMIT) {
        Ok(result) => result.map_err(LabError::io(|| what.to_owned())),
        Err(_) => Err(LabError::Late {
            what: what.to_owned(),
            within: VOLUME_LIMIT,
            seen: "the volume does not answer".to_owned(),
        }),
    }
}

/// Takes all free blocks. What others free in the meantime is taken too, until twice nothing was left.
fn fill(directory: &Path) -> io::Result<u64> {
    let file = File::options().create(true).append(true).open(directory.join(FILLER))?;
    let end = Instant::now() + VOLUME_LIMIT / 2;
    let mut taken = file.metadata()?.len();
    let mut step: u64 = 64 << 20;
    while step >= 4096 && Instant::now() < end {
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), taken, step) {
            Ok(()) => taken += step,
            Err(rustix::io::Errno::NOSPC) => step /= 2,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(taken)
}

fn control(directory: &Path, request: libc::Ioctl, argument: u32) -> io::Result<()> {
    order(&File::open(directory)?, request, argument)
}

fn order(volume: &File, request: libc::Ioctl, mut argument: u32) -> io::Result<()> {
    // SAFETY: the descriptor is open, and all requests used here read at most a 32-bit number.
    match unsafe { libc::ioctl(volume.as_raw_fd(), request, &raw mut argument) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
