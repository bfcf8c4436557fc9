//! Rotary position embeddings as configurations describe them, with all their scalings.
//!
//! The formulas are those of `transformers` 5.23 (`modeling_rope_utils.py`), computed in f64 where that uses f32; each
//! names its paper. Both dialects are read: `rope_theta` beside `rope_scaling`, and `rope_parameters` with all in one.

use super::base::Base;
use crate::arch::{Frequencies, Rope};
use crate::config::Section;
use inference_core::{Error, Result};
use std::f64::consts::PI;

/// What a family assumes, and what it allows.
#[derive(Debug)]
pub(super) struct Defaults {
    /// Base of the frequencies, where the file has none.
    pub(super) theta: f64,
    /// Whether part of a head may stay unrotated.
    pub(super) partial: bool,
    /// Positions of the first training, where the file has none beside `rope_scaling`; goes before what is in there.
    pub(super) original: Option<usize>,
    /// The names of scalings that the family knows, each with what it means.
    pub(super) kinds: &'static [(&'static str, &'static str)],
}

impl Defaults {
    pub(super) const COMMON: Self = Self {
        theta: 10_000.0,
        partial: false,
        original: None,
        kinds: &[
            ("default", "default"),
            ("linear", "linear"),
            ("dynamic", "dynamic"),
            ("llama3", "llama3"),
            ("yarn", "yarn"),
            ("longrope", "longrope"),
        ],
    };
}

/// The one rotation of a family whose layers all rotate alike.
pub(super) fn uniform(base: &Base<'_>) -> Result<Rope> {
    let text = &base.text;
    let scaling = text.section("rope_scaling")?.filter(|s| !s.is_empty());
    let given = match scaling {
        Some(scaling) => Some(scaling),
        None => text.section("rope_parameters")?,
    };
    if given.as_ref().is_some_and(Section::has_sections) {
        return Err(
            text.error("rope_parameters", "differs by layer, which this family does not know")
        );
    }
    let original = text.count("original_max_position_embeddings", usize::MAX)?;
    let original = original.or(base.defaults.rope.original);
    let places = given.into_iter().collect();
    let theta = ("rope_theta", base.defaults.rope.theta);
    Given { base, places, theta, original }.rope()
}

/// Gemma 3's two: of layers that see everything, and of layers with a window, whose base is `local` by default.
pub(super) fn by_reach(base: &Base<'_>, local: f64) -> Result<(Rope, Rope)> {
    let text = &base.text;
    let parameters = text.section("rope_parameters")?;
    let of = |reach: &str| match &parameters {
        Some(p) => p.section(reach),
        None => Ok(None),
    };
    let (full, sliding) = (of("full_attention")?, of("sliding_attention")?);
    if parameters.is_some_and(|p| !p.is_empty()) && full.is_none() && sliding.is_none() {
        let reason = "must have full_attention and sliding_attention in this family";
        return Err(text.error("rope_parameters", reason));
    }
    let places = text.section("rope_scaling")?.into_iter().chain(full).collect();
    let theta = ("rope_theta", base.defaults.rope.theta);
    let global = Given { base, places, theta, original: None }.rope()?;
    let places = sliding.into_iter().collect();
    let theta = ("rope_local_base_freq", local);
    let local = Given { base, places, theta, original: None }.rope()?;
    Ok((global, local))
}

/// What a configuration says of one rotation.
struct Given<'a> {
    base: &'a Base<'a>,
    /// Where its parameters are; an earlier place goes before a later one.
    places: Vec<Section<'a>>,
    /// The field beside the others where older files have the base of the frequencies, and the family's default.
    theta: (&'static str, f64),
    /// Positions of the first training, if known from elsewhere.
    original: Option<usize>,
}

