//! Vectors of `f32`, at the widest width that the machine has: chosen once, at run time.
//!
//! A [`Kernel`] is written once over [`Simd`] and compiled for every level. Sums keep their order within a level, so
//! a row's result has the same bits whatever else is computed beside it.

#[cfg_attr(not(target_arch = "x86_64"), path = "no_amx.rs")]
#[allow(dead_code, reason = "not every product is used yet")]
pub(crate) mod amx;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod element;
mod integer;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;

pub(crate) use element::Element;
pub(crate) use integer::{COLUMNS, Columns, LINE, position};

/// What the machine can do. A lower level may be forced, for tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Level {
    /// Any machine; eight lanes that the compiler may map to what the target has.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// The same with the dot product of bytes (AVX-VNNI).
    Avx2Vnni,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same with the dot product of bytes (VNNI).
    Avx512Vnni,
    /// The same with the dot product of bf16 pairs. Activations are rounded to bf16 where weights
    /// are bf16, and queries where the cache is.
    Avx512Bf16,
    /// The same with AMX, which multiplies tiles of bf16.
    Avx512Amx,
    /// AArch64.
    Neon,
    /// The same with the dot product of bytes.
    NeonDot,
    /// The same with products of matrices of bytes (`i8mm`).
    NeonMatrix,
}

impl Level {
    /// All levels that this machine has, the best first.
    pub fn available() -> Vec<Self> {
        #[allow(unused_mut, reason = "not every target adds one")]
        let mut levels = vec![Self::Scalar];
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c");
            let avx512 = avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx2 {
                levels.insert(0, Self::Avx2);
            }
            if avx2 && is_x86_feature_detected!("avxvnni") {
                levels.insert(0, Self::Avx2Vnni);
            }
            if avx512 {
                levels.insert(0, Self::Avx512);
            }
            let vnni = avx512 && is_x86_feature_detected!("avx512vnni");
            if vnni {
                levels.insert(0, Self::Avx512Vnni);
            }
            if vnni && is_x86_feature_detected!("avx512bf16") {
                // Twice the rate of multiply-adds on AMD's processors, and half of it on Intel's.
                levels.insert(usize::from(!is_amd()), Self::Avx512Bf16);
                if amx::available() {
                    levels.insert(0, Self::Avx512Amx);
                }
            }
        }
        #[cfg(target_arch = "aarch64")]
        {
            levels.insert(0, Self::Neon);
            if std::arch::is_aarch64_feature_detected!("dotprod") {
                levels.insert(0, Self::NeonDot);
                if std::arch::is_aarch64_feature_detected!("i8mm") {
                    levels.insert(0, Self::NeonMatrix);
                }
            }
        }
        levels
    }

    /// The best level that this machine has.
    pub fn best() -> Self {
        Self::available()[0]
    }

    /// Whether products with bf16 weights take bf16 activations, and attention over a bf16 cache bf16 queries.
    pub(crate) fn rounds_activations(self) -> bool {
        matches!(self, Self::Avx512Bf16 | Self::Avx512Amx)
    }

    /// The same, or the next where products don't round activations.
    pub(crate) fn without_rounding(self) -> Self {
        if self.rounds_activations() { Self::Avx512Vnni } else { self }
    }

    /// Runs `kernel` compiled for this level.
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            // SAFETY: a level is only ever taken from `available`, which has asked the machine for it.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => unsafe { avx2::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx2Vnni => unsafe { avx2::run_vnni(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => unsafe { avx512::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => unsafe { avx512::run_vnni(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Bf16 | Self::Avx512Amx => unsafe { avx512::run_bf16(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::Neon => unsafe { neon::run(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::NeonDot => unsafe { neon::run_dot(kernel) },
            // SAFETY: as above.
            #[cfg(target_arch = "aarch64")]
            Self::NeonMatrix => unsafe { neon::run_matrix(kernel) },
            // SAFETY: it needs nothing.
            _ => unsafe { kernel.run::<scalar::Scalar>() },
        }
    }
}

/// Whether AMD made the processor, by the name that it gives itself.
#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let name = std::arch::x86_64::__cpuid(0);
    [name.ebx, name.edx, name.ecx].map(u32::to_le_bytes).as_flattened() == b"AuthenticAMD"
}

/// A computation that is compiled for every level.
pub(crate) trait Kernel {
    /// What it gives.
    type Output;

