//! Functions of one number, free of branches, so that loops over them are compiled to vectors.

use crate::simd::Simd;
use inference_engine::arch::Activation;
use inference_text::math::exp;

/// `a · b + c`, rounded once where the level can.
#[inline(always)]
fn mul_add<S: Simd>(a: f32, b: f32, c: f32) -> f32 {
    if S::FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// `eˣ` for `x ≤ 0`, within 2 units in the last place; 0 below −87.3, where it leaves the normal numbers.
#[inline(always)]
pub(crate) fn exp_below_1<S: Simd>(x: f32) -> f32 {
    // Adding 1.5·2²³ rounds to an integer.
    let shifted = mul_add::<S>(x, std::f32::consts::LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    let r = mul_add::<S>(n, 2.121_944_4e-4, mul_add::<S>(n, -0.693_359_4, x));
    let p = 1.987_569_1e-4;
    let p = mul_add::<S>(p, r, 1.398_2e-3);
    let p = mul_add::<S>(p, r, 8.333_452e-3);
    let p = mul_add::<S>(p, r, 4.166_579_6e-2);
    let p = mul_add::<S>(p, r, 1.666_666_5e-1);
    let p = mul_add::<S>(p, r, 5e-1);
    let p = mul_add::<S>(p, r * r, r) + 1.0;
    let power = f32::from_bits(((shifted.to_bits() as i32) << 23).wrapping_add(127 << 23) as u32);
    if x < -87.3 { 0.0 } else { p * power }
}

/// `tanh x`, from [`exp`]; within 2·10⁻⁷.
#[inline(always)]
pub(crate) fn tanh(x: f32) -> f32 {
    let e = exp(-2.0 * x.abs());
    ((1.0 - e) / (1.0 + e)).copysign(x)
}

/// `to ← to + from`
#[inline(always)]
pub(crate) fn add(to: &mut [f32], from: &[f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
}

/// `gate ← activation(gate) ⊙ up`
#[inline(always)]
pub(crate) fn gate(activation: Activation, gate: &mut [f32], up: &[f32]) {
    match activation {
        Activation::Silu => {
            for (g, u) in gate.iter_mut().zip(up) {
                *g = *g / (1.0 + exp(-*g)) * u;
            }
        }
        Activation::GeluTanh => {
            for (g, u) in gate.iter_mut().zip(up) {
                let x = *g;
                let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
                *g = 0.5 * x * (1.0 + tanh(inner)) * u;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tanh_is_close_everywhere() {
        for i in -90_000..88_000 {
            let x = i as f32 * 1e-3;
            let (got, want) = (f64::from(tanh(x)), f64::from(x).tanh());
            assert!((got - want).abs() <= 2e-7, "tanh {x}: {got} {want}");
        }
    }
}