impl<'a> Given<'a> {
    /// The first of the places that has something under `field`.
    fn first<T>(
        &self,
        field: &str,
        read: impl Fn(&Section<'a>, &str) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        self.places.iter().find_map(|place| read(place, field).transpose()).transpose()
    }

    fn positive(&self, field: &str) -> Result<Option<f64>> {
        self.first(field, Section::positive)
    }

    /// A field that the scaling can't do without.
    fn needed(&self, field: &str) -> Result<f64> {
        self.positive(field)?.ok_or_else(|| self.error(field, "is missing"))
    }

    /// An error about a parameter, at the place that goes first.
    fn error(&self, field: &str, reason: impl std::fmt::Display) -> Error {
        self.places.first().unwrap_or(&self.base.text).error(field, reason)
    }

    fn rope(&self) -> Result<Rope> {
        let theta = self.theta()?;
        let dims = self.dims()?;
        let plain = || Frequencies::plain(theta, dims);
        let (frequencies, scale) = match self.kind()? {
            "linear" => {
                let factor = self.needed("factor")?;
                (Frequencies::Fixed(plain().iter().map(|f| f / factor).collect()), 1.0)
            }
            "dynamic" => {
                // The model's own length, even where the file has an original one.
                let (factor, original) = (self.needed("factor")?, self.base.context);
                (Frequencies::Dynamic { theta, dims, factor, original }, 1.0)
            }
            "llama3" => (Frequencies::Fixed(self.llama3(plain())?), 1.0),
            "yarn" => self.yarn(theta, dims)?,
            "longrope" => self.longrope(plain())?,
            _ => (Frequencies::Fixed(plain()), 1.0),
        };
        let rope = Rope { frequencies, scale: scale as f32 };
        let sound = |length| rope.frequencies.at(length).iter().all(|f| f.is_finite());
        if rope.scale.is_finite() && rope.scale > 0.0 && sound(1) && sound(self.base.context) {
            return Ok(rope);
        }
        Err(self.error("rope_type", "has parameters that give no finite frequencies"))
    }

    fn theta(&self) -> Result<f64> {
        let (outside, default) = self.theta;
        let theta = match self.positive("rope_theta")? {
            Some(theta) => theta,
            None => self.base.text.positive(outside)?.unwrap_or(default),
        };
        if theta > 1.0 {
            return Ok(theta);
        }
        Err(self.error("rope_theta", format!("must be above 1, is {theta}")))
    }

    /// Columns of a head that are rotated.
    fn dims(&self) -> Result<usize> {
        const FIELD: &str = "partial_rotary_factor";
        let Base { head_dim, text, defaults, .. } = self.base;
        let partial = match self.positive(FIELD)? {
            Some(partial) => partial,
            None => text.positive(FIELD)?.unwrap_or(1.0),
        };
        if partial > 1.0 || (partial < 1.0 && !defaults.rope.partial) {
            let most = if defaults.rope.partial { "at most 1" } else { "1 in this family" };
            return Err(self.error(FIELD, format!("must be {most}, is {partial}")));
        }
        let dims = (*head_dim as f64 * partial) as usize;
        if dims == 0 || !dims.is_multiple_of(2) {
            let reason = format!("leaves {dims} columns of a head to rotate; it must be even");
            return Err(self.error(if partial < 1.0 { FIELD } else { "head_dim" }, reason));
        }
        Ok(dims)
    }

    /// What `rope_type`, or `type` in older files, means.
    fn kind(&self) -> Result<&'static str> {
        let name = match self.first("rope_type", Section::string)? {
            Some(name) => name,
            None => self.first("type", Section::string)?.unwrap_or("default"),
        };
        let kinds = self.base.defaults.rope.kinds;
        kinds.iter().find(|(n, _)| *n == name).map(|(_, kind)| *kind).ok_or_else(|| {
            let known: Vec<_> = kinds.iter().map(|(n, _)| *n).collect();
            let reason = format!("{name:.40?} is not supported; {} are", known.join(", "));
            self.error("rope_type", reason)
        })
    }

    /// Positions of the first training.
    fn original(&self) -> Result<usize> {
        if let Some(known) = self.original {
            return Ok(known);
        }
        let field = "original_max_position_embeddings";
        let given = self.first(field, |s, f| s.count(f, usize::MAX))?;
        Ok(given.unwrap_or(self.base.context))
    }

