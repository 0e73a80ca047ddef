//! Builds the library that gives lab nodes clocks of their own (`clock/shim.rs`); the crate carries it as bytes.

use std::env;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=clock/shim.rs");
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let library = PathBuf::from(variable("OUT_DIR")).join("clock.so");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name", "mainstay_lab_clock"]);
    rustc.args(["-C", "panic=abort", "-C", "opt-level=3", "-C", "strip=symbols"]);
    rustc.args(["--target", &variable("TARGET")]);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg("-C").arg(format!("linker={linker}"));
    }
    match rustc.arg("-o").arg(library).arg("clock/shim.rs").status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) | Err(_) => {
            println!("cargo::error=clock/shim.rs, the library of the lab's clocks, could not be built");
            ExitCode::FAILURE
        }
    }
}
