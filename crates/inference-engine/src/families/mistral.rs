//! Mistral (<https://arxiv.org/abs/2310.06825>): Llama with a sliding window in all layers, or in none.

use super::base::{Base, Defaults, Reach};
use super::{Family, Names, rope};
use crate::arch::Architecture;
use crate::config::Config;
use inference_core::Result;

pub(super) const FAMILY: Family =
    Family { model_types: &["mistral"], describe, names: Names::LLAMA, norm_offset: 0.0 };

const DEFAULTS: Defaults = Defaults { kv_heads: Some(8), context: 131_072, ..Defaults::COMMON };

fn describe(config: &Config) -> Result<Architecture> {
    windowed(&Base::read(config, &DEFAULTS)?, Some(4096))
}

/// A decoder whose layers all have the same window; `missing` where the file does not mention one.
pub(super) fn windowed(base: &Base<'_>, missing: Option<usize>) -> Result<Architecture> {
    let window = base.window(missing)?;
    let reach = if window.is_some() { Reach::Sliding } else { Reach::Full };
    let attentions = base.attentions(&base.all(reach)?, window)?;
    Ok(base.architecture(attentions, rope::uniform(base)?))
}
