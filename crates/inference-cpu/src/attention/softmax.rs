//! The softmax of one query over the keys of a part of its sequence, and over all parts
//! (<https://arxiv.org/abs/1805.02867>).

use super::products::Products;
use crate::{math, simd::Simd};
use std::ops::Range;

/// A softmax that is not divided yet: weights are relative to `max`, and add up to `sum`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Softmax {
    max: f32,
    sum: f32,
}

impl Softmax {
    /// Over no keys.
    pub(super) const NONE: Self = Self { max: f32::NEG_INFINITY, sum: 0.0 };

    /// Weighs keys by their `scores`, of which the query sees those of `seen`; the others get the weight 0. The scores
    /// are as many as a multiple of 32, and so are `weights`.
    ///
    /// # Safety
    /// The machine has the features of `S`; `weights` has room.
    #[inline(always)]
    pub(super) unsafe fn weigh<S: Simd, E, P: Products<S, E>>(
        scores: &mut [f32],
        seen: Range<usize>,
        softcap: Option<f32>,
        weights: *mut P::X,
    ) -> Self {
        let none = seen.is_empty();
        scores[..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end..].fill(f32::NEG_INFINITY);
        if let Some(cap) = softcap {
            scores[seen].iter_mut().for_each(|s| *s = cap * math::tanh(*s / cap));
        }
        // Sixteen maxima and sums beside each other, which the compiler makes vectors of.
        let mut max = [f32::NEG_INFINITY; 16];
        for part in scores.as_chunks::<16>().0 {
            for (m, s) in max.iter_mut().zip(part) {
                *m = if *s > *m { *s } else { *m };
            }
        }
        // Where nothing is seen, any number that is finite makes all weights 0.
        let max = if none { 0.0 } else { max.into_iter().fold(f32::NEG_INFINITY, f32::max) };
        let mut sum = [0.0f32; 16];
        for (i, part) in scores.as_chunks::<16>().0.iter().enumerate() {
            // A closure of `map` would be compiled apart, without the level's features.
            let mut part = *part;
            for (total, s) in sum.iter_mut().zip(&mut part) {
                *s = math::exp_below_1::<S>(*s - max);
                *total += *s;
            }
            // SAFETY: the caller vouches for the features and for `weights`.
            unsafe {
                for lane in (0..16).step_by(S::LANES) {
                    P::store(weights.add(16 * i + lane), S::load(part.as_ptr().add(lane)));
                }
            }
        }
        Self { max, sum: sum.into_iter().sum() }
    }

    /// Takes in another part: `acc` are the values summed so far, `values` those of the part.
    #[inline(always)]
    pub(super) fn merge<S: Simd>(&mut self, acc: &mut [f32], part: Self, values: &[f32]) {
        if part.sum == 0.0 {
            return;
        }
        if self.sum == 0.0 {
            *self = part;
            acc.copy_from_slice(values);
            return;
        }
        let max = self.max.max(part.max);
        let (old, new) =
            (math::exp_below_1::<S>(self.max - max), math::exp_below_1::<S>(part.max - max));
        for (a, v) in acc.iter_mut().zip(values) {
            *a = *a * old + *v * new;
        }
        *self = Self { max, sum: self.sum * old + part.sum * new };
    }

    /// Divides.
    #[inline(always)]
    pub(super) fn finish(self, acc: &[f32], out: &mut [f32]) {
        let scale = 1.0 / self.sum;
        for (o, a) in out.iter_mut().zip(acc) {
            *o = a * scale;
        }
    }

    /// As two numbers, to be kept beside the values.
    pub(super) fn to_pair(self) -> [f32; 2] {
        [self.max, self.sum]
    }

    /// From these.
    pub(super) fn from_pair([max, sum]: [f32; 2]) -> Self {
        Self { max, sum }
    }
}
