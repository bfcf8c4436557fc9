//! Llama 1 to 3 (<https://arxiv.org/abs/2407.21783>), and what calls itself so.

use super::base::{Base, Defaults, Reach};
use super::{Family, Names, rope};
use crate::arch::Architecture;
use crate::config::Config;
use inference_core::Result;

pub(super) const FAMILY: Family =
    Family { model_types: &["llama"], describe, names: Names::LLAMA, norm_offset: 0.0 };

const DEFAULTS: Defaults = Defaults::COMMON;

fn describe(config: &Config) -> Result<Architecture> {
    let base = Base::read(config, &DEFAULTS)?;
    if base.window(None)?.is_some_and(|w| w < base.context) {
        return Err(base
            .text
            .error("sliding_window", "is below the context, but llama has no window"));
    }
    let attentions = base.attentions(&base.all(Reach::Full)?, None)?;
    Ok(base.architecture(attentions, rope::uniform(&base)?))
}
