//! The only unsafe code of this crate: what must happen between fork and exec, and the C library's user database.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// What a child does to itself before it becomes the program.
pub(crate) struct BeforeExec {
    /// File mode creation mask.
    pub(crate) umask: u32,
    /// User id, group id and all groups to become; `None` keeps ours.
    pub(crate) identity: Option<Identity>,
    /// Boot-clock microseconds after which the program must not be started any more; zero for no limit.
    pub(crate) not_after_us: u64,
    /// The `cgroup.procs` of a control group to join.
    pub(crate) group: Option<std::fs::File>,
}

/// Numeric identity of an operating-system user.
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// A row of the user database.
pub(crate) struct UserRow {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) name: String,
    pub(crate) home: String,
}

/// Makes `command`'s child lead its own session with default signals, no inherited descriptors, and `before`'s identity.
pub(crate) fn prepare(command: &mut Command, before: BeforeExec) {
    let action = move || become_daemon(&before);
    // SAFETY: the closure runs in the forked child of a possibly multi-threaded process, where only async-signal-safe
    // calls are allowed. `become_daemon` makes plain system calls through libc, allocates nothing and takes no lock; the
    // vector of groups was allocated before the fork and is only read.
    unsafe { command.pre_exec(action) };
}

fn become_daemon(before: &BeforeExec) -> io::Result<()> {
    reset_signals();
    // SAFETY: setsid takes no arguments and touches no memory. A freshly forked child never leads a process group, so the
    // only documented error (EPERM) cannot occur; it is checked all the same.
    check(unsafe { libc::setsid() })?;
    // SAFETY: umask takes a plain number and always succeeds.
    unsafe { libc::umask(before.umask as libc::mode_t) };
    close_inherited_on_exec();
    if let Some(group) = &before.group {
        join_group(group)?;
    }
    if let Some(identity) = &before.identity {
        assume(identity)?;
    }
    refuse_when_late(before.not_after_us)
}

fn reset_signals() {
    // The last signal number of Linux (signal(7)). The C library hides 32 and 33, which a parent may have ignored, so the
    // system call is made directly.
    const LAST: i32 = 64;
    // The kernel's struct sigaction in all its forms fits; all zeroes mean SIG_DFL, no flags, an empty mask.
    const DEFAULT: [u64; 8] = [0; 8];
    const MASK_BYTES: usize = 8;
    let none = std::ptr::null_mut::<u64>();
    for number in 1..=LAST {
        // SAFETY: the kernel reads a struct sigaction from DEFAULT, which is larger, and is given nothing to write to;
        // numbers that cannot be set (SIGKILL, SIGSTOP) return EINVAL without effect.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, DEFAULT.as_ptr(), none, MASK_BYTES) };
    }
    let mut empty = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset initialises the set it is given before sigprocmask reads it; the old set is not asked for.
    unsafe {
        libc::sigemptyset(empty.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, empty.as_ptr(), std::ptr::null_mut());
    }
}

