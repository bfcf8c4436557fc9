//! Device memory that is given out again and again, so that steps allocate nothing.

use crate::driver::Driver;
use inference_core::Result;
use std::{cell::RefCell, fmt, rc::Rc};

/// Bytes that pieces are rounded up to, and aligned to.
const ALIGNMENT: usize = 256;

/// Large buffers of the driver's, from which pieces are lent.
///
/// A piece that comes back may be lent at once: the stream is in order, so whoever gets it writes after the last reader.
pub(crate) struct Arena<D: Driver> {
    driver: Rc<D>,
    /// Bytes of a buffer, at least.
    slab: usize,
    slabs: RefCell<Vec<Slab<D>>>,
}

struct Slab<D: Driver> {
    buffer: D::Buffer,
    bytes: usize,
    /// Free ranges `(at, bytes)`, in order, none beside another.
    free: Vec<(usize, usize)>,
}

/// A part of an [`Arena`], until it is dropped.
pub(crate) struct Piece<D: Driver> {
    arena: Rc<Arena<D>>,
    slab: usize,
    at: usize,
    bytes: usize,
}

impl<D: Driver> Arena<D> {
    pub(crate) fn new(driver: Rc<D>, slab: usize) -> Rc<Self> {
        Rc::new(Self { driver, slab, slabs: RefCell::default() })
    }

    /// Bytes of all its buffers.
    pub(crate) fn held(&self) -> u64 {
        self.slabs.borrow().iter().map(|s| s.bytes as u64).sum()
    }

    /// Makes sure that `bytes` in one piece are there.
    pub(crate) fn reserve(self: &Rc<Self>, bytes: usize) -> Result<()> {
        self.lend(bytes).map(drop)
    }

    /// A piece of at least `bytes` bytes, with anything in it.
    pub(crate) fn lend(self: &Rc<Self>, bytes: usize) -> Result<Piece<D>> {
        let bytes = bytes.max(1).next_multiple_of(ALIGNMENT);
        let mut slabs = self.slabs.borrow_mut();
        let found = slabs.iter_mut().enumerate().find_map(|(i, s)| Some((i, s.take(bytes)?)));
        let (slab, at) = match found {
            Some(found) => found,
            None => {
                let size = bytes.max(self.slab);
                let buffer = self.driver.alloc(size)?;
                slabs.push(Slab { buffer, bytes: size, free: vec![(bytes, size - bytes)] });
                (slabs.len() - 1, 0)
            }
        };
        Ok(Piece { arena: self.clone(), slab, at, bytes })
    }
}

impl<D: Driver> Slab<D> {
    /// Where the first free range of so many bytes begins.
    fn take(&mut self, bytes: usize) -> Option<usize> {
        let range = self.free.iter_mut().find(|(_, free)| *free >= bytes)?;
        let at = range.0;
        *range = (at + bytes, range.1 - bytes);
        self.free.retain(|(_, free)| *free > 0);
        Some(at)
    }

    fn give_back(&mut self, at: usize, bytes: usize) {
        let next = self.free.partition_point(|(start, _)| *start < at);
        self.free.insert(next, (at, bytes));
        if let Some((start, more)) = self.free.get(next + 1).copied()
            && at + bytes == start
        {
            self.free[next].1 += more;
            self.free.remove(next + 1);
        }
        if next > 0 && self.free[next - 1].0 + self.free[next - 1].1 == at {
            self.free[next - 1].1 += self.free[next].1;
            self.free.remove(next);
        }
    }
}

impl<D: Driver> Piece<D> {
    /// Where kernels find it.
    pub(crate) fn address(&self) -> u64 {
        let slabs = self.arena.slabs.borrow();
        self.arena.driver.address(&slabs[self.slab].buffer) + self.at as u64
    }

    /// Copies `bytes` to its byte `at`.
    pub(crate) fn upload(&self, at: usize, bytes: &[u8]) -> Result<()> {
        crate::driver::check_range(self.bytes, at, bytes.len())?;
        let slabs = self.arena.slabs.borrow();
        self.arena.driver.upload(&slabs[self.slab].buffer, self.at + at, bytes)
    }

    /// Brings bytes from its byte `at` on.
    pub(crate) fn download(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
        crate::driver::check_range(self.bytes, at, bytes.len())?;
        let slabs = self.arena.slabs.borrow();
        self.arena.driver.download(&slabs[self.slab].buffer, self.at + at, bytes)
    }

    /// Its bytes, at least those that were asked for.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl<D: Driver> Drop for Piece<D> {
    fn drop(&mut self) {
        self.arena.slabs.borrow_mut()[self.slab].give_back(self.at, self.bytes);
    }
}

impl<D: Driver> fmt::Debug for Piece<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Piece").field("at", &self.at).field("bytes", &self.bytes).finish()
    }
}
