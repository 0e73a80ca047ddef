//! The clocks of a lab node: a library that every process of the node has before its C library (ld.so(8),
//! `/etc/ld.so.preload`), so that the node's clocks can be changed while the real ones go on. Built by `build.rs`, not a
//! part of the crate.
//!
//! Why not libfaketime: its settings come by the environment, which PostgreSQL does not inherit from the agent; it takes
//! locks, which a signal handler of PostgreSQL may interrupt; it looks at its settings seldom or reads a file for every
//! question; and a rate counts from the start of each process, so that processes of a node disagree. Here all processes
//! of a node share one page, and reading it takes no lock.
#![no_std]

use core::ffi::{c_char, c_int, c_long, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, Ordering, fence};

#[repr(C)]
#[derive(Clone, Copy)]
struct Timespec {
    seconds: i64,
    nanos: i64,
}

#[repr(C)]
struct Timeval {
    seconds: i64,
    micros: i64,
}

/// What `clocks.rs` writes; nanoseconds and millionths, all of the machine's byte order.
#[repr(C)]
struct Page {
    /// Odd while it is being written.
    sequence: AtomicU64,
    wall_offset: AtomicI64,
    wall_ppm: AtomicI64,
    /// The real wall clock when the rate began.
    wall_since: AtomicI64,
    monotonic_offset: AtomicI64,
    monotonic_ppm: AtomicI64,
    /// The real clocks when the rate began.
    monotonic_since: AtomicI64,
    boot_since: AtomicI64,
    /// The wall clock is ahead by so much in every second period.
    strobe: AtomicI64,
    strobe_period: AtomicI64,
}

/// How far a clock is off: by so much, and by so many millionths of the time since then.
#[derive(Clone, Copy)]
struct Change {
    offset: i64,
    ppm: i64,
    since: i64,
}

const NONE: Change = Change { offset: 0, ppm: 0, since: 0 };
const SECOND: i64 = 1_000_000_000;
const MILLION: i64 = 1_000_000;

const REALTIME: c_int = 0;
const MONOTONIC: c_int = 1;
const MONOTONIC_RAW: c_int = 4;
const REALTIME_COARSE: c_int = 5;
const MONOTONIC_COARSE: c_int = 6;
const BOOTTIME: c_int = 7;
const TAI: c_int = 11;

/// `SYS_futex`, and the command that waits until a moment (futex(2)).
#[cfg(target_arch = "x86_64")]
const FUTEX: c_long = 202;
#[cfg(target_arch = "x86_64")]
const CLOCK_GETTIME: c_long = 228;
#[cfg(not(target_arch = "x86_64"))]
const FUTEX: c_long = 98;
#[cfg(not(target_arch = "x86_64"))]
const CLOCK_GETTIME: c_long = 113;
const WAIT_BITSET: c_long = 9;
const COMMAND: c_long = 127;
const FUTEX_REALTIME: c_long = 256;

/// Where a node finds its page: a link that `init` makes.
const PLACE: &[u8] = b"/etc/mainstay-lab-clock\0";

#[link(name = "c")]
unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn open(path: *const c_char, flags: c_int) -> c_int;
    fn close(file: c_int) -> c_int;
    fn mmap(
        at: *mut c_void,
        size: usize,
        access: c_int,
        flags: c_int,
        file: c_int,
        offset: i64,
    ) -> *mut c_void;
}

type System = unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;
type GetTime = unsafe extern "C" fn(c_int, *mut Timespec) -> c_int;

static PAGE: AtomicPtr<Page> = AtomicPtr::new(null_mut());
static SYSTEM: AtomicPtr<c_void> = AtomicPtr::new(null_mut());
static GET_TIME: AtomicPtr<c_void> = AtomicPtr::new(null_mut());

