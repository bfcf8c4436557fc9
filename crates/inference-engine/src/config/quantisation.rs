//! What `config.json` says of how weights are quantised: MLX's `quantization`, and `quantization_config` of everyone
//! else.

use super::{Config, Section};
use inference_core::Result;
use serde_json::Value;
use std::{collections::HashMap, fmt};

/// What can be read, for messages.
const READABLE: &str =
    "MLX (affine, mxfp4, nvfp4, mxfp8), gptq, awq, fp8 and compressed-tensors' float-quantized can";

/// Most columns of a group that are believed.
const MOST_GROUP: usize = 1 << 20;

/// How a checkpoint's matrices are quantised, as its configuration says.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Quantised {
    /// As MLX stores them.
    Mlx(Mlx),
    /// As GPTQ's tools do.
    Gptq(Gptq),
    /// As AutoAWQ does, for its kernel `gemm`.
    Awq(Awq),
    /// 8-bit floating point, with scales.
    Fp8(Fp8),
}

/// MLX's `quantization`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlx {
    /// Of modules that are not listed.
    pub default: MlxForm,
    /// By a module's full name; `None`: it is not quantised.
    pub modules: HashMap<String, Option<MlxForm>>,
}

/// How MLX quantises a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlxForm {
    /// What its numbers are.
    pub mode: MlxMode,
    /// Bits of a number.
    pub bits: u32,
    /// Columns that share a scale.
    pub group: usize,
}

/// What MLX's numbers are
/// (<https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.quantize.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MlxMode {
    /// Whole numbers, with a scale and a bias a group.
    Affine,
    /// E2M1 in groups of 32, with a power of two each.
    MxFp4,
    /// E2M1 in groups of 16, with an E4M3 scale each.
    NvFp4,
    /// E4M3 in groups of 32, with a power of two each.
    MxFp8,
}

/// GPTQ's `quantization_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gptq {
    /// `None`: modules differ, and their tensors say.
    pub form: Option<PackedForm>,
    /// Whether all zeros are in the middle, it says.
    pub symmetric: bool,
    /// Whether zeros are stored as they are; else one less (`gptq` and `gptq_v2`).
    pub exact_zeros: bool,
}

/// AWQ's `quantization_config`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awq {
    /// The same for all modules.
    pub form: PackedForm,
}

/// Bits and groups of GPTQ and AWQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedForm {
    /// Bits of a number.
    pub bits: u32,
    /// Columns that share a scale; `None`: all of them.
    pub group: Option<usize>,
}

impl fmt::Display for PackedForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            Some(group) => write!(f, "{} bits in groups of {group}", self.bits),
            None => write!(f, "{} bits in one group a row", self.bits),
        }
    }
}

/// `quantization_config` of 8-bit floating point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fp8 {
    /// Outputs and inputs that share a scale, where scales are a matrix.
    pub block: [usize; 2],
}

impl MlxMode {
    /// Its name in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Affine => "affine",
            Self::MxFp4 => "mxfp4",
            Self::NvFp4 => "nvfp4",
            Self::MxFp8 => "mxfp8",
        }
    }

    /// What is meant where nothing is said.
    fn defaults(self) -> MlxForm {
        let (bits, group) = match self {
            Self::Affine => (4, 64),
            Self::MxFp4 => (4, 32),
            Self::NvFp4 => (4, 16),
            Self::MxFp8 => (8, 32),
        };
        MlxForm { mode: self, bits, group }
    }
}

impl Config {
    /// How the weights are quantised; `None`: not at all.
    ///
    /// # Errors
    /// [`Error::InvalidFile`](inference_core::Error::InvalidFile) for a format that can't be read, and for fields that
    /// are impossible.
    pub fn quantisation(&self) -> Result<Option<Quantised>> {
        let parts = [self.root(), self.text()?];
        for part in &parts {
            if let Some(section) = part.section("quantization")?.filter(|s| !s.is_empty()) {
                return mlx(&section).map(Some);
            }
        }
        for part in &parts {
            if let Some(section) = part.section("quantization_config")?.filter(|s| !s.is_empty()) {
                return of_method(part, &section).map(Some);
            }
        }
        Ok(None)
    }
}

/// `quantization_config` by its `quant_method`; MLX's copy of `quantization` has none.
fn of_method(part: &Section<'_>, section: &Section<'_>) -> Result<Quantised> {
    let method = section.string("quant_method")?.or(section.string("method")?);
    match method {
        None => mlx(section),
        Some("gptq") => gptq(section),
        Some("awq") => awq(section),
        Some("fp8") => fp8(section),
        Some("compressed-tensors") => compressed(section),
        Some(other) => {
            let reason = format!("weights quantised with {other:.40} can't be read; {READABLE}");
            Err(part.error("quantization_config", reason))
        }
    }
}

fn mlx(section: &Section<'_>) -> Result<Quantised> {
    for field in ["group_size", "bits"] {
        if section.get(field).is_none() {
            return Err(section.error(field, "is missing"));
        }
    }
    let default = mlx_form(section)?;
    let mut modules = HashMap::new();
    for (name, value) in section.fields {
        let form = match value {
            Value::Bool(false) => None,
            Value::Bool(true) => Some(default),
            Value::Object(_) => section.section(name)?.map(|s| mlx_form(&s)).transpose()?,
            _ => continue,
        };
        modules.insert(name.clone(), form);
    }
    Ok(Quantised::Mlx(Mlx { default, modules }))
}

