//! The Metal backend: Apple silicon through candle's tensors, with kernels of our own.
//!
//! [`Candle`] is the [`Device`](inference_engine::device::Device) over candle's tensors, whatever computes with them:
//! [`Kernels`] on Apple's GPU, or [`OnCpu`] on candle's CPU device, which runs everywhere, so that tests everywhere run all
//! but the kernels. The crate builds on every machine; where Apple's GPU is not, the backend's availability says why.

mod answer;
mod attention;
mod cpu;
mod device;
mod kernels;
mod linear;
pub mod operations;
mod step;

#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
mod backend;
#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
mod gpu;

#[cfg(not(all(target_os = "macos", target_arch = "aarch64")))]
#[path = "elsewhere.rs"]
mod backend;

pub use cpu::OnCpu;
pub use device::Candle;
#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
pub use gpu::AppleGpu;
pub use kernels::{Buffer, Kernel, Kernels, Launcher, Library, Stored};
pub use linear::{Groups, Linear, Segment};
pub use step::Started;

/// The name in the registry.
const NAME: &str = "metal";

/// The backend `metal`: the GPU of Apple silicon.
#[derive(Debug, Clone, Copy, Default)]
pub struct MetalBackend;
