//! The device that CUDA and HIP share: one set of kernels, and [`Driver`], what a vendor's library has to give.
//!
//! [`Gpu`] is the [`Device`](inference_engine::device::Device) over any such driver. Activations are f32 everywhere in
//! memory; keys and values have the type that the cache is asked for. See `kernels/README.md` for the kernels.

mod answer;
mod arena;
mod attention;
mod backend;
pub mod code_cache;
#[cfg(feature = "cpu-driver")]
pub mod cpu;
mod device;
pub mod driver;
mod gpu;
mod launch;
mod limits;
mod linear;
mod load;
mod replay;
mod source;
mod step;

pub use backend::{load, self_test};
pub use driver::{Driver, Launch, MatrixUnit, Memory, Target};
pub use gpu::{Gpu, Tensor};
pub use limits::{Limits, limits};
pub use replay::Recorded;
pub use source::Module;
