//! The device that CUDA and HIP share: one set of kernels, and [`Driver`], what a vendor's library has to give.

pub mod driver;

pub use driver::{Driver, Launch, MatrixUnit, Memory, Target};
