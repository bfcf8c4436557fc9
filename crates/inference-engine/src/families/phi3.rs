//! Phi 3, 3.5 and 4-mini (<https://arxiv.org/abs/2404.14219>): fused projections, LongRoPE, partly rotated heads.

use super::base::{Base, Defaults};
use super::{Family, Names, mistral, rope};
use crate::arch::Architecture;
use crate::config::Config;
use inference_core::Result;

pub(super) const FAMILY: Family = Family {
    model_types: &["phi3"],
    describe,
    names: Names { qkv: &["self_attn.qkv_proj"], gate_up: &["mlp.gate_up_proj"], ..Names::LLAMA },
    norm_offset: 0.0,
};

const DEFAULTS: Defaults = Defaults {
    context: 4096,
    norm_eps: 1e-5,
    rope: rope::Defaults {
        partial: true,
        original: Some(4096),
        // Older files say `su` or `yarn` and mean LongRoPE (`Phi3Config.convert_rope_params_to_dict`).
        kinds: &[
            ("default", "default"),
            ("longrope", "longrope"),
            ("su", "longrope"),
            ("yarn", "longrope"),
        ],
        ..rope::Defaults::COMMON
    },
    ..Defaults::COMMON
};

fn describe(config: &Config) -> Result<Architecture> {
    mistral::windowed(&Base::read(config, &DEFAULTS)?, None)
}
