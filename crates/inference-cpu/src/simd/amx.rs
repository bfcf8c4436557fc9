//! Tiles of AMX: eight registers of 16 rows of 64 bytes, and products of two of them.
//!
//! Stable Rust has no intrinsics for them, so they are written as assembly; the names and the layout are those of
//! Intel's Software Developer's Manual, volume 1, chapter 18, and volume 2.

use std::{
    arch::{asm, x86_64::__cpuid, x86_64::__cpuid_count},
    marker::PhantomData,
    sync::OnceLock,
};

/// Rows of a tile, at most.
pub(crate) const ROWS: usize = 16;

/// Bytes of a tile's row, at most.
pub(crate) const ROW_BYTES: usize = 64;

/// Whether this process may use AMX with bf16 and int8, which every processor with AMX has. Asks the system for
/// permission in the first call.
pub(crate) fn available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| has_instructions() && system_saves_tiles() && permitted())
}

/// Leaf 7: bit 22 is AMX-BF16, bit 24 AMX-TILE, bit 25 AMX-INT8.
fn has_instructions() -> bool {
    const WANTED: u32 = 1 << 22 | 1 << 24 | 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & WANTED == WANTED
}

/// Whether the system has switched on the tiles' state and their configuration's: bits 17 and 18 of XCR0.
fn system_saves_tiles() -> bool {
    const WANTED: u32 = 1 << 17 | 1 << 18;
    // Leaf 1, bit 27: there is XGETBV.
    if __cpuid(1).ecx & (1 << 27) == 0 {
        return false;
    }
    let low: u32;
    // SAFETY: the machine has the instruction; register 0 is XCR0.
    unsafe {
        asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") _,
            options(nomem, nostack, preserves_flags));
    }
    low & WANTED == WANTED
}

/// Linux lets a process touch tiles only after it has asked, since they make its signal frames larger; without that the
/// first instruction ends it with SIGILL. <https://docs.kernel.org/arch/x86/xstate.html>
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_GET_XCOMP_PERM: usize = 0x1022;
    const ARCH_REQ_XCOMP_PERM: usize = 0x1023;
    const TILE_DATA: usize = 18;
    let mut granted = 0u64;
    // SAFETY: the first call takes a number, the second writes 64 bits to where `granted` is.
    unsafe {
        arch_prctl(ARCH_REQ_XCOMP_PERM, TILE_DATA) == 0
            && arch_prctl(ARCH_GET_XCOMP_PERM, (&raw mut granted).addr()) == 0
            && granted & (1 << TILE_DATA) != 0
    }
}

/// Elsewhere nobody has tried.
#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// # Safety
/// As the call that `code` names.
#[cfg(target_os = "linux")]
unsafe fn arch_prctl(code: usize, argument: usize) -> isize {
    const ARCH_PRCTL: isize = 158;
    let result;
    // SAFETY: the caller vouches for the arguments; the kernel changes no register but these.
    unsafe {
        asm!("syscall", inlateout("rax") ARCH_PRCTL => result, in("rdi") code, in("rsi") argument,
            out("rcx") _, out("r11") _, options(nostack));
    }
    result
}

/// The shape of one tile: its rows, and the bytes of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// At most [`ROWS`].
    pub(crate) rows: usize,
    /// At most [`ROW_BYTES`], a multiple of 4.
    pub(crate) bytes: usize,
}

/// This thread's tile registers; dropping releases them.
///
/// A product `c += a · b` takes from `a`, `[m, k]`, and `b`, `[k / n, columns, n]`, groups of `n` numbers that fill
/// 4 bytes: pairs of bf16, four of int8; `c` is `[m, columns]` of f32 or i32. Each element is summed along `k` in
/// order, whatever the shapes.
///
/// The compiler allocates no tile register, so they keep their values from one method to the next.
pub(crate) struct Tiles {
    /// They belong to a thread.
    _here: PhantomData<*mut ()>,
}

