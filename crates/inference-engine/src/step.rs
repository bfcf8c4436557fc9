//! One forward pass over a ragged batch, and the rotary embedding of its tokens.

mod packed;

pub use inference_text::step::{BlockCopy, Span, Step};
pub use packed::{Layout, packed};

use crate::arch::Rope;

/// The rotation of every token of a step by one [`Rope`].
#[derive(Debug, Clone)]
pub struct Rotation {
    /// Pairs of columns that are rotated.
    pub pairs: usize,
    /// `[tokens, pairs]`, scaled.
    pub cos: Vec<f32>,
    /// `[tokens, pairs]`, scaled.
    pub sin: Vec<f32>,
}

impl Rotation {
    /// Angles are computed in f64: in f32 they are wrong by 10⁻³ from some ten thousand positions on.
    pub fn new(rope: &Rope, step: &Step) -> Self {
        let pairs = rope.frequencies.pairs();
        let mut cos = Vec::with_capacity(step.tokens.len() * pairs);
        let mut sin = Vec::with_capacity(step.tokens.len() * pairs);
        for span in &step.spans {
            let rows =
                step.positions[span.rows.clone()].iter().zip(&step.lengths[span.rows.clone()]);
            let mut at = (0, std::borrow::Cow::Borrowed(&[][..]));
            for (&position, &length) in rows {
                if at.0 != length {
                    at = (length, rope.frequencies.at(length as usize));
                }
                for frequency in at.1.iter() {
                    let (s, c) = (f64::from(position) * frequency).sin_cos();
                    cos.push(c as f32 * rope.scale);
                    sin.push(s as f32 * rope.scale);
                }
            }
        }
        Self { pairs, cos, sin }
    }
}
