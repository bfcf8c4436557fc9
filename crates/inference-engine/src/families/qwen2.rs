//! Qwen 2 and 2.5 (<https://arxiv.org/abs/2412.15115>): Llama with biases for queries, keys and values.

use super::base::{Base, Defaults, Reach};
use super::{Family, Names, rope};
use crate::arch::Architecture;
use crate::config::Config;
use inference_core::Result;

pub(super) const FAMILY: Family =
    Family { model_types: &["qwen2"], describe, names: Names::LLAMA, norm_offset: 0.0 };

/// Qwen 3 has these as well.
pub(super) const DEFAULTS: Defaults =
    Defaults { kv_heads: Some(32), context: 32_768, ..Defaults::COMMON };

/// The first layer with a window, where windows are on: `max_window_layers` if the file does not say.
const FIRST_SLIDING: usize = 28;

fn describe(config: &Config) -> Result<Architecture> {
    describe_with(config, &DEFAULTS)
}

/// Windows, where `use_sliding_window` turns them on, in the layers from `max_window_layers` on.
pub(super) fn describe_with(config: &Config, defaults: &'static Defaults) -> Result<Architecture> {
    let base = Base::read(config, defaults)?;
    let on = base.text.flag("use_sliding_window")?.unwrap_or(false);
    let window = base.window(Some(4096))?.filter(|_| on);
    let first = base.text.whole("max_window_layers", 0..=usize::MAX)?.unwrap_or(FIRST_SLIDING);
    let slides = |i| window.is_some() && i >= first;
    let reaches = base.reaches(|i| if slides(i) { Reach::Sliding } else { Reach::Full })?;
    let attentions = base.attentions(&reaches, window)?;
    Ok(base.architecture(attentions, rope::uniform(&base)?))
}
