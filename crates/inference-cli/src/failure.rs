//! What ends the program early: one line on stderr and an exit code.

use std::{io, process::ExitCode};

/// The exit code after Ctrl-C: 128 + SIGINT, as shells expect.
pub(crate) const INTERRUPTED: u8 = 130;

/// A result of this program.
pub(crate) type Result<T = ExitCode> = std::result::Result<T, Failure>;

/// Why the program ends early.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the library said.
    Library(inference::Error),
    /// An input of the program could not be used.
    Input(String),
    /// Standard output is not there any more.
    Output(io::Error),
}

impl Failure {
    /// The line for stderr; `None` where nobody is to be told: whoever read our output has read enough.
    pub(crate) fn line(&self) -> Option<String> {
        let text = match self {
            Self::Library(inference::Error::Cancelled) => return None,
            Self::Library(error) => error.to_string(),
            Self::Input(text) => text.clone(),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => return None,
            Self::Output(error) => format!("standard output: {error}"),
        };
        Some(text.lines().map(str::trim).collect::<Vec<_>>().join(" "))
    }

    /// The exit code that goes with it.
    pub(crate) fn code(&self) -> ExitCode {
        match self {
            Self::Library(inference::Error::Cancelled) => ExitCode::from(INTERRUPTED),
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }
}

impl From<inference::Error> for Failure {
    fn from(error: inference::Error) -> Self {
        Self::Library(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_one_line_or_none() {
        let template = inference::Error::ChatTemplate { reason: "roles must\n  alternate".into() };
        assert_eq!(
            Failure::from(template).line().as_deref(),
            Some("chat template: roles must alternate")
        );
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).line(), None);
    }
}
