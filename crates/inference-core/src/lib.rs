//! The contract between programs that want text and engines that make it.
//!
//! An application loads a [`TextModel`] through a [`Registry`] of [`Backend`]s and reads [`TokenStream`]s.
//! This crate knows no tensor, no GPU and no async runtime, and compiles everywhere.
#![forbid(unsafe_code)]

mod backend;
mod classify;
mod discover;
mod error;
mod model;
mod options;
mod priority;
mod quantise;
mod registry;
mod stream;

pub use backend::{Availability, Backend, Check, DeviceInfo, Format};
pub use classify::{
    Classification, ClassifyOptions, LabelScore, LabelScoring, Score, ScoreOptions,
};
pub use discover::{Discovered, discover, discover_all};
pub use error::{Error, Result};
pub use model::{Message, ModelInfo, Quantisation, RenderOptions, Role, TextModel};
pub use options::{
    CacheDtype, CancelToken, DeviceChoice, GenerateOptions, GpuLayers, LoadOptions, Progress,
    ProgressFn,
};
pub use priority::Priority;
pub use quantise::QuantiseOptions;
pub use registry::Registry;
pub use stream::{
    Completion, FinishReason, Metrics, Token, TokenLogprob, TokenSource, TokenStream,
};
