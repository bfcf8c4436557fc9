//! What a device can do at best, beside which the speed of a model means something.

use crate::{
    driver::{Driver, MatrixUnit},
    gpu::{Gpu, list},
    source::Module,
};
use inference_core::Result;
use inference_engine::{
    check::{Noise, raw},
    device::Device as _,
    weights::DType,
};
use std::time::{Duration, Instant};

/// Bytes that the copy reads, at most: far more than any cache holds.
const COPIED: u64 = 1 << 30;
/// Bytes that a block copies; the same as in `limits.cu`.
const OF_BLOCK: u64 = 1024 * 16;
/// Tiles that a wave multiplies in a round, and threads of a block; the same as in `limits.cu`.
const PRODUCTS: f64 = 8.0;
const THREADS: u32 = 128;
/// Blocks of products for each unit of the device: enough waves that none is missed while others wait.
const BLOCKS_OF_UNIT: usize = 8;
/// Operations of a product of 16 × 16 × 16.
const OF_PRODUCT: f64 = 2.0 * 16.0 * 16.0 * 16.0;
/// Rows, outputs and inputs of the large product: enough blocks for every unit of the largest cards.
const LARGE: [usize; 3] = [4096, 8192, 4096];
/// How long a measured pass takes at least, and how many there are.
const PASS: Duration = Duration::from_millis(30);
const PASSES: usize = 5;

/// What a device did at best. All are of the fastest of several passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Bytes per second that a copy within the device's memory moves: those that it reads and those that it writes.
    pub copy: f64,
    /// Floating-point operations per second of `unit` on bf16, summed in f32, while nothing leaves the registers.
    pub products: f64,
    /// What multiplied.
    pub unit: MatrixUnit,
    /// Floating-point operations per second of a large product by our own kernels, bf16 weights, from f32 to f32 in memory.
    pub large_product: f64,
}

/// Measures; takes about a second beside compiling, and up to 2 GiB of the device's memory, which is given back.
///
/// # Errors
/// What the driver says.
pub fn limits<D: Driver>(driver: D) -> Result<Limits> {
    measure(driver, COPIED, LARGE, PASS)
}

fn measure<D: Driver>(driver: D, most: u64, large: [usize; 3], pass: Duration) -> Result<Limits> {
    let gpu = Gpu::new(driver, large[0])?;
    let unit = gpu.driver().target().matrix;
    let copy = gpu.copied(most, pass)?;
    let products = gpu.multiplied(pass)?;
    Ok(Limits { copy, products, unit, large_product: gpu.large_product(large, pass)? })
}

impl<D: Driver> Gpu<D> {
    /// Bytes per second of a copy.
    fn copied(&self, most: u64, pass: Duration) -> Result<f64> {
        let bytes = (self.driver.memory()?.free / 8).clamp(OF_BLOCK, most) / OF_BLOCK * OF_BLOCK;
        let (from, to) = (self.keep(bytes as usize)?, self.keep(bytes as usize)?);
        let args = list![to.address(), from.address()];
        let grid = [(bytes / OF_BLOCK) as usize, 1, 1];
        let copy = |times| {
            (0..times).try_for_each(|_| self.kernels.run(Module::Limits, "copy", grid, 256, args))
        };
        Ok(2.0 * bytes as f64 * self.rate(pass, copy)?)
    }

    /// Operations per second of products from registers.
    fn multiplied(&self, pass: Duration) -> Result<f64> {
        let blocks = BLOCKS_OF_UNIT * self.driver.target().units.max(1) as usize;
        let waves = blocks as f64 * f64::from(THREADS / self.driver.target().wave);
        let (x, y) = (self.tiles()?, self.tensor(blocks, THREADS as usize)?);
        let rounds = |rounds: u32| {
            let args = list![y.address(), x.address(), rounds];
            self.kernels.run(Module::Limits, "tile_products", [blocks, 1, 1], THREADS, args)
        };
        Ok(waves * PRODUCTS * OF_PRODUCT * self.rate(pass, rounds)?)
    }

    /// Two tiles of bf16.
    fn tiles(&self) -> Result<crate::arena::Piece<D>> {
        let numbers = Noise::new(1).numbers(2 * 16 * 16);
        let piece = self.activations.lend(2 * numbers.len())?;
        piece.upload(0, &raw(DType::Bf16, &[numbers.len()], &numbers).bytes)?;
        Ok(piece)
    }

