//! What the binary does inside the lab: the hidden command `lab-node`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// Runs `lab-node ARGUMENTS`: `init SPEC` as the first process of a node, `forward SPEC` as the door to the machine,
/// `unfreeze DIRECTORY MILLISECONDS` as the guard of a hung disk, `undo BASE SYSTEM DATABASE MILLISECONDS STEPS` as the guard
/// of another fault, `relay SPEC` as what makes a node's links slow and `carry SPEC` as its working half, `clocks` to say
/// what the time is inside, `hog SECONDS` and `flood ADDRESS SECONDS` as what takes a processor or connections. To be
/// called before the process has other threads.
pub fn lab_node(arguments: &[OsString]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(|word| word.to_str().unwrap_or_default()).collect();
    match words.as_slice() {
        ["init", spec] => crate::node::init::run(Path::new(spec)),
        ["forward", spec] => crate::forward::run(Path::new(spec)),
        ["relay", spec] => crate::network::relay::watch(spec),
        ["carry", spec] => crate::network::relay::carry(spec),
        ["unfreeze", directory, millis] => {
            // Without a number it thaws at once: a guard that does nothing would be worse.
            crate::fault::disk::run_guard(Path::new(directory), millis.parse().unwrap_or(0))
        }
        ["undo", base, system, database, millis, steps] => {
            crate::fault::guard::run(Path::new(base), system, database, millis.parse().unwrap_or(0), steps)
        }
        ["clocks"] => {
            crate::fault::clocks::print_clocks();
            ExitCode::SUCCESS
        }
        ["hog", seconds] => crate::fault::load::hog(seconds.parse().unwrap_or(0)),
        ["flood", address, seconds] => crate::fault::load::flood(address, seconds.parse().unwrap_or(0)),
        _ => {
            eprintln!("`lab-node` is started by the lab itself; use `mainstay up FILE`");
            ExitCode::from(2)
        }
    }
}
