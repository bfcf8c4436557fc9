//! A device over a driver: its memory, its kernels, and its tensors.

use crate::{
    arena::{Arena, Piece},
    driver::Driver,
    launch::{Arg, Kernels},
    source::Module,
};
use inference_core::{Error, Result};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

/// Bytes of a buffer for parameters, at least: norms and biases are small and many.
const PARAMETERS: usize = 4 << 20;

/// Bytes of a buffer for activations, at least.
const ACTIVATIONS: usize = 32 << 20;

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
    /// Bytes of matrices and caches.
    pub(crate) held: Rc<Cell<u64>>,
    /// Most bytes that a token's widest activations took in any matrix that was loaded.
    pub(crate) widest: Cell<usize>,
    /// Counts blocks that have ended, for attention: all 0 between launches.
    pub(crate) counters: RefCell<Option<Piece<D>>>,
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
            driver,
            step_rows,
            held: Rc::default(),
            widest: Cell::new(0),
            counters: RefCell::new(None),
        })
    }

    /// What it runs on.
    pub fn driver(&self) -> &D {
        &self.driver
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
