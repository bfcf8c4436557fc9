//! The CPU as a device of the engine.

use crate::{
    attention::{self, Append, Cache, Call, Piece},
    elementwise::{Add, Gate, Norm, Softcap},
    linear::{Finish, Linear, Product, Scratch},
    machine,
    memory::Store,
    pool::{Disjoint, Pool},
    simd::Level,
    tensor::{Arena, Tensor},
};
use inference_core::{CacheDtype, Error, Result};
use inference_engine::{
    arch::{Activation, Attention, Layer},
    device::{Device, Heads, Memory},
    step::{BlockCopy, Rotation, Step},
    weights::Matrix,
};
use std::{cell::RefCell, ops::Range};

/// The CPU.
pub struct Cpu {
    level: Level,
    pool: Pool,
    arena: Arena,
    scratch: RefCell<Scratch>,
    exact: bool,
    attention: RefCell<attention::Scratch>,
    /// Where weights are packed.
    store: Store,
}

impl Cpu {
    /// A device of `threads` threads, with the best instructions that the machine has.
    ///
    /// # Errors
    /// [`Error::Device`] where the threads can't be started.
    pub fn new(threads: usize) -> Result<Self> {
        Self::with_level(threads, Level::best())
    }

    /// The same with a lower level of instructions, one of [`Level::available`].
    ///
    /// # Errors
    /// [`Error::Device`] where the threads can't be started, or the machine does not have the level.
    pub fn with_level(threads: usize, level: Level) -> Result<Self> {
        if !Level::available().contains(&level) {
            return Err(Error::Device { reason: format!("this machine does not have {level:?}") });
        }
        let failed = |e| Error::Device { reason: format!("no thread could be started: {e}") };
        let pool = Pool::new(threads).map_err(failed)?;
        Ok(Self {
            level,
            pool,
            arena: Arena::default(),
            scratch: RefCell::default(),
            exact: false,
            attention: RefCell::default(),
            store: Store::default(),
        })
    }

    /// The same device, which multiplies activations as they are if `exact`: they are rounded neither to 8 bits for
    /// quantised weights nor to bf16 for those of bf16, and in attention neither. It is slower.
    #[must_use]
    pub fn exact_activations(mut self, exact: bool) -> Self {
        self.exact = exact;
        self
    }

    /// How many rows of `cols` numbers are worth a thread's while.
    fn grain(cols: usize) -> usize {
        (GRAIN / cols.max(1)).max(1)
    }

    fn map_rows(&self, x: &mut Tensor, map: impl Fn(Range<usize>, &mut [f32]) + Sync) {
        let cols = x.cols;
        self.pool.rows(&mut x.data, cols, Self::grain(cols), map);
    }

    fn product(&self, x: &Tensor, map: &Linear, finish: Finish, y: &mut Tensor) {
        let product = Product {
            level: self.level,
            pool: &self.pool,
            arena: &self.arena,
            exact: self.exact,
            x: &x.data,
            map,
            finish,
        };
        product.run(&mut self.scratch.borrow_mut(), &mut y.data);
    }

    /// Some rows of `x`, in this order.
    fn gather(&self, x: &Tensor, rows: impl Iterator<Item = usize>) -> Tensor {
        let rows: Vec<_> = rows.collect();
        let mut y = self.arena.tensor(rows.len(), x.cols);
        for (to, row) in y.data.chunks_exact_mut(x.cols).zip(rows) {
            to.copy_from_slice(x.row(row));
        }
        y
    }
}

/// Numbers that an element-wise operation does in some microseconds: less is not worth waking a thread for.
const GRAIN: usize = 16 << 10;

/// A step and its rotations.
pub struct Started {
    step: Step,
    rotations: Vec<Rotation>,
    pieces: Vec<Piece>,
}

impl Device for Cpu {
    type Tensor = Tensor;
    type Linear = Linear;
    type Cache = Cache;
    type Step = Started;
    type Recorded = ();

    fn vector(&self, values: &[f32]) -> Result<Tensor> {
        let mut x = self.arena.tensor(1, values.len());
        x.data.copy_from_slice(values);
        Ok(x)
    }

    fn load_linear(&self, parts: &[Matrix], bias: Option<&[f32]>) -> Result<Linear> {
        Linear::new(&self.pool, &self.store, parts, bias)
    }

    fn is_shared(&self, map: &Linear) -> bool {
        map.is_shared()
    }

    fn block_len(&self) -> usize {
        attention::BLOCK
    }

    fn block_bytes(&self, layers: &[Attention], dtype: CacheDtype) -> u64 {
        Cache::block_bytes(layers, dtype)
    }

    fn stores(&self, dtype: CacheDtype) -> bool {
        Cache::stores(dtype)
    }

    fn cache(&self, layers: &[Attention], blocks: usize, dtype: CacheDtype) -> Result<Cache> {
        Cache::new(layers, blocks, dtype)
    }

    fn begin(&self, step: &Step, rotations: &[Rotation]) -> Result<Started> {
        let pieces = attention::pieces(step);
        Ok(Started { step: step.clone(), rotations: rotations.to_vec(), pieces })
    }

    fn read(&self, x: Tensor) -> Result<Vec<f32>> {
        Ok(x.into_data())
    }

    fn recycle(&self, numbers: Vec<f32>) {
        self.arena.keep(numbers);
    }

