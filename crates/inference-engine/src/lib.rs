//! The engine: a checkpoint's weights, its family, one forward pass over any device, and ragged continuous batching.
//!
//! A backend of our own implements [`Device`](device::Device) and hands it to [`load`].

#![deny(unsafe_code)]

pub mod arch;
pub mod check;
pub mod checkpoint;
pub mod config;
pub mod decoder;
pub mod device;
mod elsewhere;
mod engine;
pub mod families;
mod gguf;
pub mod naive;
mod quantise;
pub mod step;
pub mod weights;

pub use engine::{Setup, load};
pub use quantise::quantise;