    /// `factor`, or how much longer the context is than the original one.
    fn stretch(&self, original: usize) -> Result<f64> {
        let given = self.positive("factor")?;
        Ok(given.unwrap_or(self.base.context as f64 / original as f64))
    }

    /// Llama 3.1 (<https://arxiv.org/abs/2407.21783>; <https://github.com/meta-llama/llama-models>): long waves are
    /// stretched by the factor, short ones left alone, and what is between is blended.
    fn llama3(&self, plain: Vec<f64>) -> Result<Vec<f64>> {
        let factor = self.needed("factor")?;
        let (low, high) = (self.needed("low_freq_factor")?, self.needed("high_freq_factor")?);
        if high <= low {
            let reason = format!("must be above low_freq_factor ({low}), is {high}");
            return Err(self.error("high_freq_factor", reason));
        }
        let original = self.original()? as f64;
        let scaled = |f: f64| {
            // Turns within the original context.
            let turns = original * f / (2.0 * PI);
            // 0: stretched; 1: left alone.
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            f * kept + f / factor * (1.0 - kept)
        };
        Ok(plain.into_iter().map(scaled).collect())
    }

    /// YaRN (<https://arxiv.org/abs/2309.00071>): as `llama3`, but blended by the index of the pair; and the attention
    /// is sharpened, by way of cosine and sine.
    fn yarn(&self, theta: f64, dims: usize) -> Result<(Frequencies, f64)> {
        let original = self.original()?;
        let factor = self.stretch(original)?;
        // A 0 counts as missing, here and for the two `mscale`s.
        let nonzero = |field| Ok(self.first(field, Section::number)?.filter(|&x| x > 0.0));
        let fast = nonzero("beta_fast")?.unwrap_or(32.0);
        let slow = nonzero("beta_slow")?.unwrap_or(1.0);
        let truncate = self.first("truncate", Section::flag)?.unwrap_or(true);

        // The index, as a fraction of `dims`, of the pair that turns so often within the original context.
        let index = |turns: f64| {
            dims as f64 * (original as f64 / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln())
        };
        let (low, high) = (index(fast), index(slow));
        let (low, high) = if truncate { (low.floor(), high.ceil()) } else { (low, high) };
        let (low, high) = (low.max(0.0), high.min(dims as f64 - 1.0));
        let width = if high == low { 0.001 } else { high - low };
        let blended = Frequencies::plain(theta, dims).into_iter().enumerate().map(|(i, f)| {
            let stretched = ((i as f64 - low) / width).clamp(0.0, 1.0);
            f / factor * stretched + f * (1.0 - stretched)
        });
        let frequencies = Frequencies::Fixed(blended.collect());

        let sharper = |m: f64| if factor <= 1.0 { 1.0 } else { 0.1 * m * factor.ln() + 1.0 };
        let scale = match (
            self.positive("attention_factor")?,
            nonzero("mscale")?,
            nonzero("mscale_all_dim")?,
        ) {
            (Some(given), ..) => given,
            (None, Some(one), Some(all)) => sharper(one) / sharper(all),
            _ => sharper(1.0),
        };
        Ok((frequencies, scale))
    }

    /// LongRoPE (<https://arxiv.org/abs/2402.13753>): each pair is stretched by a factor of its own, which was searched
    /// for, and which differs for sequences within and beyond the original context.
    fn longrope(&self, plain: Vec<f64>) -> Result<(Frequencies, f64)> {
        let stretched = |field| {
            let place = self.places.iter().find(|p| p.get(field).is_some()).or(self.places.first());
            let factors = place.unwrap_or(&self.base.text).positives(field, plain.len())?;
            Ok::<_, Error>(plain.iter().zip(factors).map(|(f, factor)| f / factor).collect())
        };
        let (short, long) = (stretched("short_factor")?, stretched("long_factor")?);
        let original = self.original()?;
        let factor = self.stretch(original)?;
        let scale = match self.positive("attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / (original as f64).ln()).sqrt(),
        };
        Ok((Frequencies::Long { short, long, original }, scale))
    }
}

#[cfg(test)]
mod tests;
