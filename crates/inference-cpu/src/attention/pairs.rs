//! The products of attention by pairs of bf16: queries and weights are rounded to bf16, as keys and values are.
#![expect(clippy::needless_range_loop, reason = "tiles of registers are indexed, all alike")]

use super::{
    BLOCK, ROW,
    products::{Products, by_queries},
};
use crate::simd::{LINE, Simd};
use half::bf16;

/// Products of pairs, for up to [`TILE`](super::TILE) queries.
pub(super) struct Pairs {
    queries: usize,
}

/// Queries up to which the hardware fetches ahead as quickly as keys and values are multiplied.
const QUICK: usize = 2;

/// Lines that a tile of queries brings closer on its way, some in each of its `width / 4` steps: all at once would have to
/// wait for each other, and whatever else is read for them.
#[derive(Clone, Copy)]
struct Ahead {
    next: *const u8,
    /// In each step.
    lines: usize,
}

impl Pairs {
    /// The part of `piece`, which has `width` lines, that the tile from query `i` on brings closer.
    #[inline(always)]
    fn ahead(&self, piece: *const bf16, width: usize, i: usize) -> Ahead {
        let lines = 16usize.div_ceil(self.queries);
        let first = i / 4 * (width / 4) * lines;
        let some = !piece.is_null() && self.queries > QUICK && first < width;
        let next = piece.cast::<u8>().wrapping_add(first * LINE);
        Ahead { next, lines: if some { lines } else { 0 } }
    }
}

impl Ahead {
    /// # Safety
    /// The machine has the features of `S`.
    #[inline(always)]
    unsafe fn step<S: Simd>(&mut self) {
        for _ in 0..self.lines {
            // SAFETY: the caller vouches for the features.
            unsafe { S::prefetch_far(self.next) };
            self.next = self.next.wrapping_add(LINE);
        }
    }
}

impl<S: Simd> Products<S, bf16> for Pairs {
    type X = u16;

    #[inline(always)]
    unsafe fn new(queries: usize) -> Self {
        Self { queries }
    }

    #[inline(always)]
    unsafe fn store(to: *mut u16, v: S::V) {
        // SAFETY: as the caller's.
        unsafe { S::store_bf16(to, v) }
    }

    #[inline(always)]
    unsafe fn scores(
        &self,
        q: *const u16,
        width: usize,
        keys: *const bf16,
        ahead: *const bf16,
        out: *mut f32,
    ) {
        // SAFETY: as the caller's; there are as many queries left as the width says.
        unsafe {
            by_queries!(self.queries, true, i => score_pairs::<S>(
                q.add(i * width), width, keys, self.ahead(ahead, width, i), out.add(i * ROW),
            ));
        }
    }

    #[inline(always)]
    unsafe fn sums(
        &self,
        weights: *const u16,
        width: usize,
        values: &[*const bf16],
        ahead: *const bf16,
        fresh: bool,
        out: *mut f32,
        stride: usize,
    ) {
        // SAFETY: as the caller's; there are as many queries left as the width says.
        unsafe {
            by_queries!(self.queries, true, i => sum_pairs::<S>(
                weights.add(i * ROW), width, values, self.ahead(ahead, width, i), fresh, out.add(i * stride), stride,
            ));
        }
    }
}

/// The pair of bf16 at `p`, in every lane.
///
/// # Safety
/// The machine has the features of `S`; there is a pair.
#[inline(always)]
unsafe fn splat_pair<S: Simd>(p: *const u16) -> S::V {
    // SAFETY: as the caller's.
    unsafe { S::splat(f32::from_bits(p.cast::<u32>().read_unaligned())) }
}

