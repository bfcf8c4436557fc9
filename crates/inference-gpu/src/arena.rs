//! Device memory that is given out again and again, so that steps allocate nothing.

use crate::driver::{Driver, check_range};
use inference_core::Result;
use std::{
    cell::{Cell, RefCell},
    fmt,
    rc::Rc,
};

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
    lent: Cell<usize>,
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
    place: Place,
    /// Its own memory, for a driver that keeps pieces apart.
    own: Option<D::Buffer>,
}

/// Where a piece is in its arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    slab: usize,
    at: usize,
    bytes: usize,
}

impl<D: Driver> Arena<D> {
    pub(crate) fn new(driver: Rc<D>, slab: usize) -> Rc<Self> {
        Rc::new(Self { driver, slab, slabs: RefCell::default(), lent: Cell::new(0) })
    }

    /// Bytes of all its buffers.
    pub(crate) fn held(&self) -> u64 {
        self.slabs.borrow().iter().map(|s| s.bytes as u64).sum()
    }

    /// How many pieces are lent.
    pub(crate) fn lent(&self) -> usize {
        self.lent.get()
    }

    /// Makes sure that `bytes` in one piece are there.
    pub(crate) fn reserve(self: &Rc<Self>, bytes: usize) -> Result<()> {
        if self.driver.keeps_apart() {
            return Ok(());
        }
        self.lend(bytes).map(drop)
    }

    /// A piece of at least `bytes` bytes, with anything in it.
    pub(crate) fn lend(self: &Rc<Self>, bytes: usize) -> Result<Piece<D>> {
        if self.driver.keeps_apart() {
            let own = Some(self.driver.alloc(bytes.max(1))?);
            return Ok(self.piece(Place { slab: 0, at: 0, bytes }, own));
        }
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
        Ok(self.piece(Place { slab, at, bytes }, None))
    }

    /// The piece that was at this place, if nobody has any of it.
    pub(crate) fn lend_at(self: &Rc<Self>, place: Place) -> Option<Piece<D>> {
        self.slabs.borrow_mut().get_mut(place.slab)?.take_at(place.at, place.bytes)?;
        Some(self.piece(place, None))
    }

    fn piece(self: &Rc<Self>, place: Place, own: Option<D::Buffer>) -> Piece<D> {
        self.lent.set(self.lent.get() + 1);
        Piece { arena: self.clone(), place, own }
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

    /// Takes these bytes, if they are free.
    fn take_at(&mut self, at: usize, bytes: usize) -> Option<()> {
        let holds = |(start, free): &(usize, usize)| *start <= at && at + bytes <= start + free;
        let i = self.free.iter().position(holds)?;
        let (start, free) = self.free[i];
        let (before, after) = ((start, at - start), (at + bytes, start + free - at - bytes));
        self.free.splice(i..=i, [before, after]);
        self.free.retain(|(_, free)| *free > 0);
        Some(())
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
    /// What `f` makes of its buffer, and of where in it the piece begins.
    fn in_buffer<T>(&self, f: impl FnOnce(&D, &D::Buffer, usize) -> T) -> T {
        match &self.own {
            Some(buffer) => f(&self.arena.driver, buffer, 0),
            None => {
                let slabs = self.arena.slabs.borrow();
                f(&self.arena.driver, &slabs[self.place.slab].buffer, self.place.at)
            }
        }
    }

    /// Where kernels find it.
    pub(crate) fn address(&self) -> u64 {
        self.in_buffer(|driver, buffer, start| driver.address(buffer) + start as u64)
    }

    /// Copies `bytes` to its byte `at`.
    pub(crate) fn upload(&self, at: usize, bytes: &[u8]) -> Result<()> {
        check_range(self.place.bytes, at, bytes.len())?;
        self.in_buffer(|driver, buffer, start| driver.upload(buffer, start + at, bytes))
    }

    /// Brings bytes from its byte `at` on.
    pub(crate) fn download(&self, at: usize, bytes: &mut [u8]) -> Result<()> {
        check_range(self.place.bytes, at, bytes.len())?;
        self.in_buffer(|driver, buffer, start| driver.download(buffer, start + at, bytes))
    }

    /// Its bytes, at least those that were asked for.
    pub(crate) fn bytes(&self) -> usize {
        self.place.bytes
    }

    /// Where it is.
    pub(crate) fn place(&self) -> Place {
        self.place
    }
}

impl<D: Driver> Drop for Piece<D> {
    fn drop(&mut self) {
        let Place { slab, at, bytes } = self.place;
        if self.own.is_none() {
            self.arena.slabs.borrow_mut()[slab].give_back(at, bytes);
        }
        self.arena.lent.set(self.arena.lent.get() - 1);
    }
}

impl<D: Driver> fmt::Debug for Piece<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Piece").field(&self.place).finish()
    }
}