    /// Operations per second of a large product.
    fn large_product(&self, [rows, cols, inputs]: [usize; 3], pass: Duration) -> Result<f64> {
        let noise = Noise::new(2).numbers(inputs);
        let weights = raw(DType::Bf16, &[cols, inputs], &noise.repeat(cols));
        let map = self.load_linear(&[weights.into()], None)?;
        let x = self.tensor(rows, inputs)?;
        x.piece.upload(0, bytemuck::cast_slice(&noise.repeat(rows)))?;
        let multiply = |times| (0..times).try_for_each(|_| self.linear(&x, &map).map(drop));
        Ok(2.0 * (rows * cols * inputs) as f64 * self.rate(pass, multiply)?)
    }

    /// How often a second `work` is done, which does it so many times; of the fastest pass.
    fn rate(&self, pass: Duration, work: impl Fn(u32) -> Result<()>) -> Result<f64> {
        let seconds = |times: u32| -> Result<Duration> {
            self.driver.synchronize()?;
            let start = Instant::now();
            work(times)?;
            self.driver.synchronize()?;
            Ok(start.elapsed())
        };
        let mut times = 1;
        while seconds(times)? < pass && times < 1 << 20 {
            times *= 2;
        }
        let mut best = seconds(times)?;
        for _ in 1..PASSES {
            best = best.min(seconds(times)?);
        }
        Ok(f64::from(times) / best.as_secs_f64().max(1e-9))
    }
}

#[cfg(all(test, feature = "cpu-driver"))]
mod tests {
    use super::*;
    use crate::cpu::{CpuDriver, Order};

    fn gpu(arch: &str) -> Option<Gpu<CpuDriver>> {
        CpuDriver::new(arch, Order::Forward).map(|driver| Gpu::new(driver, 64).expect("compiles"))
    }

    #[test]
    fn a_copy_is_a_copy() {
        let Some(gpu) = gpu("gfx1100") else { return };
        let bytes: Vec<u8> = (0..2 * OF_BLOCK).map(|i| (i * 7 + i / 251) as u8).collect();
        let lend = || gpu.activations.lend(bytes.len()).expect("fits");
        let (from, to) = (lend(), lend());
        from.upload(0, &bytes).expect("fits");
        let args = list![to.address(), from.address()];
        gpu.kernels.run(Module::Limits, "copy", [2, 1, 1], 256, args).expect("runs");
        let mut back = vec![0; bytes.len()];
        to.download(0, &mut back).expect("fits");
        assert!(back == bytes);
    }

    /// All that is counted is multiplied: the sum of a wave's numbers is that of so many products.
    #[test]
    fn every_product_of_every_round_is_in_the_sums() {
        for arch in ["gfx1030", "gfx906", "gfx1100", "gfx1201", "gfx90a", "sm_80"] {
            let Some(gpu) = gpu(arch) else { return };
            // Small whole numbers: every sum is exact.
            let numbers: Vec<f32> = (0..512).map(|i| (i * 37 % 11 % 4) as f32 - 1.0).collect();
            let x = gpu.activations.lend(1024).expect("fits");
            x.upload(0, &raw(DType::Bf16, &[512], &numbers).bytes).expect("fits");
            let (a, b) = numbers.split_at(256);
            let dot =
                |i: usize, j: usize| (0..16).map(|k| a[16 * i + k] * b[16 * j + k]).sum::<f32>();
            let product: f32 = (0..256).map(|i| dot(i / 16, i % 16)).sum();
            let y = gpu.tensor(2, THREADS as usize).expect("fits");
            let args = list![y.address(), x.address(), 3_u32];
            gpu.kernels
                .run(Module::Limits, "tile_products", [2, 1, 1], THREADS, args)
                .expect("runs");
            let sums = gpu.bring(&y).expect("reads");
            // They began with 0 to 7, in each of 256 places.
            let wanted = 256.0 * 28.0 + 3.0 * PRODUCTS as f32 * product;
            for wave in sums.chunks(gpu.driver().target().wave as usize) {
                assert_eq!(wave.iter().sum::<f32>(), wanted, "{arch}");
            }
        }
    }

    #[test]
    fn what_is_measured_are_rates() {
        let Some(driver) = CpuDriver::new("sm_80", Order::Forward) else { return };
        let limits =
            measure(driver, 1 << 16, [64, 64, 64], Duration::from_micros(1)).expect("runs");
        assert_eq!(limits.unit, MatrixUnit::MmaSync);
        for rate in [limits.copy, limits.products, limits.large_product] {
            assert!(rate > 1e3 && rate.is_finite(), "{limits:?}");
        }
    }
}
