//! What can go wrong, as a caller can act on it.

use std::{path::PathBuf, sync::Arc, time::Duration};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that a call of this library can fail with.
///
/// The messages are lower-case, name the thing that is wrong, and say what to do where that is known.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry is empty: the program was built without any backend feature.
    #[error("no backends registered: enable a backend feature, such as cpu, metal or rocm")]
    NoBackends,

    /// [`LoadOptions::backend`](crate::LoadOptions::backend) names a backend that is not there.
    #[error("backend {name:?} not registered{}", known_list(.known))]
    BackendNotRegistered {
        /// The name that was asked for.
        name: String,
        /// The names that are registered.
        known: Vec<String>,
    },

    /// The named backend is registered but can't run here.
    #[error("backend {name:?} not available on this hardware: {reason}")]
    BackendNotAvailable {
        /// The backend's name.
        name: String,
        /// Why it can't run.
        reason: String,
    },

    /// There are backends, but not one of them can run here.
    #[error("no backend is available on this hardware: {}", reasons_list(.reasons))]
    NoneAvailable {
        /// Name and reason of each backend.
        reasons: Vec<(String, String)>,
    },

    /// There are backends that run here, but none of them reads this format.
    #[error("no available backend reads {format} ({}): {}", .path.display(), reasons_list(.reasons))]
    NoBackendReads {
        /// What was to be loaded.
        path: PathBuf,
        /// The format it has, in words.
        format: String,
        /// Name and reason of each backend.
        reasons: Vec<(String, String)>,
    },

    /// The backend can't honour this option, and ignoring it would give another result than asked for.
    #[error("option `{option}` is not supported by backend {backend:?}")]
    Unsupported {
        /// The option, with its value where that matters.
        option: String,
        /// The backend's name.
        backend: String,
    },

    /// An option has a value that means nothing.
    #[error("invalid option `{option}`: {reason}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What is wrong with its value.
        reason: String,
    },

    /// The path holds no model.
    #[error("no model at {}: {reason}", .path.display())]
    NotAModel {
        /// What was to be loaded.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },

    /// A file of the checkpoint is damaged, or says something impossible.
    #[error("invalid {}: {reason}", .path.display())]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// The field and what is wrong with it.
        reason: String,
    },

    /// The checkpoint is of a family that this library does not know.
    #[error("unknown model_type {model_type:?}; known are {}", .known.join(", "))]
    UnknownArchitecture {
        /// `model_type` of `config.json`.
        model_type: String,
        /// All that are known.
        known: Vec<String>,
    },

    /// The checkpoint lacks a tensor that its family needs.
    #[error("no tensor `{name}` in {}", .path.display())]
    MissingTensor {
        /// The tensor's name in the checkpoint.
        name: String,
        /// The checkpoint.
        path: PathBuf,
    },

    /// The prompt can't be worked on, whatever the options.
    #[error("invalid prompt: {reason}")]
    InvalidPrompt {
        /// What is wrong with it.
        reason: String,
    },

    /// Prompt and `max_tokens` together exceed what the model or its cache can hold. Nothing was computed.
    #[error(
        "{prompt} prompt tokens and max_tokens {max_tokens} exceed the context of {context} tokens: \
         shorten the prompt, lower max_tokens, or load with a larger context_len"
    )]
    ContextExceeded {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Tokens that fit.
        context: usize,
    },

    /// A chat was asked of a checkpoint without a chat template.
    #[error(
        "{} has no chat template: use `generate` with a prompt of your own, \
         or add a chat_template.jinja to the folder",
        .path.display()
    )]
    NoChatTemplate {
        /// The checkpoint.
        path: PathBuf,
    },

    /// The chat template refused the messages, or is broken itself.
    #[error("chat template: {reason}")]
    ChatTemplate {
        /// The template's own message, or where it is wrong.
        reason: String,
    },

    /// What was asked for does not fit in memory. Nothing was allocated.
    #[error("{what} needs {needed} bytes but {available} are available: {advice}")]
    OutOfMemory {
        /// What was to be allocated.
        what: String,
        /// Bytes needed.
        needed: u64,
        /// Bytes available.
        available: u64,
        /// What a caller may do.
        advice: String,
    },

    /// [`GenerateOptions::timeout`](crate::GenerateOptions::timeout) passed before there was a result.
    #[error("timed out after {after:?}")]
    TimedOut {
        /// The time limit.
        after: Duration,
    },

    /// The call was cancelled before there was a result.
    #[error("cancelled")]
    Cancelled,

    /// As many calls as may run and wait do so already. Nothing was computed.
    #[error(
        "busy: {calls} calls run or wait already: try again later, let the call wait, or load with a larger queue_len"
    )]
    Busy {
        /// Calls that run or wait.
        calls: usize,
    },

    /// The model was closed, before or during the call.
    #[error("the model is closed")]
    Closed,

    /// The device or its driver failed.
    #[error("device: {reason}")]
    Device {
        /// What the device said.
        reason: String,
    },

    /// The engine's thread died of a bug. The model can't be used any more; the process lives.
    #[error("the engine stopped: {reason}")]
    EngineStopped {
        /// The panic's message.
        reason: String,
    },

    /// A file could not be read, or not be written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: Arc<std::io::Error>,
    },
}

impl Error {
    /// An [`Error::Io`] about `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source: Arc::new(source) }
    }

    /// An [`Error::InvalidFile`] about `path`.
    pub fn file(path: impl Into<PathBuf>, reason: impl std::fmt::Display) -> Self {
        Self::InvalidFile { path: path.into(), reason: reason.to_string() }
    }

    /// An [`Error::InvalidOption`] about `option`.
    pub fn option(option: &'static str, reason: impl std::fmt::Display) -> Self {
        Self::InvalidOption { option, reason: reason.to_string() }
    }

    /// An [`Error::Unsupported`] of `backend`.
    pub fn unsupported(option: impl Into<String>, backend: impl Into<String>) -> Self {
        Self::Unsupported { option: option.into(), backend: backend.into() }
    }
}

fn known_list(known: &[String]) -> String {
    if known.is_empty() {
        ": none is".to_owned()
    } else {
        format!(": registered are {}", known.join(", "))
    }
}

fn reasons_list(reasons: &[(String, String)]) -> String {
    let each: Vec<_> = reasons.iter().map(|(name, reason)| format!("{name} ({reason})")).collect();
    each.join("; ")
}
