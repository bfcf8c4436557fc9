//! The products of attention: some queries with one block of keys, and their weights with one block of values.
#![expect(clippy::needless_range_loop, reason = "tiles of registers are indexed, all alike")]

use super::{BLOCK, CHUNK};
use crate::simd::{Element, Simd};
use std::ops::Range;

/// The scores of `Q` queries with a block of keys, `[d, BLOCK]`; `out` is `[Q, CHUNK]`, of which a block is written.
///
/// # Safety
/// The machine has the features of `S`; `q` has `Q · d` numbers, `keys` `d · BLOCK`.
#[inline(always)]
pub(super) unsafe fn score_block<S: Simd, E: Element, const Q: usize>(
    q: &[f32],
    keys: &[E],
    d: usize,
    out: &mut [f32],
) {
    debug_assert!(
        q.len() >= Q * d && keys.len() == d * BLOCK && out.len() >= (Q - 1) * CHUNK + BLOCK
    );
    for lane in (0..BLOCK).step_by(S::LANES) {
        // SAFETY: inside the slices, as asserted.
        unsafe {
            // Even and odd columns are summed apart, so that one product need not wait for the one before.
            let mut even = [S::splat(0.0); Q];
            let mut odd = [S::splat(0.0); Q];
            let mut c = 0;
            while c + 1 < d {
                let k0 = E::load::<S>(keys.as_ptr().add(c * BLOCK + lane));
                let k1 = E::load::<S>(keys.as_ptr().add((c + 1) * BLOCK + lane));
                for i in 0..Q {
                    even[i] = S::mul_add(S::splat(*q.as_ptr().add(i * d + c)), k0, even[i]);
                    odd[i] = S::mul_add(S::splat(*q.as_ptr().add(i * d + c + 1)), k1, odd[i]);
                }
                c += 2;
            }
            if c < d {
                let k0 = E::load::<S>(keys.as_ptr().add(c * BLOCK + lane));
                for i in 0..Q {
                    even[i] = S::mul_add(S::splat(*q.as_ptr().add(i * d + c)), k0, even[i]);
                }
            }
            for i in 0..Q {
                S::store(out.as_mut_ptr().add(i * CHUNK + lane), S::add(even[i], odd[i]));
            }
        }
    }
}

/// Adds a block's values, `[BLOCK, d]`, to `Q` accumulators, `[Q, d]`, weighted by `scores`, `[Q, CHUNK]`.
///
/// # Safety
/// The machine has the features of `S`; `acc` has `Q · d` numbers, `values` `BLOCK · d`, `slots` is inside a block.
#[inline(always)]
pub(super) unsafe fn sum_block<S: Simd, E: Element, const Q: usize>(
    scores: &[f32],
    values: &[E],
    slots: Range<usize>,
    d: usize,
    acc: &mut [f32],
) {
    debug_assert!(acc.len() >= Q * d && values.len() == d * BLOCK && slots.end <= BLOCK);
    let mut c = 0;
    // SAFETY: inside the slices, as asserted.
    unsafe {
        while c + 4 * S::LANES <= d {
            sum_columns::<S, E, Q, 4>(scores, values, slots.clone(), d, c, acc);
            c += 4 * S::LANES;
        }
        while c + S::LANES <= d {
            sum_columns::<S, E, Q, 1>(scores, values, slots.clone(), d, c, acc);
            c += S::LANES;
        }
    }
    for c in c..d {
        for i in 0..Q {
            for t in slots.clone() {
                acc[i * d + c] += scores[i * CHUNK + t] * values[t * d + c].to_f32();
            }
        }
    }
}

/// `N` vectors of columns of [`sum_block`], from column `c` on.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn sum_columns<S: Simd, E: Element, const Q: usize, const N: usize>(
    scores: &[f32],
    values: &[E],
    slots: Range<usize>,
    d: usize,
    c: usize,
    acc: &mut [f32],
) {
    // SAFETY: as the caller's.
    unsafe {
        let mut sums = [[S::splat(0.0); N]; Q];
        for i in 0..Q {
            for n in 0..N {
                sums[i][n] = S::load(acc.as_ptr().add(i * d + c + n * S::LANES));
            }
        }
        for t in slots {
            let mut vs = [S::splat(0.0); N];
            for n in 0..N {
                vs[n] = E::load::<S>(values.as_ptr().add(t * d + c + n * S::LANES));
            }
            for i in 0..Q {
                let weight = S::splat(*scores.as_ptr().add(i * CHUNK + t));
                for n in 0..N {
                    sums[i][n] = S::mul_add(weight, vs[n], sums[i][n]);
                }
            }
        }
        for i in 0..Q {
            for n in 0..N {
                S::store(acc.as_mut_ptr().add(i * d + c + n * S::LANES), sums[i][n]);
            }
        }
    }
}
