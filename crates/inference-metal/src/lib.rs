//! The Metal backend: Apple silicon through candle's tensors, with kernels of our own.
//!
//! It builds on every machine. Where Apple's GPU is not, its availability says why; the device runs there as well, on
//! candle's CPU device, so that tests everywhere run all of it but the kernels themselves.

#[path = "elsewhere.rs"]
mod backend;

/// The name in the registry.
const NAME: &str = "metal";

/// The backend `metal`: the GPU of Apple silicon.
#[derive(Debug, Clone, Copy, Default)]
pub struct MetalBackend;