/// `mode`, `bits` and `group_size`; what is missing is the mode's default.
fn mlx_form(section: &Section<'_>) -> Result<MlxForm> {
    let mode = match section.string("mode")? {
        None | Some("affine") => MlxMode::Affine,
        Some("mxfp4") => MlxMode::MxFp4,
        Some("nvfp4") => MlxMode::NvFp4,
        Some("mxfp8") => MlxMode::MxFp8,
        Some(other) => {
            let reason = format!("{other:.40?} can't be read; affine, mxfp4, nvfp4 and mxfp8 can");
            return Err(section.error("mode", reason));
        }
    };
    let defaults = mode.defaults();
    let bits = section.whole("bits", 1..=32)?.map_or(defaults.bits, |b| b as u32);
    let group = section.count("group_size", MOST_GROUP)?.unwrap_or(defaults.group);
    let form = MlxForm { mode, bits, group };
    let (bits_fit, group_fits) = match mode {
        MlxMode::Affine => ([2, 3, 4, 5, 6, 8].contains(&bits), [32, 64, 128].contains(&group)),
        _ => (bits == defaults.bits, group == defaults.group),
    };
    if !bits_fit {
        let reason = format!("is {bits}, which {} doesn't have", mode.name());
        return Err(section.error("bits", reason));
    }
    if !group_fits {
        let reason = format!("is {group}, which {} doesn't have", mode.name());
        return Err(section.error("group_size", reason));
    }
    Ok(form)
}

/// `bits` and `group_size` as GPTQ and AWQ have them, where -1 is a whole row.
fn packed(section: &Section<'_>, bits: &[u32]) -> Result<PackedForm> {
    let given = section.whole("bits", 1..=32)?.map(|b| b as u32);
    let given = given.ok_or_else(|| section.error("bits", "is missing"))?;
    if !bits.contains(&given) {
        let reason = format!("is {given}; {bits:?} can be read");
        return Err(section.error("bits", reason));
    }
    let whole = section.get("group_size").and_then(Value::as_i64) == Some(-1);
    let group = if whole { None } else { section.count("group_size", MOST_GROUP)? };
    if group.is_none() && !whole {
        return Err(section.error("group_size", "is missing"));
    }
    Ok(PackedForm { bits: given, group })
}

/// A field that must have one of some values, if it is there, whatever their case.
fn only<'a>(
    section: &Section<'a>,
    fields: [&str; 2],
    readable: &[&str],
) -> Result<Option<&'a str>> {
    for field in fields {
        let Some(found) = section.string(field)? else { continue };
        if !readable.iter().any(|r| r.eq_ignore_ascii_case(found)) {
            let reason = format!("{found:.40?} can't be read; {} can", readable.join(" and "));
            return Err(section.error(field, reason));
        }
        return Ok(Some(found));
    }
    Ok(None)
}

fn gptq(section: &Section<'_>) -> Result<Quantised> {
    let format = only(section, ["checkpoint_format", "format"], &["gptq", "gptq_v2"])?;
    only(section, ["pack_dtype"; 2], &["int32"])?;
    if section.flag("is_marlin_format")? == Some(true) {
        return Err(section.error("is_marlin_format", "can only be false"));
    }
    let form = packed(section, &[2, 3, 4, 8])?;
    // Rules for single modules, by patterns: what they gave, the tensors say.
    let varied = section.section("dynamic")?.is_some_and(|d| !d.is_empty());
    let exact_zeros = format.is_some_and(|f| f.eq_ignore_ascii_case("gptq_v2"));
    let symmetric = section.flag("sym")?.unwrap_or_default();
    Ok(Quantised::Gptq(Gptq { form: (!varied).then_some(form), symmetric, exact_zeros }))
}

fn awq(section: &Section<'_>) -> Result<Quantised> {
    only(section, ["version", "format"], &["gemm"])?;
    if section.string("backend")? == Some("llm-awq") {
        return Err(section.error("backend", "\"llm-awq\" can't be read; autoawq can"));
    }
    Ok(Quantised::Awq(Awq { form: packed(section, &[4])? }))
}

fn fp8(section: &Section<'_>) -> Result<Quantised> {
    only(section, ["fmt"; 2], &["e4m3", "float8_e4m3fn"])?;
    let block = if section.get("weight_block_size").is_some() {
        block(section, "weight_block_size")?
    } else {
        [128, 128]
    };
    Ok(Quantised::Fp8(Fp8 { block }))
}

/// Two sizes.
fn block(section: &Section<'_>, field: &str) -> Result<[usize; 2]> {
    let sizes = section.positives(field, 2)?;
    let whole = |s: f64| (s.fract() == 0.0 && s <= MOST_GROUP as f64).then_some(s as usize);
    match (whole(sizes[0]), whole(sizes[1])) {
        (Some(rows), Some(cols)) => Ok([rows, cols]),
        _ => Err(section.error(field, "must be two whole numbers")),
    }
}

/// <https://github.com/vllm-project/compressed-tensors>: a container of many formats.
fn compressed(section: &Section<'_>) -> Result<Quantised> {
    let format = section.string("format")?.unwrap_or("of no name");
    if format != "float-quantized" {
        let reason =
            format!("weights of compressed-tensors in {format:.40} can't be read; {READABLE}");
        return Err(section.error("format", reason));
    }
    let mut fp8 = Fp8 { block: [128, 128] };
    let Some(groups) = section.section("config_groups")? else {
        return Ok(Quantised::Fp8(fp8));
    };
    for name in groups.fields.keys() {
        let Some(weights) = groups.section(name)?.map(|g| g.section("weights")).transpose()? else {
            continue;
        };
        let Some(weights) = weights else { continue };
        only(&weights, ["type"; 2], &["float"])?;
        if weights.whole("num_bits", 1..=64)?.is_some_and(|b| b != 8) {
            return Err(weights.error("num_bits", "can only be 8"));
        }
        if weights.get("block_structure").is_some() {
            fp8.block = block(&weights, "block_structure")?;
        }
    }
    Ok(Quantised::Fp8(fp8))
}
