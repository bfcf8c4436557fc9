//! Sixteen columns of a quantised product: a 32-bit lane each, in as many registers as the level needs.
//!
//! A lane of [`Ints`](Columns::Ints) holds four unsigned weights of its column, or a sum. Sums of products are whole
//! numbers that fit into 32 bits, so every level computes the same ones.

#[cfg(target_arch = "x86_64")]
pub(super) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(super) mod neon;
pub(super) mod scalar;

/// Columns that are computed side by side.
pub(crate) const COLUMNS: usize = 16;

/// Bytes of [`Columns::Ints`].
pub(crate) const LINE: usize = 64;

/// Where input `k` stands: of 8, the even ones are one quad and the odd ones the next.
#[inline(always)]
pub(crate) const fn position(k: usize) -> usize {
    k / 8 * 8 + k % 2 * 4 + k % 8 / 2
}

/// Sixteen columns.
///
/// # Safety
/// All functions need the machine to have the level's features; loads and stores need sixteen elements at the pointer,
/// which need not be aligned.
pub(crate) trait Columns: Copy {
    /// Sixteen lanes of 32 bits.
    type Ints: Copy;
    /// Sixteen lanes of `f32`.
    type Floats: Copy;
    /// Whether the sums of 6 rows by 32 columns fit into registers, and not only those of 2 rows by 16.
    const WIDE: bool;
    /// Whether products with 8-bit weights need more than others.
    const SPLITS: bool;

    unsafe fn zero() -> Self::Ints;
    /// Loads 64 bytes.
    unsafe fn load(p: *const u8) -> Self::Ints;
    /// Stores 64 bytes.
    unsafe fn store(p: *mut u8, v: Self::Ints);
    /// The four bytes at `p`, in every lane.
    unsafe fn splat(p: *const i8) -> Self::Ints;
    /// The lanes shifted to the right by `n` bits, zeros from the left.
    unsafe fn right(v: Self::Ints, n: u32) -> Self::Ints;
    /// The lanes shifted to the left by `n` bits.
    unsafe fn left(v: Self::Ints, n: u32) -> Self::Ints;
    /// `v` with `mask` of every byte.
    unsafe fn mask(v: Self::Ints, mask: u8) -> Self::Ints;
    unsafe fn or(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    unsafe fn add(a: Self::Ints, b: Self::Ints) -> Self::Ints;
    /// `sums` plus the products of the four unsigned bytes of `w` and the four signed bytes of `x`, in every lane.
    /// Without `eight`, no byte of `w` is above 127. No byte of `x` is −128.
    unsafe fn dot(sums: Self::Ints, w: Self::Ints, x: Self::Ints, eight: bool) -> Self::Ints;
    /// Whether [`dot_rows`](Self::dot_rows) is one instruction for a register.
    const MATRIX: bool = false;
    /// Two quads in the order in which [`dot_rows`](Self::dot_rows) takes them.
    #[inline(always)]
    unsafe fn pair(quads: [Self::Ints; 2]) -> [Self::Ints; 2] {
        quads
    }
    /// `sums` plus the products of a [`pair`](Self::pair) with the eight bytes at `x` of each of two rows; which sum is
    /// whose, [`rows`](Self::rows) tells. All else as [`dot`](Self::dot) with `eight`.
    #[inline(always)]
    unsafe fn dot_rows(
        sums: [Self::Ints; 2],
        w: [Self::Ints; 2],
        x: [*const i8; 2],
    ) -> [Self::Ints; 2] {
        let mut all = sums;
        for (sums, x) in all.iter_mut().zip(x) {
            // SAFETY: the caller has the level's features, and vouches for eight bytes.
            unsafe {
                *sums = Self::dot(*sums, w[0], Self::splat(x), true);
                *sums = Self::dot(*sums, w[1], Self::splat(x.add(4)), true);
            }
        }
        all
    }
    /// The sums of the first row, and those of the second.
    #[inline(always)]
    unsafe fn rows(sums: [Self::Ints; 2]) -> [Self::Ints; 2] {
        sums
    }
    /// Byte `n` of each lane.
    unsafe fn byte(v: Self::Ints, n: u32) -> Self::Floats;
    /// Rounded to nearest, ties to even.
    unsafe fn to_floats(v: Self::Ints) -> Self::Floats;

    unsafe fn splat_f32(x: f32) -> Self::Floats;
    unsafe fn load_f32(p: *const f32) -> Self::Floats;
    unsafe fn load_f16(p: *const u16) -> Self::Floats;
    unsafe fn load_bf16(p: *const u16) -> Self::Floats;
    unsafe fn store_f32(p: *mut f32, v: Self::Floats);
    unsafe fn add_f32(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    unsafe fn mul(a: Self::Floats, b: Self::Floats) -> Self::Floats;
    /// `a · b + c`, rounded once where the level can.
    unsafe fn mul_add(a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats;

    /// Brings the cache line at `p`, which need not be valid, closer.
    unsafe fn prefetch(p: *const u8);
    /// The same, but only into the second-level cache.
    unsafe fn prefetch_far(p: *const u8);
}

/// Writes operations of a level, whose bodies are unsafe.
macro_rules! operations {
    ($(fn $name:ident$(<const $n:ident: $t:ty>)?($($arg:ident: $type:ty),*) $(-> $out:ty)? $body:block)*) => {
        $(
            #[inline(always)]
            unsafe fn $name$(<const $n: $t>)?($($arg: $type),*) $(-> $out)? {
                #[allow(unused_unsafe, reason = "plain Rust needs none")]
                // SAFETY: the caller has the level's features, and vouches for pointers.
                unsafe { $body }
            }
        )*
    };
}
use operations;
