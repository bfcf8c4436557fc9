//! The products of attention: some queries with a block of keys, and their weights with blocks of values.
#![expect(clippy::needless_range_loop, reason = "tiles of registers are indexed, all alike")]

use super::{BLOCK, ROW, cache::Stored};
use crate::simd::Simd;

/// How a level multiplies with keys and values of type `E`. A query's sums keep their order, however many queries
/// there are and however many blocks are given at a time.
pub(super) trait Products<S: Simd, E> {
    /// Queries and weights, as they are multiplied.
    type X: Copy;

    /// For `queries` queries, at most [`TILE`](super::TILE).
    ///
    /// # Safety
    /// The machine has the features of the level; only one is in use on a thread.
    unsafe fn new(queries: usize) -> Self;

    /// Rounds a vector to `X`.
    ///
    /// # Safety
    /// The machine has the features of `S`; there is room.
    unsafe fn store(to: *mut Self::X, v: S::V);

    /// Scores of the queries, `[queries, width]`, with a block of keys: `out` is `[queries, ROW]`, of which a block is
    /// written. Brings `ahead`, where that is not null, closer: as many numbers as the block has.
    ///
    /// # Safety
    /// As above; `q` has those numbers, `keys` `width · BLOCK`.
    unsafe fn scores(
        &self,
        q: *const Self::X,
        width: usize,
        keys: *const E,
        ahead: *const E,
        out: *mut f32,
    );

    /// Weighs the values of some blocks by `weights`, `[queries, ROW]`, and adds them up: `out` has `width` columns
    /// for each query, which begin `stride` numbers apart. What is there is added to, unless it is `fresh`.
    ///
    /// # Safety
    /// As above.
    #[expect(clippy::too_many_arguments, reason = "it is what the sum depends on")]
    unsafe fn sums(
        &self,
        weights: *const Self::X,
        width: usize,
        values: &[*const E],
        ahead: *const E,
        fresh: bool,
        out: *mut f32,
        stride: usize,
    );
}

/// Goes through queries by fours, where those are `wide` enough, by twos and ones: from query `i` on, `tile` does as many
/// as its last parameter says, and gives that.
macro_rules! by_queries {
    ($queries:expr, $wide:expr, $i:ident => $tile:ident::<$($ty:ty),*>($($arg:expr),* $(,)?)) => {
        let mut $i = 0;
        while $i < $queries {
            $i += match $queries - $i {
                4.. if $wide => $tile::<$($ty,)* 4>($($arg),*),
                2.. => $tile::<$($ty,)* 2>($($arg),*),
                _ => $tile::<$($ty,)* 1>($($arg),*),
            };
        }
    };
}
pub(super) use by_queries;

/// Multiply-adds of vectors of f32.
pub(super) struct Lanes {
    queries: usize,
}

impl<S: Simd, E: Stored> Products<S, E> for Lanes {
    type X = f32;

    #[inline(always)]
    unsafe fn new(queries: usize) -> Self {
        Self { queries }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: S::V) {
        // SAFETY: as the caller's.
        unsafe { S::store(to, v) }
    }

    #[inline(always)]
    unsafe fn scores(
        &self,
        q: *const f32,
        width: usize,
        keys: *const E,
        ahead: *const E,
        out: *mut f32,
    ) {
        // SAFETY: as the caller's; there are as many queries left as the width says.
        unsafe {
            by_queries!(self.queries, S::WIDE, i => score_tile::<S, E>(
                q.add(i * width), width, keys, if i == 0 { ahead } else { std::ptr::null() }, out.add(i * ROW),
            ));
        }
    }

    #[inline(always)]
    unsafe fn sums(
        &self,
        weights: *const f32,
        width: usize,
        values: &[*const E],
        ahead: *const E,
        fresh: bool,
        out: *mut f32,
        stride: usize,
    ) {
        // SAFETY: as the caller's; there are as many queries left as the width says.
        unsafe {
            if !ahead.is_null() {
                fetch::<S, E>(ahead, width * BLOCK);
            }
            by_queries!(self.queries, S::WIDE, i => sum_strip::<S, E>(
                weights.add(i * ROW), width, values, fresh, out.add(i * stride), stride,
            ));
        }
    }
}

