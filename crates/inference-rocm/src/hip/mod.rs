//! HIP, opened at run time: nothing is linked, and a machine without it gets an error, not a panic.
//!
//! Three layers, as in cudarc: [`sys`] is the C interface, [`result`] turns its codes into errors, and [`safe`] owns
//! what it hands out. The C names stand as AMD documents them, <https://rocm.docs.amd.com/projects/HIP>.

pub mod load;
pub mod result;
pub mod rtc;
pub mod safe;
pub mod sys;

pub use load::{Hip, LoadError, Places, Version};
pub use result::{HipError, Kind};
pub use safe::{
    Arguments, DeviceInfo, HipDevice, HipEvent, HipFunction, HipGraph, HipModule, HipSlice,
    HipStream, LaunchBuilder, LaunchConfig,
};