    fn memory(&self) -> Memory {
        machine::memory()
    }

    fn embed(&self, table: &Linear, scale: f32, step: &Started) -> Result<Tensor> {
        let tokens = &step.step.tokens;
        let mut y = self.arena.tensor(tokens.len(), table.cols());
        let (cols, level) = (y.cols, self.level);
        self.map_rows(&mut y, |rows, out| {
            for (token, out) in tokens[rows].iter().zip(out.chunks_exact_mut(cols)) {
                table.widen_row(level, *token as usize, scale, out);
            }
        });
        Ok(y)
    }

    fn linear(&self, x: &Tensor, map: &Linear) -> Result<Tensor> {
        let mut y = self.arena.tensor(x.rows(), map.rows());
        self.product(x, map, Finish::Store, &mut y);
        Ok(y)
    }

    fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
        let mut y = self.arena.tensor(x.rows(), x.cols);
        let (cols, level) = (x.cols, self.level);
        let (from, weight) = (&x.data, &weight.data);
        self.map_rows(&mut y, |rows, out| {
            let x = &from[rows.start * cols..rows.end * cols];
            level.run(Norm { x, weight, eps, out });
        });
        Ok(y)
    }

    fn append(
        &self,
        qkv: &Tensor,
        heads: &Heads<'_, Tensor>,
        cache: &mut Cache,
        layer: usize,
        step: &Started,
    ) -> Result<Tensor> {
        let mut q = self.arena.tensor(qkv.rows(), heads.attention.q_cols());
        let append = Append {
            qkv: &qkv.data,
            attention: heads.attention,
            norms: [heads.q_norm, heads.k_norm].map(|norm| norm.map(|t| &t.data[..])),
            eps: heads.eps,
            rotation: heads.rope.map(|rope| &step.rotations[rope]),
            step: &step.step,
            pieces: &step.pieces,
        };
        append.run(self.level, &self.pool, cache, layer, &mut q.data);
        Ok(q)
    }

    fn attend(
        &self,
        q: &Tensor,
        cache: &Cache,
        layer: usize,
        attention: &Attention,
        step: &Started,
    ) -> Result<Tensor> {
        let mut y = self.arena.tensor(q.rows(), q.cols);
        let call = Call { q: &q.data, attention, step: &step.step };
        let scratch = &mut self.attention.borrow_mut();
        let level = if self.exact { self.level.without_rounding() } else { self.level };
        call.run(level, &self.pool, scratch, cache, layer, &mut y.data);
        Ok(y)
    }

    fn copy_blocks(&self, cache: &mut Cache, layers: &[Layer], copies: &[BlockCopy]) -> Result<()> {
        cache.copy(&self.pool, layers, copies);
        Ok(())
    }

    fn gate(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        let n = x.cols / 2;
        let mut y = self.arena.tensor(x.rows(), n);
        let (from, level) = (&x.data, self.level);
        self.map_rows(&mut y, |rows, out| {
            for (row, out) in rows.zip(out.chunks_exact_mut(n)) {
                let (gate, up) = from[row * 2 * n..][..2 * n].split_at(n);
                out.copy_from_slice(gate);
                level.run(Gate { activation, gate: out, up });
            }
        });
        Ok(y)
    }

    fn add(&self, mut x: Tensor, y: &Tensor) -> Result<Tensor> {
        let (cols, level, y) = (x.cols, self.level, &y.data);
        self.map_rows(&mut x, |rows, x| {
            level.run(Add { x, y: &y[rows.start * cols..rows.end * cols] });
        });
        Ok(x)
    }

    fn softcap(&self, mut x: Tensor, cap: f32) -> Result<Tensor> {
        let level = self.level;
        self.pool.rows(&mut x.data, 1, GRAIN, |_, x| level.run(Softcap { x, cap }));
        Ok(x)
    }

    fn wanted_rows(&self, x: &Tensor, step: &Started) -> Result<Tensor> {
        Ok(self.gather(x, step.step.wanted_rows()))
    }

    fn add_norm(
        &self,
        mut x: Tensor,
        y: &Tensor,
        weight: &Tensor,
        eps: f32,
    ) -> Result<(Tensor, Tensor)> {
        let mut normed = self.arena.tensor(x.rows(), x.cols);
        let (cols, level) = (x.cols, self.level);
        let out = Disjoint::new(&mut normed.data);
        let (y, weight) = (&y.data, &weight.data);
        self.map_rows(&mut x, |rows, x| {
            let range = rows.start * cols..rows.end * cols;
            level.run(Add { x, y: &y[range.clone()] });
            // SAFETY: `map_rows` hands out every row once.
            let out = unsafe { out.slice(range) };
            level.run(Norm { x, weight, eps, out });
        });
        Ok((x, normed))
    }

    fn linear_gate(&self, x: &Tensor, map: &Linear, activation: Activation) -> Result<Tensor> {
        let mut y = self.arena.tensor(x.rows(), map.rows() / 2);
        self.product(x, map, Finish::Gate(activation), &mut y);
        Ok(y)
    }

    fn linear_add(&self, mut x: Tensor, h: &Tensor, map: &Linear) -> Result<Tensor> {
        self.product(h, map, Finish::Add, &mut x);
        Ok(x)
    }
}