/// Brings `n` numbers closer.
///
/// # Safety
/// The machine has the features of `S`.
#[inline(always)]
pub(super) unsafe fn fetch<S: Simd, E>(from: *const E, n: usize) {
    for line in (0..n * size_of::<E>()).step_by(64) {
        // SAFETY: the caller vouches for the features.
        unsafe { S::prefetch(from.cast::<u8>().wrapping_add(line)) };
    }
}

/// Two vectors that follow each other along the sum: of pairs beside each other, else of rows that begin `apart`.
///
/// # Safety
/// The machine has the features of `S`; there are as many numbers.
#[inline(always)]
unsafe fn load_two<S: Simd, E: Stored>(p: *const E, apart: usize) -> [S::V; 2] {
    // SAFETY: as the caller's; only bf16 comes in pairs.
    unsafe {
        if E::PAIR == 2 {
            S::load_pairs(p.cast())
        } else {
            [E::load::<S>(p), E::load::<S>(p.add(apart))]
        }
    }
}

/// The scores of `Q` queries with a block of keys; gives `Q`.
///
/// # Safety
/// As [`Products::scores`].
#[inline(always)]
unsafe fn score_tile<S: Simd, E: Stored, const Q: usize>(
    q: *const f32,
    width: usize,
    keys: *const E,
    ahead: *const E,
    out: *mut f32,
) -> usize {
    for lane in (0..BLOCK).step_by(2 * S::LANES) {
        // SAFETY: as the caller's.
        unsafe {
            // Even and odd columns are summed apart, so that one product need not wait for the one before.
            let mut even = [[S::splat(0.0); 2]; Q];
            let mut odd = [[S::splat(0.0); 2]; Q];
            for c in (0..width).step_by(2) {
                let at = keys.add(c * BLOCK + E::PAIR * lane);
                let left = load_two::<S, E>(at, BLOCK);
                let right = load_two::<S, E>(at.add(E::PAIR * S::LANES), BLOCK);
                if lane == 0 && !ahead.is_null() {
                    fetch::<S, E>(ahead.wrapping_add(c * BLOCK), 2 * BLOCK);
                }
                for i in 0..Q {
                    let (x, y) = (*q.add(i * width + c), *q.add(i * width + c + 1));
                    let (x, y) = (S::splat(x), S::splat(y));
                    even[i][0] = S::mul_add(x, left[0], even[i][0]);
                    even[i][1] = S::mul_add(x, right[0], even[i][1]);
                    odd[i][0] = S::mul_add(y, left[1], odd[i][0]);
                    odd[i][1] = S::mul_add(y, right[1], odd[i][1]);
                }
            }
            for i in 0..Q {
                let out = out.add(i * ROW + lane);
                S::store(out, S::add(even[i][0], odd[i][0]));
                S::store(out.add(S::LANES), S::add(even[i][1], odd[i][1]));
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
unsafe fn sum_strip<S: Simd, E: Stored, const Q: usize>(
    weights: *const f32,
    width: usize,
    values: &[*const E],
    fresh: bool,
    out: *mut f32,
    stride: usize,
) -> usize {
    let mut c = 0;
    // SAFETY: as the caller's.
    unsafe {
        while c + 4 * S::LANES <= width {
            sum_tile::<S, E, Q, 4>(weights, width, values, c, fresh, out, stride);
            c += 4 * S::LANES;
        }
        // The width is a multiple of 32.
        if c < width {
            sum_tile::<S, E, Q, 2>(weights, width, values, c, fresh, out, stride);
        }
    }
    Q
}

/// `N` vectors of columns of `Q` sums, from column `c` on.
///
/// # Safety
/// As [`Products::sums`].
#[inline(always)]
unsafe fn sum_tile<S: Simd, E: Stored, const Q: usize, const N: usize>(
    weights: *const f32,
    width: usize,
    values: &[*const E],
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
                let mut vs = [[S::splat(0.0); 2]; N];
                for n in 0..N {
                    let at = values.add(t * width + E::PAIR * (c + n * S::LANES));
                    vs[n] = load_two::<S, E>(at, width);
                }
                for i in 0..Q {
                    let at = weights.add(i * ROW + b * BLOCK + t);
                    let (x, y) = (S::splat(*at), S::splat(*at.add(1)));
                    for n in 0..N {
                        sums[i][n] = S::mul_add(x, vs[n][0], sums[i][n]);
                    }
                    for n in 0..N {
                        sums[i][n] = S::mul_add(y, vs[n][1], sums[i][n]);
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
