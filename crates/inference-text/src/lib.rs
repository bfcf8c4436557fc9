//! Between text and tokens, and from logits to a token: what every engine needs, ours or foreign.
#![forbid(unsafe_code)]

pub mod blocks;
mod channel;
mod detokenizer;
pub mod files;
mod generation;
pub mod gguf;
pub mod logits;
pub mod math;
mod pace;
pub mod places;
mod prefixes;
mod queue;
pub mod runner;
pub mod sampling;
pub mod scheduler;
mod scoring;
mod served;
pub mod step;
mod stop;
mod template;
mod tokenizer;

pub use detokenizer::Detokenizer;
pub use generation::MemoryUse;
use generation::{Generation, Shared};
pub use served::{Served, Texts};
pub use stop::{Scanned, StopTexts};
pub use template::{ChatTemplate, Rendered};
pub use tokenizer::Tokenizer;
