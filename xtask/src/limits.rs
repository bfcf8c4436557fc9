//! What this machine can do at best: reading memory, and arithmetic.
//!
//! A measured rate means something only beside these, taken in the same run with as many threads.
#![expect(
    unsafe_code,
    reason = "vector instructions that the build does not assume are called here, and only here"
)]

use memmap2::MmapMut;
use serde::Serialize;
use std::{hint::black_box, sync::Barrier, time::Instant};

/// Bytes that a pass reads: far more than any cache holds.
const BUFFER: usize = 1 << 30;
/// Passes over the buffer, and over the arithmetic.
const PASSES: usize = 7;
/// Rounds of independent operations in one pass of arithmetic; some 50 ms.
const ROUNDS: usize = 6_000_000;
/// Independent sums, enough to hide the latency of a multiply-add.
const SUMS: usize = 16;

/// The rates of one measurement.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Rate {
    /// Of the fastest pass, per second.
    pub(crate) best: f64,
    /// Of the middle pass, per second.
    pub(crate) median: f64,
}

impl Rate {
    fn of(mut seconds: Vec<f64>, amount: f64) -> Self {
        seconds.sort_by(f64::total_cmp);
        Self { best: amount / seconds[0], median: amount / seconds[seconds.len() / 2] }
    }

    /// The better of two measurements.
    pub(crate) fn max(self, other: Self) -> Self {
        Self { best: self.best.max(other.best), median: self.median.max(other.median) }
    }
}

/// What the machine can do at best, with some number of threads.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Limits {
    /// Threads that measured.
    pub(crate) threads: usize,
    /// Bytes read from memory.
    pub(crate) read: Rate,
    /// Floating-point operations of f32 multiply-adds.
    pub(crate) f32: Rate,
    /// Floating-point operations of bf16 dot products, where the CPU has them.
    pub(crate) bf16: Option<Rate>,
    /// Operations of int8 dot products, where the CPU has them.
    pub(crate) int8: Option<Rate>,
}

impl Limits {
    /// The better of two measurements, of each kind.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            threads: self.threads,
            read: self.read.max(other.read),
            f32: self.f32.max(other.f32),
            bf16: self.bf16.zip(other.bf16).map(|(a, b)| a.max(b)),
            int8: self.int8.zip(other.int8).map(|(a, b)| a.max(b)),
        }
    }

    /// The highest peak of floating-point arithmetic, and what it is called.
    pub(crate) fn peak(&self) -> (f64, &'static str) {
        match self.bf16 {
            Some(bf16) if bf16.best > self.f32.best => (bf16.best, "bf16"),
            _ => (self.f32.best, "f32"),
        }
    }

    /// The peak of arithmetic with quantised weights, and what it is called: of int8, where the CPU has it.
    pub(crate) fn quantised_peak(&self) -> (f64, &'static str) {
        self.int8.map_or_else(|| self.peak(), |int8| (int8.best, "int8"))
    }
}

/// Measures; takes a few seconds and 1 GiB of memory.
pub(crate) fn measure(threads: usize) -> Limits {
    Limits {
        threads,
        read: read(threads),
        f32: arithmetic(threads, kernels::f32_rounds),
        bf16: kernels::bf16_rounds().map(|rounds| arithmetic(threads, rounds)),
        int8: kernels::int8_rounds().map(|rounds| arithmetic(threads, rounds)),
    }
}

/// Sums over a buffer, one stretch a thread, in large pages where the system has them: weights that a backend packs
/// are in such pages, too. Each thread touches its stretch first, so that it is near.
fn read(threads: usize) -> Rate {
    let words = BUFFER / 8 / threads;
    let seconds = together(threads, || {
        let mut stretch = MmapMut::map_anon(words * 8).expect("there is memory to read");
        advise(&stretch);
        let numbers = bytemuck::cast_slice_mut(&mut stretch).iter_mut();
        numbers.zip(0_u64..).for_each(|(word, n)| *word = n);
        move || {
            black_box(kernels::sum(black_box(bytemuck::cast_slice(&stretch))));
        }
    });
    Rate::of(seconds, (words * 8 * threads) as f64)
}

