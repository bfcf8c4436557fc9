//! Devices, streams, memory, modules and graphs that own themselves.
//!
//! Everything holds what it needs, so any order of dropping is right. A release that fails is logged and reported by the
//! next call on its device. After an error that loses the device every call says so.

mod device;
mod event;
mod graph;
mod info;
mod launch;
mod memory;
mod module;
mod staging;
mod stream;

pub use device::HipDevice;
pub use event::HipEvent;
pub use graph::HipGraph;
pub use info::DeviceInfo;
pub use launch::{Arguments, LaunchBuilder, LaunchConfig};
pub use memory::HipSlice;
pub use module::{HipFunction, HipModule};
pub use stream::HipStream;
