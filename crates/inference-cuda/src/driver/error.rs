//! What CUDA fails with.

use cudarc::driver::{DriverError, sys::CUresult};

/// What a call of the CUDA driver failed with.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CudaError {
    /// A function said no.
    #[error("{call}: {name} ({code}): {text}{}", advice(.code))]
    Call {
        /// The function.
        call: &'static str,
        /// Its `CUresult`.
        code: u32,
        /// What CUDA calls it.
        name: String,
        /// What CUDA says of it.
        text: String,
    },

    /// The device has no room.
    #[error("the GPU has no room for {bytes} bytes; {free} are free")]
    OutOfMemory {
        /// Bytes asked for.
        bytes: u64,
        /// Bytes that are free.
        free: u64,
    },

    /// Only launches can be recorded.
    #[error("{0} while launches are recorded: only launches can be")]
    Recording(&'static str),

    /// A name with a zero in it.
    #[error("no kernel {0:?}: a name has no zero in it")]
    Name(String),
}

/// What helps against an error, where that is known.
fn advice(code: &u32) -> &'static str {
    match code {
        2 => "; close other programs that use the GPU",
        46 => {
            "; another program has the GPU for itself, or its compute mode forbids computing: see `nvidia-smi`"
        }
        200 | 209 | 218 | 222 => {
            "; the kernels' compiler does not go with the driver: install NVRTC of the CUDA version that `nvidia-smi` \
             prints, or update the driver"
        }
        214 | 220 | 700 | 702 | 710 | 714..=719 => {
            "; the GPU stopped working for this process: restart it; if it happens again, `sudo dmesg | grep NVRM` may \
             say more"
        }
        _ => "",
    }
}

/// Names the call that failed.
pub(super) fn check<T>(call: &'static str, result: Result<T, DriverError>) -> Result<T, CudaError> {
    result.map_err(|error| {
        let text = |text: Result<&std::ffi::CStr, DriverError>| {
            text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
        };
        CudaError::Call {
            call,
            code: error.0 as u32,
            name: text(error.error_name()),
            text: text(error.error_string()),
        }
    })
}

/// Whether it is a lack of memory.
pub(super) fn is_out_of_memory(error: &CudaError) -> bool {
    const CODE: u32 = CUresult::CUDA_ERROR_OUT_OF_MEMORY as u32;
    matches!(error, CudaError::Call { code: CODE, .. })
}

/// Whether it is about code that the device does not take: made for another, or damaged.
pub(super) fn is_unfit_code(error: &CudaError) -> bool {
    const CODES: [CUresult; 4] = [
        CUresult::CUDA_ERROR_INVALID_IMAGE,
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU,
        CUresult::CUDA_ERROR_INVALID_PTX,
        CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
    ];
    matches!(error, CudaError::Call { code, .. } if CODES.iter().any(|c| *c as u32 == *code))
}

impl From<CudaError> for inference_core::Error {
    fn from(error: CudaError) -> Self {
        match error {
            CudaError::OutOfMemory { bytes, free } => Self::OutOfMemory {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_say_what_to_do() {
        let error = |code| {
            let (name, text) = ("CUDA_ERROR_X".to_owned(), "x".to_owned());
            inference_core::Error::from(CudaError::Call { call: "cuX", code, name, text })
        };
        for (code, word) in
            [(222, "install NVRTC"), (700, "restart it"), (46, "compute mode"), (2, "close other")]
        {
            assert!(error(code).to_string().contains(word), "{code}: {}", error(code));
        }
        assert!(error(1).to_string().ends_with("cuX: CUDA_ERROR_X (1): x"));
        let full = inference_core::Error::from(CudaError::OutOfMemory { bytes: 2, free: 1 });
        assert!(matches!(full, inference_core::Error::OutOfMemory { needed: 2, available: 1, .. }));
    }
}