/// The scores of `Q` queries with a block of keys; gives `Q`.
///
/// # Safety
/// As [`Products::scores`].
#[inline(always)]
unsafe fn score_pairs<S: Simd, const Q: usize>(
    q: *const u16,
    width: usize,
    keys: *const bf16,
    mut ahead: Ahead,
    out: *mut f32,
) -> usize {
    for lane in (0..BLOCK).step_by(2 * S::LANES) {
        // SAFETY: as the caller's; the width is a multiple of 32.
        unsafe {
            // Even and odd pairs are summed apart, so that one product need not wait for the one before.
            let mut sums = [[[S::splat(0.0); 2]; 2]; Q];
            for c in (0..width).step_by(4) {
                ahead.step::<S>();
                let at = keys.add(c * BLOCK + 2 * lane).cast::<f32>();
                let keys = [
                    [S::load(at), S::load(at.add(S::LANES))],
                    [S::load(at.add(BLOCK)), S::load(at.add(BLOCK + S::LANES))],
                ];
                for i in 0..Q {
                    for odd in 0..2 {
                        let x = splat_pair::<S>(q.add(i * width + c + 2 * odd));
                        for n in 0..2 {
                            sums[i][odd][n] = S::dot_pairs(x, keys[odd][n], sums[i][odd][n]);
                        }
                    }
                }
            }
            for i in 0..Q {
                let out = out.add(i * ROW + lane);
                S::store(out, S::add(sums[i][0][0], sums[i][1][0]));
                S::store(out.add(S::LANES), S::add(sums[i][0][1], sums[i][1][1]));
            }
        }
    }
    Q
}

/// The sums of `Q` queries; gives `Q`.
///
/// # Safety
/// As [`Products::sums`].
#[inline(always)]
unsafe fn sum_pairs<S: Simd, const Q: usize>(
    weights: *const u16,
    width: usize,
    values: &[*const bf16],
    mut ahead: Ahead,
    fresh: bool,
    out: *mut f32,
    stride: usize,
) -> usize {
    let mut c = 0;
    // SAFETY: as the caller's.
    unsafe {
        // For few queries as many columns as there are registers for: then values are read as they lie.
        while Q <= 2 && c + 8 * S::LANES <= width {
            sum_columns::<S, Q, 8>(weights, width, values, &mut ahead, c, fresh, out, stride);
            c += 8 * S::LANES;
        }
        while c + 4 * S::LANES <= width {
            sum_columns::<S, Q, 4>(weights, width, values, &mut ahead, c, fresh, out, stride);
            c += 4 * S::LANES;
        }
        // The width is a multiple of 32.
        while c < width {
            sum_columns::<S, Q, 2>(weights, width, values, &mut ahead, c, fresh, out, stride);
            c += 2 * S::LANES;
        }
    }
    Q
}

/// `N` vectors of columns of `Q` sums, from column `c` on.
///
/// # Safety
/// As [`Products::sums`].
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "it is what the sum depends on")]
unsafe fn sum_columns<S: Simd, const Q: usize, const N: usize>(
    weights: *const u16,
    width: usize,
    values: &[*const bf16],
    ahead: &mut Ahead,
    c: usize,
    fresh: bool,
    out: *mut f32,
    stride: usize,
) {
    // SAFETY: as the caller's.
    unsafe {
        let mut sums = [[S::splat(0.0); N]; Q];
        if !fresh {
            for i in 0..Q {
                for n in 0..N {
                    sums[i][n] = S::load(out.add(i * stride + c + n * S::LANES));
                }
            }
        }
        for (b, values) in values.iter().enumerate() {
            for t in (0..BLOCK).step_by(2) {
                ahead.step::<S>();
                let mut vs = [S::splat(0.0); N];
                for n in 0..N {
                    vs[n] = S::load(values.add(t * width + 2 * (c + n * S::LANES)).cast());
                }
                for i in 0..Q {
                    let x = splat_pair::<S>(weights.add(i * ROW + b * BLOCK + t));
                    for n in 0..N {
                        sums[i][n] = S::dot_pairs(x, vs[n], sums[i][n]);
                    }
                }
            }
        }
        for i in 0..Q {
            for n in 0..N {
                S::store(out.add(i * stride + c + n * S::LANES), sums[i][n]);
            }
        }
    }
}