/// Asks for large pages. An error means only that there are none.
#[cfg(target_os = "linux")]
fn advise(map: &MmapMut) {
    let _ = map.advise(memmap2::Advice::HugePage);
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &MmapMut) {}

/// `rounds(n)` does `n` rounds and gives the operations of one round.
fn arithmetic(threads: usize, rounds: fn(usize) -> f64) -> Rate {
    let operations = rounds(1);
    let seconds = together(threads, || {
        move || {
            black_box(rounds(ROUNDS));
        }
    });
    Rate::of(seconds, operations * ROUNDS as f64 * threads as f64)
}

/// Seconds of each pass, from the common start to the last thread's end. `prepare` runs in each thread.
fn together<F: FnMut()>(threads: usize, prepare: impl Fn() -> F + Sync) -> Vec<f64> {
    let barrier = Barrier::new(threads);
    let pass = |timed: bool| {
        let mut work = prepare();
        let mut seconds = Vec::new();
        for _ in 0..=PASSES {
            barrier.wait();
            let start = Instant::now();
            work();
            barrier.wait();
            seconds.push(start.elapsed().as_secs_f64());
        }
        // The first pass is a warm-up.
        if timed { seconds.split_off(1) } else { Vec::new() }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| pass(false));
        }
        pass(true)
    })
}

/// Sums of words, several at once; the compiler makes vectors of what the caller's target allows.
#[inline(always)]
fn sum_words(words: &[u64]) -> u64 {
    let mut sums = [0_u64; 64];
    let mut chunks = words.chunks_exact(64);
    for chunk in &mut chunks {
        for (sum, word) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*word);
        }
    }
    let rest = chunks.remainder().iter();
    sums.iter().chain(rest).fold(0, |sum, word| sum.wrapping_add(*word))
}

/// Multiply-adds in plain Rust, for CPUs without kernels below.
#[cfg_attr(any(target_arch = "x86_64", target_arch = "aarch64"), allow(dead_code))]
fn plain_f32_rounds(rounds: usize) -> f64 {
    let (a, b) = (black_box(0.999_f32), black_box(0.001_f32));
    let mut sums = [[0.0_f32; 4]; SUMS];
    for _ in 0..rounds {
        for sum in sums.as_flattened_mut() {
            *sum = *sum * a + b;
        }
    }
    black_box(sums);
    (SUMS * 4 * 2) as f64
}

#[cfg(target_arch = "x86_64")]
mod kernels {
    use super::{SUMS, black_box, plain_f32_rounds, sum_words};
    use std::arch::x86_64::*;

    pub(super) fn sum(words: &[u64]) -> u64 {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has AVX-512F, as was just asked.
            return unsafe { sum_avx512(words) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the CPU has AVX2, as was just asked.
            return unsafe { sum_avx2(words) };
        }
        sum_words(words)
    }

    #[target_feature(enable = "avx512f")]
    fn sum_avx512(words: &[u64]) -> u64 {
        sum_words(words)
    }

    #[target_feature(enable = "avx2")]
    fn sum_avx2(words: &[u64]) -> u64 {
        sum_words(words)
    }

    pub(super) fn f32_rounds(rounds: usize) -> f64 {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the CPU has AVX-512F, as was just asked.
            return unsafe { f32_avx512(rounds) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the CPU has AVX2 and FMA, as was just asked.
            return unsafe { f32_avx2(rounds) };
        }
        plain_f32_rounds(rounds)
    }

    #[target_feature(enable = "avx512f")]
    fn f32_avx512(rounds: usize) -> f64 {
        let (a, b) = (_mm512_set1_ps(black_box(0.999)), _mm512_set1_ps(black_box(0.001)));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
        (SUMS * 16 * 2) as f64
    }

    #[target_feature(enable = "avx2,fma")]
    fn f32_avx2(rounds: usize) -> f64 {
        // Sixteen registers hold twelve sums and the operands.
        let (a, b) = (_mm256_set1_ps(black_box(0.999)), _mm256_set1_ps(black_box(0.001)));
        let mut sums = [_mm256_setzero_ps(); 12];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
        (12 * 8 * 2) as f64
    }

