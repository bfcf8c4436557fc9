//! Qwen 3 (<https://arxiv.org/abs/2505.09388>): Qwen 2 without biases, with a norm over each query and key head.

use super::base::Defaults;
use super::{Family, Names, qwen2};
use crate::arch::Architecture;
use crate::config::Config;
use inference_core::Result;

pub(super) const FAMILY: Family =
    Family { model_types: &["qwen3"], describe, names: Names::LLAMA, norm_offset: 0.0 };

const DEFAULTS: Defaults = Defaults { head_dim: Some(128), ..qwen2::DEFAULTS };

fn describe(config: &Config) -> Result<Architecture> {
    qwen2::describe_with(config, &DEFAULTS)
}
