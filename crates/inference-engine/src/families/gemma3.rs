//! Gemma 3 (<https://arxiv.org/abs/2503.19786>), its text: Gemma 2 without softcaps, with norms over each query and key
//! head, windows but in every sixth layer, and another base of the rotation in each kind of layer.

use super::base::{Base, Defaults, Reach};
use super::{Family, Names, gemma2, rope};
use crate::arch::Architecture;
use crate::config::Config;
use inference_core::Result;

pub(super) const FAMILY: Family = Family {
    model_types: &["gemma3", "gemma3_text"],
    describe,
    names: Names::GEMMA,
    norm_offset: 1.0,
};

const DEFAULTS: Defaults = Defaults {
    vocab: Some(262_208),
    context: 131_072,
    rope: rope::Defaults { theta: 1_000_000.0, ..rope::Defaults::COMMON },
    ..gemma2::DEFAULTS
};

/// The base of the rotation in layers with a window, where the file has none.
const LOCAL_THETA: f64 = 10_000.0;

/// One layer in so many has no window, where the file does not say.
const PATTERN: usize = 6;

fn describe(config: &Config) -> Result<Architecture> {
    let base = Base::read(config, &DEFAULTS)?;
    // The reference implementation has both fields and uses the second alone, and only in a model of text alone.
    if base.softcap("attn_logit_softcapping", None)?.is_some() {
        return Err(base.text.error("attn_logit_softcapping", "is not supported in gemma3"));
    }
    let logit_softcap = base.softcap("final_logit_softcapping", None)?;
    if logit_softcap.is_some() && config.is_nested() {
        return Err(base.text.error("final_logit_softcapping", "is not supported here"));
    }
    let pattern = base.text.count_or("sliding_window_pattern", usize::MAX, Some(PATTERN))?;
    let full = |i: usize| (i + 1).is_multiple_of(pattern);
    let reaches = base.reaches(|i| if full(i) { Reach::Full } else { Reach::Sliding })?;

    let (global, local) = rope::by_reach(&base, LOCAL_THETA)?;
    let attentions = gemma2::attentions(&base, &reaches)?;
    let mut architecture = gemma2::scaled(&base, base.architecture(attentions, global));
    architecture.ropes.push(local);
    for (layer, reach) in architecture.layers.iter_mut().zip(reaches) {
        layer.rope = Some(usize::from(reach == Reach::Sliding));
    }
    Ok(Architecture { logit_softcap, ..architecture })
}
