//! From the bytes of a file to the description.

use super::problem::{Code, Findings, Invalid, Problem};
use super::{System, read, validate};

/// The largest file that is read, in bytes.
pub const MAX_SIZE: usize = 1024 * 1024;

/// A file in which nothing is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// What it describes.
    pub system: System,
    /// What is questionable, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads and checks a system file; `file` is its name in messages.
///
/// The time it takes is bounded by [`MAX_SIZE`], whatever the bytes are.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse(file: &str, bytes: &[u8]) -> Result<Checked, Invalid> {
    check(file, bytes, None)
}

/// As [`parse`], for a file that is to replace what runs: what the file leaves open (ports, voters, members) stays as it
/// was chosen for `running`, as far as it still fits.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse_change(file: &str, bytes: &[u8], running: &System) -> Result<Checked, Invalid> {
    check(file, bytes, Some(running))
}

fn check(file: &str, bytes: &[u8], running: Option<&System>) -> Result<Checked, Invalid> {
    if bytes.len() > MAX_SIZE {
        let mut findings = Findings::new(file, "");
        findings
            .error(Code::TooLarge, &(0..0), format!("the file has {} bytes", bytes.len()))
            .why(format!("a system file has at most {MAX_SIZE}"))
            .hint("name the file that describes the system");
        return Err(findings.finish());
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(not_utf8(file, bytes, error.valid_up_to())),
    };
    let mut findings = Findings::new(file, text);
    let system = read::file(&mut findings).and_then(|raw| validate::validate(&raw, running, &mut findings));
    let invalid = findings.finish();
    match system {
        Some(system) if invalid.problems.is_empty() => Ok(Checked { system, warnings: invalid.warnings }),
        Some(_) | None => Err(invalid),
    }
}

fn not_utf8(file: &str, bytes: &[u8], good: usize) -> Invalid {
    let text = String::from_utf8_lossy(&bytes[..good]);
    let mut findings = Findings::new(file, &text);
    findings
        .error(Code::NotUtf8, &(good..good), "here the file stops being text in UTF-8")
        .why(format!("the byte {:#04x} begins no character", bytes[good]))
        .hint("save the file as UTF-8");
    findings.finish()
}
