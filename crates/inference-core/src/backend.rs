//! What makes models: a backend, what it runs on, and what it reads.

use crate::{DeviceChoice, Error, LoadOptions, Result, TextModel};
use serde::Serialize;
use std::{fmt, path::Path, time::Duration};

/// An engine that can load models. Object safe; one value serves the whole process.
pub trait Backend: Send + Sync {
    /// Its name in the registry and in [`LoadOptions::backend`], such as `cpu`.
    fn name(&self) -> &str;

    /// Whether it can run on this machine, and if not, why. May take a moment: it may look for drivers.
    fn availability(&self) -> Availability;

    /// Whether it can load models of this format.
    fn reads(&self, format: Format) -> bool;

    /// The devices it can run on; empty where it is not available.
    fn devices(&self) -> Vec<DeviceInfo>;

    /// Loads the model at `path`.
    ///
    /// # Errors
    /// Whatever is wrong with the files, the options, or the device; nothing stays allocated.
    fn load(&self, path: &Path, options: &LoadOptions) -> Result<Box<dyn TextModel>>;

    /// What a report of a fault should say of drivers and devices: lines of text.
    fn report(&self) -> String {
        String::new()
    }

    /// Computes on a device what a reference computes too, and compares: each check is told to `each` when it ends.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the backend has no such checks; [`Error::BackendNotAvailable`]; a device that is not
    /// there or can't be opened. What a check finds is not an error: see [`Check::outcome`].
    fn self_test(&self, device: Option<&DeviceChoice>, each: &mut dyn FnMut(Check)) -> Result<()> {
        let _ = (device, each);
        match self.availability() {
            Availability::Available => Err(Error::unsupported("self-test", self.name())),
            Availability::Unavailable(reason) => {
                Err(Error::BackendNotAvailable { name: self.name().to_owned(), reason })
            }
        }
    }
}

/// What one part of a [self-test](Backend::self_test) found.
#[derive(Debug)]
#[non_exhaustive]
pub struct Check {
    /// What was computed.
    pub name: String,
    /// The largest distance to the reference, relative to the result's size; or what was wrong.
    pub outcome: Result<f64>,
    /// How long it took.
    pub duration: Duration,
}

impl Check {
    /// A check that has ended.
    pub fn new(name: impl Into<String>, outcome: Result<f64>, duration: Duration) -> Self {
        Self { name: name.into(), outcome, duration }
    }
}

/// Whether a backend can run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Availability {
    /// It can.
    Available,
    /// It can't, for this reason.
    Unavailable(String),
}

impl Availability {
    /// Whether it can.
    pub fn is_available(&self) -> bool {
        *self == Self::Available
    }
}

/// A device that a backend can run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Stays the same across restarts, such as a PCI address.
    pub id: String,
    /// As its maker calls it.
    pub name: String,
    /// Bytes of memory in all.
    pub memory: u64,
    /// Bytes of memory that are free now.
    pub available: u64,
}

impl DeviceInfo {
    /// A device; `memory` and `available` in bytes.
    pub fn new(
        id: impl Into<String>,
        name: impl Into<String>,
        memory: u64,
        available: u64,
    ) -> Self {
        Self { id: id.into(), name: name.into(), memory, available }
    }
}

/// How a model is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// A folder with `config.json` and `*.safetensors`, as on Hugging Face.
    Safetensors,
    /// A `.gguf` file, as llama.cpp reads.
    Gguf,
    /// The address of a server.
    Url,
}

impl Format {
    /// The format that `path` has by its looks: a URL by its scheme, GGUF by its ending, else a folder of safetensors.
    pub fn of(path: &Path) -> Self {
        if path.to_str().is_some_and(|p| p.starts_with("http://") || p.starts_with("https://")) {
            Self::Url
        } else if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gguf")) {
            Self::Gguf
        } else {
            Self::Safetensors
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "a folder of safetensors",
            Self::Gguf => "a GGUF file",
            Self::Url => "a URL",
        })
    }
}
