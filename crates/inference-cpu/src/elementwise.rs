//! What is done to each number, head or row of a matrix.

use crate::{
    math,
    simd::{Kernel, Simd},
};
use inference_engine::arch::Activation;

/// The RMS norm of every `weight.len()` numbers of `x`.
pub(crate) struct Norm<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) weight: &'a [f32],
    pub(crate) eps: f32,
    pub(crate) out: &'a mut [f32],
}

impl Kernel for Norm<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let n = self.weight.len();
        for (x, out) in self.x.chunks_exact(n).zip(self.out.chunks_exact_mut(n)) {
            norm(x, self.weight, self.eps, out);
        }
    }
}

/// The RMS norm of `x`; all are equally long.
#[inline(always)]
pub(crate) fn norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    // Sixteen sums beside each other, which the compiler makes vectors of.
    let mut sums = [0.0f32; 16];
    let parts = x.chunks_exact(16);
    let rest: f32 = parts.remainder().iter().map(|v| v * v).sum();
    for part in parts {
        for (sum, v) in sums.iter_mut().zip(part) {
            *sum += v * v;
        }
    }
    let mean = (sums.into_iter().sum::<f32>() + rest) / x.len() as f32;
    let scale = 1.0 / (mean + eps).sqrt();
    for ((o, v), w) in out.iter_mut().zip(x).zip(weight) {
        *o = v * scale * w;
    }
}

/// Rotates a head: column `i` with column `i + cos.len()`.
#[inline(always)]
pub(crate) fn rotate(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (left, right) = head.split_at_mut(cos.len());
    for (((a, b), cos), sin) in left.iter_mut().zip(right).zip(cos).zip(sin) {
        (*a, *b) = (*a * cos - *b * sin, *a * sin + *b * cos);
    }
}

/// `gate ← activation(gate) ⊙ up`
pub(crate) struct Gate<'a> {
    pub(crate) activation: Activation,
    pub(crate) gate: &'a mut [f32],
    pub(crate) up: &'a [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        math::gate(self.activation, self.gate, self.up);
    }
}

/// `x ← x + y`
pub(crate) struct Add<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) y: &'a [f32],
}

impl Kernel for Add<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        math::add(self.x, self.y);
    }
}

/// `x ← cap · tanh(x / cap)`
pub(crate) struct Softcap<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) cap: f32,
}

impl Kernel for Softcap<'_> {
    type Output = ();
    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        self.x.iter_mut().for_each(|x| *x = self.cap * math::tanh(*x / self.cap));
    }
}
