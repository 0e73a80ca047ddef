//! Exit codes: the one place where they are defined.

use std::process::ExitCode;

/// How a command ended. Scripts rely on the numbers; they never change their meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 0: done.
    Done,
    /// 1: the command failed.
    Failed,
    /// 2: the command line or the system file is wrong. Nothing was touched.
    Invalid,
    /// 3: refused, because it cannot be done as things are or could lose or damage data. Nothing was touched.
    Refused,
    /// 4: the system works with less than it should (`status --check`; `up`, `apply` and `switchover` when not everything
    /// works after them), or a drill missed its objective.
    Degraded,
    /// 5: no node of the system could be reached.
    Unreachable,
}

/// The table of exit codes as `mainstay --help` shows it.
pub(crate) const HELP: &str = "\
Exit codes:
  0  done
  1  the command failed
  2  the command line or the system file is wrong; nothing was touched
  3  refused: it cannot be done as things are, or could lose or damage data; nothing was touched
  4  not everything works (status --check; after up, apply, switchover), or a drill missed its objective
  5  no node of the system could be reached";

impl Exit {
    fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Invalid => 2,
            Self::Refused => 3,
            Self::Degraded => 4,
            Self::Unreachable => 5,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_says_every_code() {
        let all = [Exit::Done, Exit::Failed, Exit::Invalid, Exit::Refused, Exit::Degraded, Exit::Unreachable];
        for (number, exit) in all.into_iter().enumerate() {
            assert_eq!(usize::from(exit.code()), number);
            assert!(HELP.contains(&format!("\n  {number}  ")), "{exit:?}");
        }
    }
}
