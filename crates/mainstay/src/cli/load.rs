//! Reading a system file from disk.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use model::system::{Checked, Invalid, MAX_SIZE, System, parse, parse_change};

use super::error::CliError;
use super::exit::Exit;

/// A system file that was read, valid or not.
pub(crate) struct Loaded {
    /// Its text, to show places in it.
    pub(crate) text: String,
    /// What it says.
    pub(crate) checked: Result<Checked, Invalid>,
}

/// Reads and checks `file`. With `running`, what the file leaves open stays as it was chosen for the running system.
///
/// # Errors
/// When the file cannot be read; a file that is wrong is no error here.
pub(crate) fn load(file: &Path, running: Option<&System>) -> Result<Loaded, CliError> {
    let unreadable = |error: &std::io::Error| {
        CliError::with(Exit::Invalid, format!("the system file `{}` cannot be read", file.display()))
            .because(error)
    };
    // One byte more than is allowed is enough to know that it is too large.
    let limit = u64::try_from(MAX_SIZE).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = vec![];
    let read = File::open(file).and_then(|opened| opened.take(limit).read_to_end(&mut bytes));
    read.map_err(|error| unreadable(&error).hint(hint(file)))?;
    let name = file.display().to_string();
    let checked = match running {
        Some(running) => parse_change(&name, &bytes, running),
        None => parse(&name, &bytes),
    };
    Ok(Loaded { text: String::from_utf8_lossy(&bytes).into_owned(), checked })
}

impl Loaded {
    /// What the file says, if nothing is wrong with it.
    ///
    /// # Errors
    /// With everything that is wrong.
    pub(crate) fn valid(self) -> Result<(Checked, String), CliError> {
        match self.checked {
            Ok(checked) => Ok((checked, self.text)),
            Err(invalid) => Err(CliError::Invalid { invalid, text: self.text }),
        }
    }
}

fn hint(file: &Path) -> String {
    let inside = file.join("mainstay.toml");
    if inside.is_file() {
        return format!("it is a directory; did you mean `{}`?", inside.display());
    }
    "name the file that describes the system, for example `mainstay check mainstay.toml`".to_owned()
}
