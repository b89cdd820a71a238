//! How a command fails: one line on standard error, and an exit code.
#![forbid(unsafe_code)]

use std::fmt;

/// Why a command ended without success.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The command line does not make sense: exit 2.
    Usage(String),
    /// It made sense, and did not work: exit 1.
    Failed(String),
}

impl Failure {
    pub(crate) fn usage(text: impl Into<String>) -> Failure {
        Failure::Usage(text.into())
    }

    /// `cannot WHAT: WHY`.
    pub(crate) fn cannot(what: impl fmt::Display, why: impl fmt::Display) -> Failure {
        Failure::Failed(format!("cannot {what}: {why}"))
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => 2,
            Failure::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(text) | Failure::Failed(text) => f.write_str(text),
        }
    }
}