// SAFETY of all below: `Tiles` exists only where AMX is available, by `configure`; the callers vouch for the pointers.
impl Tiles {
    /// Configures the eight tiles, all zero.
    ///
    /// # Safety
    /// [`available`], and no other `Tiles` lives on this thread.
    ///
    /// # Panics
    /// Where a shape is larger than a tile.
    pub(crate) unsafe fn configure(shapes: [Shape; 8]) -> Self {
        // Byte 0: the palette; from byte 16 on: bytes of a row, 16 bits each; from byte 48 on: rows.
        #[repr(C, align(64))]
        struct Config([u8; 64]);
        let mut config = Config([0; 64]);
        config.0[0] = 1;
        for (i, shape) in shapes.into_iter().enumerate() {
            assert!(shape.rows <= ROWS && shape.bytes <= ROW_BYTES && shape.bytes % 4 == 0);
            config.0[16 + 2 * i] = shape.bytes as u8;
            config.0[48 + i] = shape.rows as u8;
        }
        // SAFETY: the caller vouches for AMX; the configuration is valid.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, preserves_flags, readonly));
        }
        Self { _here: PhantomData }
    }

    /// Sets tile `T` to zero.
    #[inline(always)]
    pub(crate) fn zero<const T: u8>(&self) {
        // SAFETY: see above.
        unsafe {
            asm!("tilezero tmm{t}", t = const T, options(nomem, nostack, preserves_flags));
        }
    }

    /// Loads tile `T`, whose rows begin `stride` bytes apart.
    ///
    /// # Safety
    /// The tile's rows may be read from there.
    #[inline(always)]
    pub(crate) unsafe fn load<const T: u8>(&self, from: *const u8, stride: usize) {
        // SAFETY: see above.
        unsafe {
            asm!("tileloadd tmm{t}, [{from} + {stride}*1]", t = const T, from = in(reg) from,
                stride = in(reg) stride, options(nostack, preserves_flags, readonly));
        }
    }

    /// Stores tile `T` as rows that begin `stride` bytes apart.
    ///
    /// # Safety
    /// The tile's rows may be written there.
    #[inline(always)]
    pub(crate) unsafe fn store<const T: u8>(&self, to: *mut u8, stride: usize) {
        // SAFETY: see above.
        unsafe {
            asm!("tilestored [{to} + {stride}*1], tmm{t}", t = const T, to = in(reg) to,
                stride = in(reg) stride, options(nostack, preserves_flags));
        }
    }
}

