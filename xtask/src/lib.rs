//! What tasks of the repository share with its tests.

#![forbid(unsafe_code)]

pub mod gguf;

/// A result of a task: the line that says why it failed.
pub type Result<T = ()> = std::result::Result<T, String>;
