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
mod driver;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub mod hip;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "elsewhere.rs"]
mod backend;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use backend::{limits, open};
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
pub use driver::HipDriver;

/// The name in the registry.
const NAME: &str = "rocm";

/// The backend `rocm`: AMD's GPUs on 64-bit x86 Linux.
#[derive(Debug, Clone, Copy, Default)]
pub struct RocmBackend;

/// Lets the backend compile for GPUs that its compiler may not know, in another process of this program.
///
/// Call it first in `main`, before anything is read or printed: if this process was started to compile, it does so and
/// exits, and else returns at once. A program that doesn't call it works as well, but refuses such GPUs.
pub fn compile_if_asked() {
    backend::compile_if_asked();
}
