//! Slow links, where the kernel cannot delay packets by itself (no netem): a process in the place of a node's ports.
//!
//! ```text
//!   before   node line0 ----- n0l0 [bridge]
//!   while    node line0 ----- wn0l0 = packet socket <- process -> TAP n0l0 [bridge]
//! ```
//!
//! Only what the node sends is late, as with a queueing discipline at its own end. The TAP device has the port's name, so that
//! cuts and flaws of the switch, which go by names, work as before. There are two processes: one carries frames, the other
//! watches its time. Whichever of them dies, the other puts the ports back into their places; the device goes with the process
//! that has it open.

mod device;
mod queue;

use std::io::{self, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread;
use std::time::Duration;

use effects::clock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};

use super::script;
use crate::namespace;
use crate::node::spawn::say_ready;
use device::{End, FRAME};
pub(crate) use queue::Carried;
pub use queue::Pace;
use queue::Queue;

/// What the processes have to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Spec {
    /// The switch's namespace.
    pub(crate) switch: PathBuf,
    /// The ports: the number of the line, and the name.
    pub(crate) ports: Vec<(usize, String)>,
    pub(crate) pace: Pace,
    /// It ends by itself after this.
    pub(crate) lasting: Duration,
    /// Where it is written down at the end what was done.
    pub(crate) account: PathBuf,
}

/// How long the carrying process has to end when it is told to.
const END_LIMIT: Duration = Duration::from_secs(2);

// ---- the watching half ----

/// Runs the carrying process for its time, and puts the ports back whatever becomes of it.
pub(crate) fn watch(spec: &str) -> ExitCode {
    report(read(spec).and_then(|parsed| watch_over(&parsed, spec)))
}

fn watch_over(spec: &Spec, text: &str) -> Result<(), String> {
    enter(spec)?;
    let mut carrier = start(text)?;
    let said = first_line(&mut carrier)?;
    if said != crate::node::init::READY {
        let _ = carrier.kill();
        restore(spec);
        return Err(said);
    }
    say_ready().map_err(|error| error.to_string())?;
    let ended = |carrier: &mut Child| !matches!(carrier.try_wait(), Ok(None));
    let begun = clock::now();
    while clock::now().since(begun) < spec.lasting && !ended(&mut carrier) {
        thread::sleep(Duration::from_millis(20));
    }
    // The end of its input is the sign to end.
    drop(carrier.stdin.take());
    let begun = clock::now();
    while clock::now().since(begun) < END_LIMIT && !ended(&mut carrier) {
        thread::sleep(Duration::from_millis(5));
    }
    let _ = carrier.kill();
    let _ = carrier.wait();
    restore(spec);
    if !spec.account.exists() {
        // It was killed: nobody knows what it did.
        give_account(spec, Carried::default())?;
    }
    Ok(())
}

fn start(spec: &str) -> Result<Child, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(["lab-node", "carry", spec]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().map_err(|error| format!("starting the carrying process: {error}"))
}

/// What the child says when its devices stand, or why they do not.
fn first_line(child: &mut Child) -> Result<String, String> {
    use std::io::BufRead;
    let mut line = String::new();
    let stdout = child.stdout.take().ok_or("the carrying process has no output")?;
    io::BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
    Ok(line.trim_end().to_owned())
}

// ---- the carrying half ----

/// Puts the devices into the ports' places and carries frames until the input ends.
pub(crate) fn carry(spec: &str) -> ExitCode {
    report(read(spec).and_then(|spec| carry_frames(&spec)))
}

fn carry_frames(spec: &Spec) -> Result<(), String> {
    enter(spec)?;
    let mut links = spec.ports.iter().map(|(_, port)| Link::open(port)).collect::<Result<Vec<_>, _>>()?;
    // Frames wait for nobody else on this machine; without the right to it the relay is only less exact.
    let _ = rustix::process::nice(-10);
    let diverted = super::ip(None, "putting relays into the ports' places", &script::divert(&spec.ports));
    let carried = match diverted {
        Ok(()) => {
            say_ready().map_err(|error| error.to_string())?;
            pass(&mut links, spec.pace)
        }
        Err(error) => {
            drop(links);
            restore(spec);
            return Err(error.to_string());
        }
    };
    drop(links);
    restore(spec);
    give_account(spec, carried)
}

/// A port's own link and what stands in its place.
struct Link {
    wire: End,
    tap: End,
}

impl Link {
    fn open(port: &str) -> Result<Self, String> {
        let wire = End::wire(port).map_err(|error| format!("listening on {port}: {error}"))?;
        let name = script::stand_in(port);
        let tap = End::tap(&name).map_err(|error| format!("making the device {name}: {error}"))?;
        Ok(Self { wire, tap })
    }
}

/// Passes frames on until the input ends or a device is gone, and says what was done.
fn pass(links: &mut [Link], pace: Pace) -> Carried {
    let mut queue = Queue::new(pace, clock::now().as_micros());
    let mut buffer = vec![0; FRAME];
    while let Ok(true) = wait(links, queue.next()) {
        if take(links, &mut queue, &mut buffer).is_err() {
            break;
        }
        let now = clock::now();
        while let Some((link, frame)) = queue.due(now) {
            let frame: Vec<u8> = frame;
            links[link].tap.send(&frame);
        }
    }
    queue.carried()
}

/// So many frames of a link are taken before those whose time has come are looked at again.
const AT_ONCE: usize = 64;

/// Takes what there is: to the node at once, from it into the queue.
fn take(links: &mut [Link], queue: &mut Queue<(usize, Vec<u8>)>, buffer: &mut [u8]) -> io::Result<()> {
    for (number, link) in links.iter_mut().enumerate() {
        for _ in 0..AT_ONCE {
            let Some(length) = link.tap.receive(buffer)? else { break };
            link.wire.send(&buffer[..length]);
        }
        for _ in 0..AT_ONCE {
            let Some(length) = link.wire.receive(buffer)? else { break };
            queue.take((number, buffer[..length].to_vec()), clock::now());
        }
    }
    Ok(())
}

/// Waits for a frame or for the time of one; false when the input has ended.
fn wait(links: &[Link], next: Option<model::time::Moment>) -> io::Result<bool> {
    let left = next.map(|at| at.since(clock::now()));
    let timeout = left.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
    let input = io::stdin();
    let mut waiting = vec![PollFd::new(&input, PollFlags::IN)];
    waiting.extend(
        links.iter().flat_map(|link| [&link.tap, &link.wire]).map(|end| PollFd::new(end, PollFlags::IN)),
    );
    match poll(&mut waiting, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    if waiting[0].revents().is_empty() {
        return Ok(true);
    }
    // Nobody writes to it: what makes it readable is its end.
    Ok(input.lock().read(&mut [0])? > 0)
}

// ---- both ----

fn give_account(spec: &Spec, carried: Carried) -> Result<(), String> {
    let text = serde_json::to_vec(&carried).map_err(|error| error.to_string())?;
    effects::files::write_atomic(&spec.account, &text, 0o644).map_err(|error| error.to_string())
}

fn read(spec: &str) -> Result<Spec, String> {
    serde_json::from_str(spec).map_err(|error| format!("the relay's task is not understood: {error}"))
}

fn report(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn enter(spec: &Spec) -> Result<(), String> {
    let entered = std::fs::File::open(&spec.switch).and_then(|switch| namespace::enter(&switch));
    entered.map_err(|error| format!("entering {}: {error}", spec.switch.display()))
}

/// Puts the ports back; those that are in their places stay, those that are gone with their node do not matter.
fn restore(spec: &Spec) {
    super::ip_force(None, "putting ports back", &script::restore(&spec.ports));
}