/// Run when the library is loaded, before the program: nothing is looked up later, in a signal handler perhaps.
extern "C" fn begin() {
    const NEXT: *mut c_void = -1isize as *mut c_void;
    // SAFETY: names and path end with zero, and a file that cannot be mapped is left alone.
    unsafe {
        SYSTEM.store(dlsym(NEXT, c"syscall".as_ptr()), Ordering::Release);
        GET_TIME.store(dlsym(NEXT, c"clock_gettime".as_ptr()), Ordering::Release);
        // O_RDONLY | O_CLOEXEC
        let file = open(PLACE.as_ptr().cast(), 0o2_000_000);
        if file < 0 {
            return;
        }
        // PROT_READ, MAP_SHARED
        let page = mmap(null_mut(), 4096, 1, 1, file, 0);
        close(file);
        if page as isize != -1 {
            PAGE.store(page.cast(), Ordering::Release);
        }
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static BEGIN: extern "C" fn() = begin;

/// The machine's own clock.
fn real(clock: c_int, time: &mut Timespec) -> c_int {
    let found = GET_TIME.load(Ordering::Acquire);
    // SAFETY: the pointers are what the C library has under these names.
    unsafe {
        if !found.is_null() {
            return core::mem::transmute::<*mut c_void, GetTime>(found)(clock, time);
        }
        let system = SYSTEM.load(Ordering::Acquire);
        if system.is_null() {
            begin();
            return -1;
        }
        let time: *mut Timespec = time;
        core::mem::transmute::<*mut c_void, System>(system)(
            CLOCK_GETTIME,
            c_long::from(clock),
            time as c_long,
            0,
            0,
            0,
            0,
        ) as c_int
    }
}

/// How far a clock is off now.
fn change(clock: c_int) -> Change {
    let page = PAGE.load(Ordering::Acquire);
    // SAFETY: a mapping of one page, which lasts as long as the process.
    let Some(page) = (unsafe { page.as_ref() }) else { return NONE };
    loop {
        let before = page.sequence.load(Ordering::Acquire);
        let read = |number: &AtomicI64| number.load(Ordering::Relaxed);
        let found = match clock {
            REALTIME | REALTIME_COARSE | TAI => Change {
                offset: read(&page.wall_offset) + strobe(read(&page.strobe), read(&page.strobe_period)),
                ppm: read(&page.wall_ppm),
                since: read(&page.wall_since),
            },
            MONOTONIC | MONOTONIC_RAW | MONOTONIC_COARSE => Change {
                offset: read(&page.monotonic_offset),
                ppm: read(&page.monotonic_ppm),
                since: read(&page.monotonic_since),
            },
            BOOTTIME => Change {
                offset: read(&page.monotonic_offset),
                ppm: read(&page.monotonic_ppm),
                since: read(&page.boot_since),
            },
            _ => NONE,
        };
        fence(Ordering::Acquire);
        if before % 2 == 0 && page.sequence.load(Ordering::Relaxed) == before {
            return found;
        }
    }
}

fn strobe(by: i64, period: i64) -> i64 {
    let mut now = Timespec { seconds: 0, nanos: 0 };
    if period <= 0 || real(MONOTONIC, &mut now) != 0 {
        return 0;
    }
    if (now.seconds * SECOND + now.nanos) / period % 2 == 1 { by } else { 0 }
}

/// The node's clock at a moment of the real one.
fn changed(real: i64, change: Change) -> i64 {
    // Longer than a year at a tenth would overflow sooner than anybody waits.
    real + change.offset + (real - change.since) / 1000 * change.ppm / 1000
}

fn look(clock: c_int, time: &mut Timespec) -> c_int {
    let answer = real(clock, time);
    if answer == 0 {
        let change = change(clock);
        if change.offset != 0 || change.ppm != 0 {
            let now = changed(time.seconds * SECOND + time.nanos, change);
            time.seconds = now.div_euclid(SECOND);
            time.nanos = now.rem_euclid(SECOND);
        }
    }
    answer
}

#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int {
    // SAFETY: the caller's pointer, as the C library demands it.
    match unsafe { time.as_mut() } {
        Some(time) => look(clock, time),
        None => -1,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn gettimeofday(time: *mut Timeval, _zone: *mut c_void) -> c_int {
    let mut now = Timespec { seconds: 0, nanos: 0 };
    let answer = look(REALTIME, &mut now);
    // SAFETY: as above.
    if let Some(time) = unsafe { time.as_mut() } {
        *time = Timeval { seconds: now.seconds, micros: now.nanos / 1000 };
    }
    answer
}

#[unsafe(no_mangle)]
unsafe extern "C" fn time(place: *mut i64) -> i64 {
    let mut now = Timespec { seconds: 0, nanos: 0 };
    look(REALTIME, &mut now);
    // SAFETY: as above; null is allowed.
    if let Some(place) = unsafe { place.as_mut() } {
        *place = now.seconds;
    }
    now.seconds
}

/// Rust's threads wait until moments of the monotonic clock through this function: the kernel must get its own moment.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    let system = SYSTEM.load(Ordering::Acquire);
    if system.is_null() {
        return -1;
    }
    // SAFETY: what the caller wanted, but for the moment, which is a copy.
    unsafe {
        let system = core::mem::transmute::<*mut c_void, System>(system);
        if number == FUTEX && b & COMMAND == WAIT_BITSET && d != 0 {
            let clock = if b & FUTEX_REALTIME == 0 { MONOTONIC } else { REALTIME };
            let until = kernels(clock, &*(d as *const Timespec));
            return system(number, a, b, c, &raw const until as c_long, e, f);
        }
        system(number, a, b, c, d, e, f)
    }
}

/// The moment of the real clock that a moment of the node's clock is.
fn kernels(clock: c_int, until: &Timespec) -> Timespec {
    let change = change(clock);
    let mut now = Timespec { seconds: 0, nanos: 0 };
    if (change.offset == 0 && change.ppm == 0) || real(clock, &mut now) != 0 {
        return *until;
    }
    let now = now.seconds * SECOND + now.nanos;
    let wait = until.seconds * SECOND + until.nanos - changed(now, change);
    let rate = MILLION + change.ppm;
    let moment = now + wait / rate * MILLION + wait % rate;
    Timespec { seconds: moment.div_euclid(SECOND), nanos: moment.rem_euclid(SECOND) }
}

/// The core library names it, and nothing here unwinds.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