    /// Computes. Implementations are `#[inline(always)]`, so that they are compiled with the level's features.
    ///
    /// # Safety
    /// The machine has the features of `S`.
    unsafe fn run<S: Simd>(self) -> Self::Output;
}

/// Vectors of `f32`.
///
/// # Safety
/// All functions need the machine to have the level's features; loads and stores need `LANES` elements at the pointer,
/// which need not be aligned.
pub(crate) trait Simd: Copy {
    /// A vector.
    type V: Copy;
    /// Its lanes; divides 16.
    const LANES: usize;
    /// There are registers enough for a product's tile of 24 sums, and not only of 12.
    const WIDE: bool;
    /// `f32::mul_add` is one instruction, and not a call.
    const FUSED: bool = true;
    /// The dot product with bf16 weights.
    type Bf16: Dot<Self, W = u16>;
    /// The dot product with f16 weights.
    type F16: Dot<Self, W = u16>;
    /// The dot product with f32 weights.
    type F32: Dot<Self, W = f32>;
    /// Sixteen columns of a product with quantised weights.
    type Columns: Columns;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    unsafe fn load_f16(p: *const u16) -> Self::V;
    /// Whole numbers of 8 bits.
    #[inline(always)]
    unsafe fn load_i8(p: *const i8) -> Self::V {
        let mut wide = [0.0f32; 16];
        // SAFETY: the caller vouches for `LANES` numbers; the array holds a vector.
        unsafe {
            for (i, x) in wide[..Self::LANES].iter_mut().enumerate() {
                *x = f32::from(*p.add(i));
            }
            Self::load(wide.as_ptr())
        }
    }
    /// Loads `LANES` pairs of bf16: the first of each, and the second.
    #[inline(always)]
    unsafe fn load_pairs(p: *const u16) -> [Self::V; 2] {
        let (mut first, mut second) = ([0.0f32; 16], [0.0f32; 16]);
        for i in 0..Self::LANES {
            // SAFETY: the caller vouches for the pairs.
            let pair = unsafe { p.cast::<[u16; 2]>().add(i).read_unaligned() };
            first[i] = f32::from_bits(u32::from(pair[0]) << 16);
            second[i] = f32::from_bits(u32::from(pair[1]) << 16);
        }
        // SAFETY: the arrays hold a vector each.
        unsafe { [Self::load(first.as_ptr()), Self::load(second.as_ptr())] }
    }
    /// Whether [`dot_pairs`](Self::dot_pairs) is one instruction.
    const PAIRS: bool = false;
    /// The products of `LANES` pairs of bf16 with as many others, added to `sums`, a pair to a lane. `x` and `w` hold the
    /// bits of pairs.
    #[inline(always)]
    unsafe fn dot_pairs(x: Self::V, w: Self::V, sums: Self::V) -> Self::V {
        let mut pairs = [[0.0f32; 16]; 2];
        // SAFETY: each array holds a vector.
        unsafe {
            Self::store(pairs[0].as_mut_ptr(), x);
            Self::store(pairs[1].as_mut_ptr(), w);
            let [x, w] = [0, 1].map(|i| Self::load_pairs(pairs[i].as_ptr().cast()));
            Self::mul_add(x[1], w[1], Self::mul_add(x[0], w[0], sums))
        }
    }
    /// Stores a vector as bf16, rounded to nearest, ties to even; subnormal numbers may become 0.
    #[inline(always)]
    unsafe fn store_bf16(p: *mut u16, v: Self::V) {
        let mut wide = [0.0f32; 16];
        // SAFETY: the array holds a vector; the caller vouches for `LANES` numbers at `p`.
        unsafe {
            Self::store(wide.as_mut_ptr(), v);
            for (i, x) in wide[..Self::LANES].iter().enumerate() {
                p.add(i).write_unaligned(u16::from_f32(*x));
            }
        }
    }
    unsafe fn store(p: *mut f32, v: Self::V);
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// `a · b + c`
    unsafe fn mul_add(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The sum of the lanes, always in the same order.
    unsafe fn sum(v: Self::V) -> f32;
    /// The sums of `N` vectors, each as [`sum`](Self::sum) gives it: in place of what is at `to`, or `added` to it.
    #[inline(always)]
    unsafe fn sums<const N: usize>(v: [Self::V; N], added: bool, to: *mut f32) {
        for (i, v) in v.into_iter().enumerate() {
            // SAFETY: the caller vouches for the features and for `N` numbers at `to`.
            unsafe {
                let sum = Self::sum(v);
                *to.add(i) = if added { *to.add(i) + sum } else { sum };
            }
        }
    }
    /// `inverse · x` as whole numbers, rounded to nearest, ties to even, which are from −127 to 127; gives their sum.
    /// They are put into the order of [`position`]. Both are equally long, a multiple of 16.
    #[inline(always)]
    unsafe fn round(x: &[f32], inverse: f32, to: &mut [i8]) -> i32 {
        // Adding 1.5·2²³ rounds to an integer, which is then in the lower bits.
        const SHIFT: f32 = 12_582_912.0;
        let mut sum = 0;
        for (x, to) in x.chunks_exact(8).zip(to.chunks_exact_mut(8)) {
            for k in 0..8 {
                let bits = (x[k] * inverse + SHIFT).to_bits();
                let rounded = bits.wrapping_sub(SHIFT.to_bits()) as i8;
                sum += i32::from(rounded);
                to[position(k)] = rounded;
            }
        }
        sum
    }
    /// `to[c, r] = from[r, c]` for 16 × 16 numbers, in rows that begin `stride` numbers apart.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        for i in 0..256 {
            let (r, c) = (i / 16, i % 16);
            // SAFETY: the caller vouches for the matrices.
            unsafe { *to.add(c * to_stride + r) = from.add(r * stride + c).read_unaligned() };
        }
    }
    /// Brings the cache line at `p`, which need not be valid, closer.
    unsafe fn prefetch(p: *const u8);
    /// The same, but only into the second-level cache.
    #[inline(always)]
    unsafe fn prefetch_far(p: *const u8) {
        // SAFETY: as the caller's.
        unsafe { Self::prefetch(p) }
    }
}