    /// Rounds of `vdpbf16ps`, where the CPU has it.
    pub(super) fn bf16_rounds() -> Option<fn(usize) -> f64> {
        is_x86_feature_detected!("avx512bf16").then_some(|rounds| {
            // SAFETY: this function is only given out if the CPU has AVX-512 BF16; AVX-512F comes with it.
            unsafe { bf16_avx512(rounds) }
        })
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn bf16_avx512(rounds: usize) -> f64 {
        let small = _mm512_set1_ps(black_box(0.001));
        let (a, b) = (_mm512_cvtne2ps_pbh(small, small), _mm512_cvtne2ps_pbh(small, small));
        let mut sums = [_mm512_setzero_ps(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbf16_ps(*sum, a, b);
            }
        }
        black_box(sums);
        (SUMS * 32 * 2) as f64
    }

    /// Rounds of `vpdpbusd`, where the CPU has it.
    pub(super) fn int8_rounds() -> Option<fn(usize) -> f64> {
        if is_x86_feature_detected!("avx512vnni") {
            return Some(|rounds| {
                // SAFETY: this function is only given out if the CPU has AVX-512 VNNI; AVX-512F comes with it.
                unsafe { int8_avx512(rounds) }
            });
        }
        is_x86_feature_detected!("avxvnni").then_some(|rounds| {
            // SAFETY: this function is only given out if the CPU has AVX-VNNI; AVX2 comes with it.
            unsafe { int8_avx2(rounds) }
        })
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn int8_avx512(rounds: usize) -> f64 {
        let (a, b) = (_mm512_set1_epi8(black_box(3)), _mm512_set1_epi8(black_box(-2)));
        let mut sums = [_mm512_setzero_si512(); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
        (SUMS * 64 * 2) as f64
    }

    #[target_feature(enable = "avx2,avxvnni")]
    fn int8_avx2(rounds: usize) -> f64 {
        // Sixteen registers hold twelve sums and the operands.
        let (a, b) = (_mm256_set1_epi8(black_box(3)), _mm256_set1_epi8(black_box(-2)));
        let mut sums = [_mm256_setzero_si256(); 12];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, a, b);
            }
        }
        black_box(sums);
        (12 * 32 * 2) as f64
    }
}

#[cfg(target_arch = "aarch64")]
mod kernels {
    use super::{SUMS, black_box, sum_words};
    use std::arch::aarch64::*;

    pub(super) fn sum(words: &[u64]) -> u64 {
        sum_words(words)
    }

    pub(super) fn f32_rounds(rounds: usize) -> f64 {
        // SAFETY: NEON belongs to every aarch64 CPU that Rust's std runs on.
        unsafe { f32_neon(rounds) }
    }

    #[target_feature(enable = "neon")]
    fn f32_neon(rounds: usize) -> f64 {
        let (a, b) = (vdupq_n_f32(black_box(0.999)), vdupq_n_f32(black_box(0.001)));
        let mut sums = [vdupq_n_f32(0.0); SUMS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = vfmaq_f32(b, *sum, a);
            }
        }
        black_box(sums);
        (SUMS * 4 * 2) as f64
    }

    pub(super) fn bf16_rounds() -> Option<fn(usize) -> f64> {
        None
    }

    pub(super) fn int8_rounds() -> Option<fn(usize) -> f64> {
        None
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod kernels {
    pub(super) use super::{plain_f32_rounds as f32_rounds, sum_words as sum};

    pub(super) fn bf16_rounds() -> Option<fn(usize) -> f64> {
        None
    }

    pub(super) fn int8_rounds() -> Option<fn(usize) -> f64> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kernel_sums_the_same() {
        let words: Vec<u64> = (0..1003).collect();
        assert_eq!(kernels::sum(&words), 1002 * 1003 / 2);
        assert_eq!(sum_words(&words), 1002 * 1003 / 2);
    }

    #[test]
    fn rounds_count_their_operations() {
        assert!(kernels::f32_rounds(3) >= 8.0);
        assert!(plain_f32_rounds(3) >= 8.0);
        if let Some(bf16) = kernels::bf16_rounds() {
            assert!(bf16(3) > kernels::f32_rounds(3));
        }
        if let Some(int8) = kernels::int8_rounds() {
            assert!(int8(3) > kernels::f32_rounds(3));
        }
    }
}
