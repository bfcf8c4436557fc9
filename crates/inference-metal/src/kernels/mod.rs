//! The operations by kernels: which one, what it is told, and how many threads it gets; `kernels/README.md` has it as a
//! table.

mod arguments;
mod attention;
mod source;

use crate::{
    linear::Segment,
    operations::{Append, Attend, Gather, Layer, Norm, Operations, Part, Product},
};
use bytemuck::Pod;
use candle_core::{DType, Result, Tensor};
use inference_engine::arch::Activation;
pub use source::{Library, Stored};
use std::ops::Range;

/// Rows that `gemv_1`, `gemv_2` and so on take at a time.
const FEW: [(usize, &str); 4] = [(1, "gemv_1"), (2, "gemv_2"), (4, "gemv_4"), (8, "gemv_8")];

/// Outputs of a threadgroup of `gemv` and `gemm`; with a gate half of them.
const GEMV: usize = 8;
const GEMM: usize = 64;

/// A buffer of a kernel: the numbers of a tensor, from where it begins.
#[derive(Debug, Clone, Copy)]
pub enum Buffer<'a> {
    /// Only read.
    Read(&'a Tensor),
    /// Written, and perhaps read.
    Write(&'a Tensor),
}
use Buffer::{Read, Write};

/// What has memory and runs kernels: Apple's GPU, or what plays one.
pub trait Launcher {
    /// See [`Operations::room`].
    ///
    /// # Errors
    /// Out of memory.
    fn room(&self, rows: usize, cols: usize) -> Result<Tensor>;

    /// See [`Operations::place`].
    ///
    /// # Errors
    /// Out of memory.
    fn place(&self, bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor>;

    /// See [`Operations::cache`].
    ///
    /// # Errors
    /// Out of memory.
    fn cache(&self, numbers: usize, dtype: DType) -> Result<Tensor>;

    /// See [`Operations::read`].
    ///
    /// # Errors
    /// That of any launch before.
    fn read(&self, x: &Tensor) -> Result<Vec<f32>> {
        x.flatten_all()?.to_vec1()
    }

    /// See [`Operations::memory`].
    fn memory(&self) -> (u64, u64);

    /// How many threadgroups there should be at least, so that every core has one.
    fn cores(&self) -> usize;

    /// Compiles a library, so that no step has to wait for it.
    ///
    /// # Errors
    /// What the compiler says.
    fn load(&self, library: Library) -> Result<()>;

    /// Runs a kernel, in the order of the launches.
    ///
    /// # Errors
    /// One that can't be compiled; the device's own.
    fn launch(&self, kernel: &Kernel<'_>, grid: [usize; 3], threads: usize) -> Result<()>;
}

/// A kernel, and what it is told.
#[derive(Debug, Clone, Copy)]
pub struct Kernel<'a> {
    /// Where it is.
    pub library: Library,
    /// What it is called.
    pub name: &'static str,
    /// Its buffers, from index 0 on.
    pub buffers: &'a [Buffer<'a>],
    /// The structure that comes after them.
    pub arguments: &'a [u8],
}

/// The operations by what a [`Launcher`] runs.
#[derive(Debug)]
pub struct Kernels<L>(L);

impl<L: Launcher> Kernels<L> {
    /// Operations that `launcher` runs.
    pub fn new(launcher: L) -> Self {
        Self(launcher)
    }

    fn run(
        &self,
        (library, name): (Library, &'static str),
        buffers: &[Buffer<'_>],
        arguments: &impl Pod,
        grid: [usize; 3],
        threads: usize,
    ) -> Result<()> {
        let arguments = bytemuck::bytes_of(arguments);
        self.0.launch(&Kernel { library, name, buffers, arguments }, grid, threads)
    }

    /// Runs a kernel with a thread for each of `n` numbers.
    fn each(
        &self,
        name: &'static str,
        buffers: &[Buffer<'_>],
        arguments: &impl Pod,
        n: usize,
    ) -> Result<()> {
        let kernel = (Library::Elementwise, name);
        self.run(kernel, buffers, arguments, [n.div_ceil(256), 1, 1], 256)
    }
}

/// How a segment is stored: its library, and scales, biases and log2 of the group; for numbers that stand for themselves
/// any buffers, which are not read.
fn stored(segment: &Segment) -> Result<(Library, [&Tensor; 2], u32)> {
    Ok(match &segment.groups {
        None => {
            let library = Library::Dense(Stored::of(segment.weights.dtype())?);
            (library, [&segment.weights; 2], 0)
        }
        Some(groups) => {
            let scales = Stored::of(groups.scales.dtype())?;
            let library = Library::Affine { bits: groups.bits, scales };
            (library, [&groups.scales, &groups.biases], groups.shift)
        }
    })
}

impl<L: Launcher> Operations for Kernels<L> {
    fn room(&self, rows: usize, cols: usize) -> Result<Tensor> {
        self.0.room(rows, cols)
    }

    fn place(&self, bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor> {
        self.0.place(bytes, dtype, shape)
    }

    fn cache(&self, numbers: usize, dtype: DType) -> Result<Tensor> {
        self.0.cache(numbers, dtype)
    }

    fn read(&self, x: &Tensor) -> Result<Vec<f32>> {
        self.0.read(x)
    }

    fn prepare(&self, part: Part<'_>) -> Result<()> {
        self.0.load(Library::Elementwise)?;
        self.0.load(Library::Sample)?;
        self.0.load(match part {
            Part::Segment(segment) => stored(segment)?.0,
            Part::Layer(layer) => attention::library(layer)?,
        })
    }

    fn memory(&self) -> (u64, u64) {
        self.0.memory()
    }

    fn rms_norm(&self, a: &Norm<'_>) -> Result<()> {
        let n = a.weight.elem_count();
        let waves = n.div_ceil(128).clamp(1, 8);
        let x = if a.add.is_some() { Write(a.x) } else { Read(a.x) };
        let buffers = [x, Read(a.add.unwrap_or(a.weight)), Read(a.weight), Write(a.h)];
        let add = u32::from(a.add.is_some());
        let arguments = arguments::Norm { n: n as u32, eps: a.eps, add, waves: waves as u32 };
        let grid = [a.x.elem_count() / n, 1, 1];
        self.run((Library::Elementwise, "rms_norm"), &buffers, &arguments, grid, 32 * waves)
    }

    fn gate(&self, y: &Tensor, x: &Tensor, activation: Activation) -> Result<()> {
        let (rows, n) = y.dims2()?;
        let activation = match activation {
            Activation::Silu => 1,
            Activation::GeluTanh => 2,
        };
        let arguments = arguments::Gate { rows: rows as u32, n: n as u32, activation };
        self.each("gate", &[Write(y), Read(x)], &arguments, rows * n)
    }

    fn add(&self, x: &Tensor, y: &Tensor) -> Result<()> {
        let n = x.elem_count();
        self.each("add", &[Write(x), Read(y)], &(n as u32), n)
    }

    fn softcap(&self, x: &Tensor, cap: f32) -> Result<()> {
        let n = x.elem_count();
        self.each("softcap", &[Write(x)], &arguments::Softcap { n: n as u32, cap }, n)
    }

    fn gather(&self, y: &Tensor, x: &Tensor, index: &Tensor, how: Gather) -> Result<()> {
        let (rows, cols) = y.dims2()?;
        let arguments = arguments::Gather { rows: rows as u32, cols: cols as u32, how: how as u32 };
        self.each("gather", &[Write(y), Read(x), Read(index)], &arguments, rows * cols)
    }

    fn product(&self, product: &Product<'_>) -> Result<()> {
        let Product { y, x, map, segment, epilogue } = *product;
        let (rows, cols) = x.dims2()?;
        let (library, [scales, biases], shift) = stored(segment)?;
        let n = product.outputs();
        let own = y.narrow(1, segment.first, n)?;
        let bias =
            map.bias.as_ref().map(|b| b.narrow(0, segment.first, segment.rows)).transpose()?;
        let buffers = [
            Write(&own),
            Read(x),
            Read(&segment.weights),
            Read(scales),
            Read(biases),
            Read(bias.as_ref().unwrap_or(x)),
        ];
        let arguments = arguments::Product {
            rows: rows as u32,
            cols: cols as u32,
            stride: map.stride as u32,
            n: n as u32,
            y_stride: y.dim(1)? as u32,
            mode: epilogue as u32,
            shift,
            has_bias: u32::from(bias.is_some()),
        };
        let gated = epilogue.activation().is_some();
        let blocks = |outputs: usize| n.div_ceil(if gated { outputs / 2 } else { outputs });
        if let Some((at_once, name)) = FEW.into_iter().find(|few| few.0 >= rows) {
            let grid = [blocks(GEMV), rows.div_ceil(at_once), 1];
            return self.run((library, name), &buffers, &arguments, grid, 64);
        }
        let is_large = rows > 32 && rows.div_ceil(64) * blocks(GEMM) >= self.0.cores();
        let (at_once, name) = if is_large { (64, "gemm_64") } else { (32, "gemm_32") };
        let grid = [rows.div_ceil(at_once), blocks(GEMM), 1];
        self.run((library, name), &buffers, &arguments, grid, 128)
    }

    fn embed(&self, y: &Tensor, table: &Segment, tokens: &Tensor, scale: f32) -> Result<()> {
        let (rows, cols) = y.dims2()?;
        let (library, [scales, biases], shift) = stored(table)?;
        let stride = cols.next_multiple_of(32) as u32;
        let buffers = [Write(y), Read(&table.weights), Read(scales), Read(biases), Read(tokens)];
        let arguments = arguments::Embed { cols: cols as u32, stride, shift, scale };
        self.run((library, "embed"), &buffers, &arguments, [rows, 1, 1], 256)
    }

    fn largest(&self, ids: &Tensor, values: &Tensor, x: &Tensor, columns: usize) -> Result<()> {
        let ((rows, k), stride) = (ids.dims2()?, x.dim(1)? as u32);
        let arguments = arguments::Largest { n: columns as u32, stride, k: k as u32 };
        let name = if k == 1 { "argmax" } else { "top_k" };
        let buffers = [Write(ids), Write(values), Read(x)];
        self.run((Library::Sample, name), &buffers, &arguments, [rows, 1, 1], 256)
    }

    fn append(&self, append: &Append<'_>) -> Result<()> {
        self.append_heads(append)
    }

    fn copy_blocks(&self, layer: &Layer, copies: &Tensor) -> Result<()> {
        self.copy(layer, copies)
    }

    fn attend(&self, attend: &Attend<'_>, rows: Range<usize>, splits: usize) -> Result<()> {
        self.attend_rows(attend, rows, splits)
    }

    fn flash(&self, attend: &Attend<'_>, tiles: &Tensor, count: usize) -> Result<()> {
        self.attend_tiles(attend, tiles, count)
    }
}
