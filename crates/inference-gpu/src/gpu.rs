//! A device over a driver: its memory, its kernels, and its tensors.

use crate::{
    arena::{Arena, Piece},
    attention::{WIDEST, width},
    driver::Driver,
    launch::{Arg, Kernels, MOST_IN_Y},
    load::Held,
    source::Module,
};
use inference_core::{Error, Result};
use inference_engine::arch::{Architecture, Layer};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

/// Bytes of a buffer for parameters, at least: norms and biases are small and many.
const PARAMETERS: usize = 4 << 20;

/// Bytes of a buffer for activations, at least.
const ACTIVATIONS: usize = 8 << 20;

/// What is compiled before it is known which matrices there are.
const OF_EVERY_MODEL: [Module; 5] =
    [Module::Elementwise, Module::Embed, Module::Attend, Module::Flash, Module::Largest];

/// A GPU, or what plays one, as a [`Device`](inference_engine::device::Device).
pub struct Gpu<D: Driver> {
    pub(crate) driver: Rc<D>,
    pub(crate) kernels: Kernels<D>,
    pub(crate) parameters: Rc<Arena<D>>,
    pub(crate) activations: Rc<Arena<D>>,
    /// Most rows of a step.
    pub(crate) step_rows: usize,
    /// Memory of matrices and caches.
    pub(crate) held: Rc<Held>,
    /// Most bytes that a token's widest activations took in any matrix that was loaded.
    pub(crate) widest: Cell<usize>,
    /// Counts blocks that have ended, for attention: all 0 between launches.
    pub(crate) counters: RefCell<Option<Piece<D>>>,
    /// Whether steps are recorded; not where that is impossible or has gone wrong.
    pub(crate) records: Cell<bool>,
    pub(crate) replays: Cell<usize>,
}

/// A matrix of activations, or a vector of parameters, f32 and row-major. Its memory goes back when it is dropped.
#[derive(Debug)]
pub struct Tensor<D: Driver> {
    pub(crate) piece: Piece<D>,
    pub(crate) rows: usize,
    pub(crate) cols: usize,
}

impl<D: Driver> Tensor<D> {
    /// Where kernels find it.
    pub(crate) fn address(&self) -> u64 {
        self.piece.address()
    }

    /// How many numbers it has.
    pub(crate) fn len(&self) -> usize {
        self.rows * self.cols
    }
}

impl<D: Driver> Gpu<D> {
    /// A device on `driver`, whose steps have at most `step_rows` rows, prompt tokens and decoding sequences
    /// together: for so many is memory set aside when a model
    /// has been loaded. Compiles what every model needs.
    ///
    /// # Errors
    /// A kernel that can't be compiled; the driver's own.
    pub fn new(driver: D, step_rows: usize) -> Result<Self> {
        let driver = Rc::new(driver);
        let kernels = Kernels::new(driver.clone());
        for module in OF_EVERY_MODEL {
            kernels.load(module)?;
        }
        Ok(Self {
            kernels,
            parameters: Arena::new(driver.clone(), PARAMETERS),
            activations: Arena::new(driver.clone(), ACTIVATIONS),
            records: Cell::new(!driver.keeps_apart()),
            driver,
            step_rows,
            held: Rc::default(),
            widest: Cell::new(0),
            counters: RefCell::new(None),
            replays: Cell::new(0),
        })
    }

    /// What it runs on.
    pub fn driver(&self) -> &D {
        &self.driver
    }

    /// What of an architecture is too large for the kernels, in words.
    pub(crate) fn too_large(&self, architecture: &Architecture) -> Option<String> {
        for Layer { attention, ffn, .. } in &architecture.layers {
            let (dim, heads) = (attention.head_dim, attention.heads);
            if width(attention) > WIDEST {
                return Some(format!("heads of {dim} columns (at most {WIDEST})"));
            }
            if heads > MOST_IN_Y {
                return Some(format!("{heads} heads (at most {MOST_IN_Y})"));
            }
            let widest = attention.q_cols() + 2 * attention.kv_cols();
            let widest = widest.max(2 * ffn).max(architecture.vocab).max(architecture.hidden);
            if widest > i32::MAX as usize / self.step_rows.max(1) {
                let rows = self.step_rows;
                return Some(format!("{widest} activations of a token, in steps of {rows} tokens"));
            }
        }
        None
    }

    /// Room for `[rows, cols]` activations.
    pub(crate) fn tensor(&self, rows: usize, cols: usize) -> Result<Tensor<D>> {
        if rows.checked_mul(cols).is_none_or(|n| n > i32::MAX as usize) {
            let reason = format!("activations [{rows}, {cols}]; run fewer tokens in a step");
            return Err(Error::Device { reason });
        }
        Ok(Tensor { piece: self.activations.lend(rows * cols * 4)?, rows, cols })
    }

    /// Runs a kernel with a thread for each of `n` numbers.
    pub(crate) fn each(&self, module: Module, name: &str, n: usize, args: &[Arg]) -> Result<()> {
        match n {
            0 => Ok(()),
            n => self.kernels.run(module, name, [n.div_ceil(256), 1, 1], 256, args),
        }
    }

    /// As many zeros as `n` counters take.
    pub(crate) fn zeros(&self, n: usize) -> Result<Piece<D>> {
        let piece = self.parameters.lend(n * 4)?;
        piece.upload(0, &vec![0; n * 4])?;
        Ok(piece)
    }
}

/// The arguments of a kernel.
macro_rules! list {
    ($($value:expr),* $(,)?) => { &[$($crate::launch::Arg::from($value)),*] };
}
pub(crate) use list;
