//! A file system of its own for a node's databases, in an image file: what disk faults need.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use model::NodeName;

use crate::error::{LabError, Result};
use crate::home::Home;
use crate::node::spawn::make_directory;
use crate::programs;

/// Makes the node's image unless there is one with data. No blocks are kept back for root, so that full means full.
pub(crate) fn create(home: &Home, node: &NodeName, bytes: u64) -> Result<()> {
    let image = home.volume(node);
    if image.exists() {
        return Ok(());
    }
    // Made under another name: an image that an interrupted `up` left half-made is never mounted.
    let raw = image.with_extension("new");
    make_directory(raw.parent().unwrap_or(Path::new("/")))?;
    let size = || File::create(&raw)?.set_len(bytes);
    size().map_err(LabError::file("creating", &raw))?;
    run("mkfs.ext4", &["-q", "-m", "0", "-F"], &raw, "making a file system")?;
    fs::rename(&raw, &image).map_err(LabError::file("creating", &image))
}

/// Frees loop devices that still hold the image; mount(8) frees them with the last mount, so there should be none.
pub(crate) fn release(image: &Path) -> Result<()> {
    let listed = run("losetup", &["-n", "-O", "NAME", "-j"], image, "looking for loop devices")?;
    for device in listed.split_ascii_whitespace() {
        run("losetup", &["-d"], Path::new(device), "freeing a loop device")?;
    }
    Ok(())
}

fn run(program: &str, arguments: &[&str], last: &Path, doing: &str) -> Result<String> {
    let output = Command::new(programs::path(program))
        .args(arguments)
        .arg(last)
        .output()
        .map_err(LabError::io(|| format!("running {program}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(LabError::Program {
        doing: doing.to_owned(),
        program: program.to_owned(),
        status: output.status.to_string(),
        stderr: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