/// Writes products of two tiles.
macro_rules! products {
    ($($(#[$doc:meta])* $name:ident: $instruction:literal;)*) => {
        impl Tiles {
            $(
                $(#[$doc])*
                #[inline(always)]
                pub(crate) fn $name<const C: u8, const A: u8, const B: u8>(&self) {
                    // SAFETY: `Tiles` exists only where AMX is available.
                    unsafe {
                        asm!(concat!($instruction, " tmm{c}, tmm{a}, tmm{b}"), c = const C,
                            a = const A, b = const B, options(nomem, nostack, preserves_flags));
                    }
                }
            )*
        }
    };
}

products! {
    /// `C += A · B`, bf16 pairs summed in f32; subnormal numbers count as 0.
    dot_bf16: "tdpbf16ps";
    /// `C += A · B`, both signed, in i32.
    dot_i8_i8: "tdpbssd";
    /// `C += A · B`, `A` signed and `B` unsigned, in i32.
    dot_i8_u8: "tdpbsud";
    /// `C += A · B`, `A` unsigned and `B` signed, in i32.
    dot_u8_i8: "tdpbusd";
    /// `C += A · B`, both unsigned, in i32.
    dot_u8_u8: "tdpbuud";
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: AMX is available, as `configure`'s caller vouched.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Element;

    /// Small integers, so that bf16 and f32 hold everything exactly.
    fn numbers(n: usize, seed: usize, least: i32, most: i32) -> Vec<i32> {
        let span = (most - least + 1) as usize;
        (0..n).map(|i| least + (((i + seed) * 7919 + i * i) % span) as i32).collect()
    }

    /// `[m, k] · [k, n]`
    fn product(a: &[i32], b: &[i32], m: usize, k: usize, n: usize) -> Vec<i32> {
        let dot = |r: usize, c: usize| (0..k).map(|i| a[r * k + i] * b[i * n + c]).sum();
        (0..m * n).map(|i| dot(i / n, i % n)).collect()
    }

    /// `[k, n]` in groups of `g` along `k`, side by side for each column.
    fn grouped(b: &[i32], n: usize, g: usize) -> Vec<i32> {
        let group = |i: usize| (0..g * n).map(move |j| b[(i + j % g) * n + j / g]);
        (0..b.len() / n).step_by(g).flat_map(group).collect()
    }

    fn shapes(m: usize, n: usize) -> [Shape; 8] {
        let (c, a) = (Shape { rows: m, bytes: 4 * n }, Shape { rows: m, bytes: 64 });
        [c, a, Shape { rows: 16, bytes: 4 * n }, c, c, c, c, c]
    }

    fn bytes(x: &[i32]) -> Vec<u8> {
        x.iter().map(|x| *x as u8).collect()
    }

    #[test]
    fn tiles_multiply_bf16_pairs() {
        if !available() {
            return;
        }
        for (m, n) in [(16, 16), (1, 16), (16, 1), (5, 3)] {
            let (a, b) = (numbers(m * 32, 1, -9, 9), numbers(32 * n, 2, -9, 9));
            let narrow = |x: &[i32]| x.iter().map(|x| u16::from_f32(*x as f32)).collect::<Vec<_>>();
            let (a16, b16) = (narrow(&a), narrow(&grouped(&b, n, 2)));
            let mut c = vec![0f32; m * n];
            // SAFETY: AMX is available, and the buffers have the tiles' shapes.
            unsafe {
                let tiles = Tiles::configure(shapes(m, n));
                tiles.zero::<0>();
                tiles.load::<1>(a16.as_ptr().cast(), 64);
                tiles.load::<2>(b16.as_ptr().cast(), 4 * n);
                tiles.dot_bf16::<0, 1, 2>();
                tiles.store::<0>(c.as_mut_ptr().cast(), 4 * n);
            }
            let c: Vec<_> = c.into_iter().map(|x| x as i32).collect();
            assert_eq!(c, product(&a, &b, m, 32, n), "{m} x {n}");
        }
    }

    #[test]
    fn tiles_multiply_bytes_of_either_sign() {
        if !available() {
            return;
        }
        let (signed, unsigned) = ((-128, 127), (0, 255));
        for (m, n) in [(16, 16), (1, 16), (16, 1), (5, 3)] {
            for (i, (ra, rb)) in
                [(signed, signed), (signed, unsigned), (unsigned, signed), (unsigned, unsigned)]
                    .into_iter()
                    .enumerate()
            {
                let (a, b) = (numbers(m * 64, 3, ra.0, ra.1), numbers(64 * n, 4, rb.0, rb.1));
                let (a8, b8) = (bytes(&a), bytes(&grouped(&b, n, 4)));
                let mut c = vec![1i32; m * n];
                // SAFETY: AMX is available, and the buffers have the tiles' shapes.
                unsafe {
                    let tiles = Tiles::configure(shapes(m, n));
                    tiles.zero::<0>();
                    tiles.load::<1>(a8.as_ptr(), 64);
                    tiles.load::<2>(b8.as_ptr(), 4 * n);
                    match i {
                        0 => tiles.dot_i8_i8::<0, 1, 2>(),
                        1 => tiles.dot_i8_u8::<0, 1, 2>(),
                        2 => tiles.dot_u8_i8::<0, 1, 2>(),
                        _ => tiles.dot_u8_u8::<0, 1, 2>(),
                    }
                    tiles.store::<0>(c.as_mut_ptr().cast(), 4 * n);
                }
                assert_eq!(c, product(&a, &b, m, 64, n), "{m} x {n}, signs {i}");
            }
        }
    }
}
