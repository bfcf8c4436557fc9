//! The CUDA backend: NVIDIA's GPUs through the driver alone, which is opened at run time, with kernels that NVRTC compiles
//! for the card that is there. It builds on every machine, with no toolkit; where it can't run, its availability says why
//! and what to do.

#[cfg(any(target_os = "linux", target_os = "windows"))]
mod backend;
#[cfg(any(target_os = "linux", target_os = "windows"))]
mod choose;
#[cfg(any(target_os = "linux", target_os = "windows"))]
mod diagnose;
#[cfg(any(target_os = "linux", target_os = "windows"))]
mod driver;

#[cfg(not(any(target_os = "linux", target_os = "windows")))]
#[path = "elsewhere.rs"]
mod backend;

#[cfg(any(target_os = "linux", target_os = "windows"))]
pub use backend::{limits, open};
#[cfg(any(target_os = "linux", target_os = "windows"))]
pub use driver::{Buffer, Cuda, CudaDriver, CudaError, Device, Graph, Kernel, OpenError, nvrtc};

/// The name in the registry.
const NAME: &str = "cuda";

/// The backend `cuda`: NVIDIA's GPUs on Linux and Windows.
#[derive(Debug, Clone, Copy, Default)]
pub struct CudaBackend;
