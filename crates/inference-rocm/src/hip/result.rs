//! What HIP can fail with, as errors that say what to do.

use super::sys::{Compiler, Runtime, code, hipError_t, hiprtcResult};
use std::sync::Arc;

/// What can go wrong with a device, told apart by what a caller can do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum HipError {
    /// A function of HIP failed.
    #[error("{call}: {name} ({code}): {text}")]
    Call {
        /// The function.
        call: &'static str,
        /// Its `hipError_t`.
        code: u32,
        /// What HIP calls this code.
        name: String,
        /// What HIP says of it.
        text: String,
    },

    /// Device memory is used up. Nothing was allocated.
    #[error(
        "a buffer of {bytes} bytes does not fit: {free} of {total} bytes of device memory are free"
    )]
    OutOfMemory {
        /// Bytes asked for.
        bytes: u64,
        /// Bytes free, as far as known.
        free: u64,
        /// Bytes in all, as far as known.
        total: u64,
    },

    /// An earlier call lost the device: nothing on it can be trusted any more.
    #[error(
        "the GPU stopped working for this process ({cause}): restart it; if this happens again, \
         `sudo dmesg | grep amdgpu` says more"
    )]
    Lost {
        /// The error that lost it.
        cause: String,
    },

    /// A launch does not fit the kernel or the device. Nothing ran.
    #[error("kernel `{kernel}`: {reason}")]
    Launch {
        /// The kernel.
        kernel: String,
        /// What does not fit.
        reason: String,
    },

    /// A copy reaches beyond its buffer. Nothing was copied.
    #[error("{bytes} bytes at {at} are not within a buffer of {size} bytes")]
    OutOfBounds {
        /// Bytes from the buffer's beginning.
        at: usize,
        /// Bytes to copy.
        bytes: usize,
        /// Bytes of the buffer.
        size: usize,
    },

    /// What was to be loaded is no code object for this device.
    #[error("code object: {0}")]
    CodeObject(String),

    /// The module has no such kernel.
    #[error("no kernel `{0}` in the code object")]
    NoKernel(String),

    /// Only launches can be recorded.
    #[error("{0} while launches are recorded: only launches can be")]
    Capturing(&'static str),

    /// Something that was dropped earlier could not be released.
    #[error("an earlier release failed: {0}")]
    Release(Arc<HipError>),
}

/// What a caller can do about a status of HIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// No usable device: diagnose.
    NoDevice,
    /// Use less.
    OutOfMemory,
    /// Compile again, for this device.
    NoBinary,
    /// Restart the process.
    Lost,
    /// A query's answer: not yet.
    NotReady,
    /// Anything else.
    Other,
}

impl Kind {
    /// What `status` of HIP means.
    pub fn of(status: u32) -> Self {
        match status {
            code::NO_DEVICE
            | code::INVALID_DEVICE
            | code::INSUFFICIENT_DRIVER
            | code::NOT_INITIALIZED => Self::NoDevice,
            code::OUT_OF_MEMORY | code::RUNTIME_MEMORY => Self::OutOfMemory,
            code::NOT_READY => Self::NotReady,
            c if code::NO_BINARY.contains(&c) => Self::NoBinary,
            c if code::LOST.contains(&c) => Self::Lost,
            _ => Self::Other,
        }
    }
}

impl HipError {
    /// What can be done about it.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Call { code, .. } => Kind::of(*code),
            Self::OutOfMemory { .. } => Kind::OutOfMemory,
            Self::Lost { .. } => Kind::Lost,
            Self::CodeObject(_) => Kind::NoBinary,
            _ => Kind::Other,
        }
    }
}

impl From<HipError> for inference_core::Error {
    fn from(error: HipError) -> Self {
        match error {
            HipError::OutOfMemory { bytes, free, .. } => Self::OutOfMemory {
                what: "a buffer on the GPU".to_owned(),
                needed: bytes,
                available: free,
                advice: "close other programs that use the GPU, lower context_len or slots, or load a smaller or \
                         quantised model"
                    .to_owned(),
            },
            other => Self::Device { reason: other.to_string() },
        }
    }
}

/// What a function of hiprtc failed with.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{call}: {text} ({code})")]
pub struct RtcError {
    /// The function.
    pub call: &'static str,
    /// Its `hiprtcResult`.
    pub code: u32,
    /// What hiprtc says of it.
    pub text: String,
}

impl Runtime {
    /// The error that `status` of `call` means, if it is one.
    pub(super) fn check(&self, call: &'static str, status: hipError_t) -> Result<(), HipError> {
        if status.0 == 0 {
            return Ok(());
        }
        let (name, text) = (self.hipGetErrorName(status), self.hipGetErrorString(status));
        Err(HipError::Call { call, code: status.0, name, text })
    }
}

impl Compiler {
    /// The error that `status` of `call` means, if it is one.
    pub(super) fn check(&self, call: &'static str, status: hiprtcResult) -> Result<(), RtcError> {
        if status.0 == 0 {
            return Ok(());
        }
        Err(RtcError { call, code: status.0, text: self.hiprtcGetErrorString(status) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_mean_what_a_caller_can_do() {
        let table = [
            (100, Kind::NoDevice),
            (101, Kind::NoDevice),
            (2, Kind::OutOfMemory),
            (1052, Kind::OutOfMemory),
            (209, Kind::NoBinary),
            (700, Kind::Lost),
            (719, Kind::Lost),
            (600, Kind::NotReady),
            (1, Kind::Other),
            (u32::MAX, Kind::Other),
        ];
        for (code, kind) in table {
            assert_eq!(Kind::of(code), kind, "{code}");
        }
    }
}
