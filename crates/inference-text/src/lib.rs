//! Between text and tokens, and from logits to a token: what every engine needs, ours or foreign.
#![forbid(unsafe_code)]

mod channel;
mod classify;
mod detokenizer;
pub mod files;
mod generation;
pub mod sampling;
mod stop;

mod template;
mod tokenizer;

pub use classify::{Scoring, ToScore, classify};
pub use detokenizer::Detokenizer;
pub use generation::{Generation, MemoryUse, Shared};
pub use stop::{Scanned, StopTexts};
pub use template::{ChatTemplate, Rendered};
pub use tokenizer::Tokenizer;