/// The dot product of activations `X` with weights `W`, some elements at a time.
///
/// # Safety
/// As [`Simd`]; loads need `STEP` elements.
pub(crate) trait Dot<S: Simd>: Copy {
    /// How the activations are stored.
    type X: Element;
    /// How the weights are stored.
    type W: Copy + Default;
    /// The weights as they are multiplied.
    type P: Copy;
    /// Some activations.
    type Xs: Copy;
    /// Some weights.
    type Ws: Copy;
    /// How many elements are loaded at a time.
    const STEP: usize;

    unsafe fn load_x(p: *const Self::X) -> Self::Xs;
    unsafe fn load_w(p: *const Self::W) -> Self::Ws;
    /// Stores weights for `load_p`, which is quicker than `load_w`.
    unsafe fn store_p(p: *mut Self::P, w: Self::Ws);
    unsafe fn load_p(p: *const Self::P) -> Self::Ws;
    unsafe fn add(x: Self::Xs, w: Self::Ws, sums: S::V) -> S::V;
}

/// Writes the three dot products of a level that widens its weights to `f32`.
macro_rules! widening_dot {
    ($name:ident, $simd:ty, $w:ty, $load:ident) => {
        #[derive(Clone, Copy)]
        pub(crate) struct $name;
        impl<S: $crate::simd::Simd<V = <$simd as $crate::simd::Simd>::V>> $crate::simd::Dot<S>
            for $name
        {
            type X = f32;
            type W = $w;
            type P = f32;
            type Xs = S::V;
            type Ws = S::V;
            const STEP: usize = S::LANES;
            #[inline(always)]
            unsafe fn load_x(p: *const f32) -> S::V {
                // SAFETY: the caller has the level's features and vouches for `p`; so for all below.
                unsafe { S::load(p) }
            }
            #[inline(always)]
            unsafe fn load_w(p: *const $w) -> S::V {
                // SAFETY: as above.
                unsafe { <$simd>::$load(p) }
            }
            #[inline(always)]
            unsafe fn store_p(p: *mut f32, w: S::V) {
                // SAFETY: as above.
                unsafe { S::store(p, w) }
            }
            #[inline(always)]
            unsafe fn load_p(p: *const f32) -> S::V {
                // SAFETY: as above.
                unsafe { S::load(p) }
            }
            #[inline(always)]
            unsafe fn add(x: S::V, w: S::V, sums: S::V) -> S::V {
                // SAFETY: as above.
                unsafe { S::mul_add(x, w, sums) }
            }
        }
    };
}
use widening_dot;
