//! The ROCm backend: AMD's GPUs through HIP, which is opened at run time, with kernels that are compiled for the card that
//! is there. It builds on every machine, with no toolkit; where it can't run, its availability says why and what to do.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod backend;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod choose;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod code_object;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod compile;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod diagnose;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod hip;

/// The name in the registry.
const NAME: &str = "rocm";