/// Descriptors that our own parent leaked into us must not leak on. Ours are close-on-exec already.
fn close_inherited_on_exec() {
    const FIRST: u32 = 3;
    // SAFETY: close_range with CLOSE_RANGE_CLOEXEC only sets a flag on descriptors, closes none, touches no memory.
    let done = unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_uint,
        )
    };
    if done == 0 {
        return;
    }
    // Linux 5.10 has no CLOSE_RANGE_CLOEXEC (it came with 5.11).
    const FALLBACK_LIMIT: i32 = 4096;
    for descriptor in FIRST as i32..FALLBACK_LIMIT {
        // SAFETY: fcntl(F_SETFD) sets a flag; a descriptor that is not open returns EBADF without effect.
        unsafe { libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

/// Whoever writes `0` there becomes a member, with all it starts later (cgroups(7)).
fn join_group(group: &std::fs::File) -> io::Result<()> {
    const MYSELF: [u8; 1] = [b'0'];
    // SAFETY: writes one byte of a live constant to a descriptor that is open as long as `group`.
    let written = unsafe { libc::write(group.as_raw_fd(), MYSELF.as_ptr().cast(), MYSELF.len()) };
    if written < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn assume(identity: &Identity) -> io::Result<()> {
    // Groups first and the user last: after setuid the right to change groups is gone.
    // SAFETY: the pointer and the length are those of one live slice of gid_t (u32 on Linux); the rest take numbers.
    check(unsafe { libc::setgroups(identity.groups.len(), identity.groups.as_ptr()) })?;
    // SAFETY: takes a plain number.
    check(unsafe { libc::setgid(identity.gid) })?;
    // SAFETY: takes a plain number.
    check(unsafe { libc::setuid(identity.uid) })?;
    Ok(())
}

/// A start that hung on a dead disk until its caller gave up must not happen after all when the disk comes back.
fn refuse_when_late(not_after_us: u64) -> io::Result<()> {
    if not_after_us != 0 && crate::clock::now().as_micros() > not_after_us {
        return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
    }
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Looks a user up by name (`getpwnam_r(3)`); `None` when there is none.
pub(crate) fn user_by_name(name: &str) -> io::Result<Option<UserRow>> {
    let name = CString::new(name)?;
    // SAFETY: `name` is a C string that outlives the call; the other pointers come from `lookup` and obey its contract.
    lookup(|row, buffer, length, found| unsafe {
        libc::getpwnam_r(name.as_ptr(), row, buffer, length, found)
    })
}

/// Looks a user up by number (`getpwuid_r(3)`); `None` when there is none.
pub(crate) fn user_by_id(uid: u32) -> io::Result<Option<UserRow>> {
    // SAFETY: the pointers come from `lookup` and obey its contract.
    lookup(|row, buffer, length, found| unsafe { libc::getpwuid_r(uid, row, buffer, length, found) })
}

/// Calls one of the reentrant lookups with a buffer that grows until the row fits.
fn lookup(
    call: impl Fn(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> libc::c_int,
) -> io::Result<Option<UserRow>> {
    const LARGEST: usize = 1 << 20;
    let mut buffer: Vec<libc::c_char> = vec![0; 1024];
    loop {
        let mut row = std::mem::MaybeUninit::<libc::passwd>::uninit();
        let mut found: *mut libc::passwd = std::ptr::null_mut();
        let error = call(row.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found);
        match error {
            0 if found.is_null() => return Ok(None),
            // SAFETY: on success with a non-null result the call has filled `row`, whose strings lie in `buffer`; both
            // live until the row has been copied.
            0 => return Ok(Some(unsafe { copy_row(found) })),
            libc::ERANGE if buffer.len() < LARGEST => buffer.resize(buffer.len() * 2, 0),
            // "Not found" is told by several errors, depending on the C library (getpwnam_r(3), NOTES).
            libc::ENOENT | libc::ESRCH => return Ok(None),
            other => return Err(io::Error::from_raw_os_error(other)),
        }
    }
}

/// # Safety
/// `row` points to a filled passwd whose strings are alive.
unsafe fn copy_row(row: *const libc::passwd) -> UserRow {
    // SAFETY: by this function's contract the pointer is valid and the strings are terminated.
    unsafe {
        UserRow {
            uid: (*row).pw_uid,
            gid: (*row).pw_gid,
            name: CStr::from_ptr((*row).pw_name).to_string_lossy().into_owned(),
            home: CStr::from_ptr((*row).pw_dir).to_string_lossy().into_owned(),
        }
    }
}

/// All groups of a user, `primary` among them (`getgrouplist(3)`).
pub(crate) fn groups_of(name: &str, primary: u32) -> io::Result<Vec<u32>> {
    const LARGEST: usize = 1 << 16;
    let name = CString::new(name)?;
    let mut groups: Vec<u32> = vec![0; 64];
    loop {
        let mut count = libc::c_int::try_from(groups.len()).map_err(io::Error::other)?;
        // SAFETY: `groups` has room for `count` entries, which is what the call is told; it writes no more and sets
        // `count` to the number wanted.
        let result = unsafe { libc::getgrouplist(name.as_ptr(), primary, groups.as_mut_ptr(), &mut count) };
        let wanted = usize::try_from(count).unwrap_or(0);
        if result >= 0 {
            groups.truncate(wanted);
            return Ok(groups);
        }
        if groups.len() >= LARGEST {
            return Err(io::Error::other("the user is in more groups than the system can name"));
        }
        groups.resize(wanted.max(groups.len() * 2), 0);
    }
}

/// Bytes in a memory page.
pub(crate) fn page_size() -> u64 {
    // SAFETY: sysconf takes a plain number and returns one.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// A descriptor that a background task waits on while others use it.
pub(crate) struct SharedFd(Arc<OwnedFd>);

impl AsRawFd for SharedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for SharedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Registers `fd` with the runtime for readability.
pub(crate) fn wait_readable(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<SharedFd>> {
    // SAFETY: `SharedFd` returns the same descriptor at every call and keeps it open: its `Arc<OwnedFd>` lives as long as
    // the registration that owns it and is never replaced.
    unsafe { AsyncFd::register_with_interest(SharedFd(fd), Interest::READABLE) }.map_err(Into::into)
}

/// `CLOCK_BOOTTIME` by the C library, as every other program of the machine reads it: what a drill does to the clocks of a
/// machine it does to this one too, which a system call of our own would pass by.
pub(crate) fn boot_time() -> libc::timespec {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the place is ours; every kernel since 2.6.39 has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    time
}
