//! Clocks of a node's own: every process of the node reads the time through a library (`clock/shim.rs`) that adds what a
//! page of shared memory says. The real clocks, which the lab, clients and guards use, go on as they were.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use model::NodeName;
use rustix::mount::{MountFlags, mount};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::error::{LabError, Result};
use crate::home::Home;
use crate::node::spawn::make_directory;

/// The library, as `build.rs` made it.
const LIBRARY: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/clock.so"));

/// Where a node finds its page; the library has the same words.
const PLACE: &str = "mainstay-lab-clock";

/// Size of a page in bytes.
const PAGE: usize = 4096;

/// What of a machine's clocks is wrong. Its monotonic clocks can run at another rate, and no more: they never jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clocks {
    /// By how many seconds the wall clock is ahead.
    pub ahead: i64,
    /// By how many millionths the wall clock runs too fast.
    pub wall_ppm: i64,
    /// By how many millionths the monotonic clocks run too fast.
    pub monotonic_ppm: i64,
    /// By how many milliseconds the wall clock jumps ahead in every second period, and how many milliseconds a period has.
    pub strobe: Option<(i64, i64)>,
}

/// What a process of the node reads, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Reading {
    pub(crate) wall: i64,
    pub(crate) monotonic: i64,
    pub(crate) boot: i64,
}

/// The files of a node's clocks, which its init mounts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Files {
    /// The library.
    pub(crate) library: PathBuf,
    /// The page.
    pub(crate) page: PathBuf,
    /// An empty directory.
    pub(crate) ground: PathBuf,
}

impl Files {
    /// Where they lie.
    pub(crate) fn of(home: &Home, node: &NodeName) -> Self {
        let directory = home.directory().join("clocks");
        Self {
            library: directory.join(format!("{node}.so")),
            page: directory.join(format!("{node}.page")),
            ground: directory.join(format!("{node}.etc")),
        }
    }

    /// Makes them. A machine that is switched on has the right time.
    pub(crate) fn make(&self) -> Result<()> {
        make_directory(&self.ground)?;
        // Processes of a lab that runs may have the former one mapped: it is replaced, not overwritten.
        crate::manifest::store(&self.library, LIBRARY)?;
        crate::manifest::store(&self.page, &[0; PAGE])
    }

    /// Puts library and page before every program that is started from now on in this mount namespace: `/etc` gets a layer
    /// of its own, because the file that names the library is the machine's.
    pub(crate) fn mount(&self) -> std::result::Result<(), String> {
        let failed = |what: &str, error: io::Error| format!("{what} for the node's clocks: {error}");
        let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("clocks", &self.ground, "tmpfs", quiet, None)
            .map_err(|error| failed("mounting a tmpfs", error.into()))?;
        let (upper, work) = (self.ground.join("upper"), self.ground.join("work"));
        let fill = || {
            fs::create_dir(&upper)?;
            fs::create_dir(&work)?;
            // PostgreSQL's user must be able to pass, whatever the umask.
            make_public(&upper)?;
            symlink(&self.page, upper.join(PLACE))?;
            let preload = upper.join("ld.so.preload");
            fs::write(&preload, format!("{}\n", self.library.display()))?;
            make_public(&preload)
        };
        fill().map_err(|error| failed("making files", error))?;
        let options = format!("lowerdir=/etc,upperdir={},workdir={}", upper.display(), work.display());
        let options = CString::new(options).map_err(|error| failed("naming directories", error.into()))?;
        mount("clocks", "/etc", "overlay", MountFlags::empty(), Some(options.as_c_str()))
            .map_err(|error| failed("mounting a layer over /etc", error.into()))
    }

    /// Makes the clocks wrong from now on, or right again. What a monotonic clock has gained or lost by now it keeps, because
    /// it may not jump.
    pub(crate) fn set(&self, wrong: &Clocks) -> Result<()> {
        let doing = LabError::file("changing the clocks in", &self.page);
        let set = || {
            let file = OpenOptions::new().read(true).write(true).open(&self.page)?;
            let mut numbers = read(&file)?;
            let real = Reading::now();
            let gained = (real.monotonic - numbers[6]) / 1000 * numbers[5] / 1000;
            let (strobe, period) = wrong.strobe.unwrap_or_default();
            let sequence = numbers[0];
            numbers = [
                sequence + 1,
                wrong.ahead * SECOND,
                wrong.wall_ppm,
                real.wall,
                numbers[4] + gained,
                wrong.monotonic_ppm,
                real.monotonic,
                real.boot,
                strobe * MILLISECOND,
                period * MILLISECOND,
            ];
            // Readers wait while the first number is odd.
            file.write_all_at(&numbers[0].to_ne_bytes(), 0)?;
            let body: Vec<u8> = numbers[1..].iter().flat_map(|number| number.to_ne_bytes()).collect();
            file.write_all_at(&body, 8)?;
            file.write_all_at(&(sequence + 2).to_ne_bytes(), 0)
        };
        set().map_err(doing)
    }
}

const SECOND: i64 = 1_000_000_000;
const MILLISECOND: i64 = 1_000_000;

/// The numbers of a page in their order (`Page` in `clock/shim.rs`).
fn read(file: &File) -> io::Result<[i64; 10]> {
    let mut numbers = [0; 10];
    for (place, number) in (0..).step_by(8).zip(&mut numbers) {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, place)?;
        *number = i64::from_ne_bytes(bytes);
    }
    Ok(numbers)
}

fn make_public(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

impl Reading {
    /// The real clocks: asked of the kernel without the C library.
    pub(crate) fn now() -> Self {
        let read = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec * SECOND + time.tv_nsec
        };
        Self {
            wall: read(ClockId::Realtime),
            monotonic: read(ClockId::Monotonic),
            boot: read(ClockId::Boottime),
        }
    }

    /// What every program of this machine reads: by the C library.
    pub(crate) fn as_programs_see() -> Self {
        let read = |clock| {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the place is ours, and the clocks are those of every Linux.
            unsafe { libc::clock_gettime(clock, &raw mut time) };
            time.tv_sec * SECOND + time.tv_nsec
        };
        Self {
            wall: read(libc::CLOCK_REALTIME),
            monotonic: read(libc::CLOCK_MONOTONIC),
            boot: read(libc::CLOCK_BOOTTIME),
        }
    }
}
