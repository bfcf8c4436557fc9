//! Gemma 2 (<https://arxiv.org/abs/2408.00118>): norms after attention and feed-forward part too, softcaps, a window in
//! every other layer.

use super::base::{Base, Defaults, Reach};
use super::{Family, Names, rope};
use crate::arch::{Activation, Architecture, Attention};
use crate::config::Config;
use inference_core::Result;

pub(super) const FAMILY: Family =
    Family { model_types: &["gemma2"], describe, names: Names::GEMMA, norm_offset: 1.0 };

/// Gemma 3 has these as well.
pub(super) const DEFAULTS: Defaults = Defaults {
    vocab: Some(256_000),
    heads: Some(8),
    kv_heads: Some(4),
    head_dim: Some(256),
    context: 8192,
    activation_field: "hidden_activation",
    activation: Activation::GeluTanh,
    ..Defaults::COMMON
};

/// `query_pre_attn_scalar` where the file has none.
const QUERY_SCALAR: f64 = 256.0;

fn describe(config: &Config) -> Result<Architecture> {
    let base = Base::read(config, &DEFAULTS)?;
    let reaches = base.reaches(|i| if i % 2 == 0 { Reach::Sliding } else { Reach::Full })?;
    let mut attentions = attentions(&base, &reaches)?;
    let softcap = base.softcap("attn_logit_softcapping", Some(50.0))?;
    attentions.iter_mut().for_each(|a| a.softcap = softcap);
    let logit_softcap = base.softcap("final_logit_softcapping", Some(30.0))?;
    let rope = rope::uniform(&base)?;
    Ok(Architecture { logit_softcap, ..scaled(&base, base.architecture(attentions, rope)) })
}

/// Gemma's attention: scaled by a number of the configuration's, not by the head's width.
pub(super) fn attentions(base: &Base<'_>, reaches: &[Reach]) -> Result<Vec<Attention>> {
    let mut all = base.attentions(reaches, base.window(Some(4096))?)?;
    let scalar = base.text.positive("query_pre_attn_scalar")?.unwrap_or(QUERY_SCALAR);
    all.iter_mut().for_each(|a| a.scale = scalar.powf(-0.5) as f32);
    Ok(all)
}

/// With Gemma's scaled embeddings.
pub(super) fn scaled(base: &Base<'_>, architecture: Architecture) -> Architecture {
    Architecture { embed_scale: (base.hidden as f64).sqrt() as f32, ..architecture }
}
