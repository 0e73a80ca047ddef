//! The operating system's programs that the lab runs.

use std::path::{Path, PathBuf};

/// Where administration programs lie; a root shell from `su` does not search there.
const SBIN: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// The search path for everything that runs in the lab: the user's own, and the administration directories.
pub(crate) fn search_path() -> String {
    let own = std::env::var("PATH").unwrap_or_else(|_| "/usr/local/bin:/usr/bin:/bin".to_owned());
    let missing = SBIN.iter().filter(|directory| !own.split(':').any(|known| known == **directory));
    std::iter::once(own.as_str()).chain(missing.copied()).collect::<Vec<_>>().join(":")
}

/// Where a program lies; `None` when it is not installed.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    search_path().split(':').map(|directory| Path::new(directory).join(program)).find(|path| path.is_file())
}

/// The program's path, or its bare name when it is not installed, so that the error names it.
pub(crate) fn path(program: &str) -> PathBuf {
    find(program).unwrap_or_else(|| PathBuf::from(program))
}
