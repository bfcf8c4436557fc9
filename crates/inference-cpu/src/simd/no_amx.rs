//! What stands for AMX on processors that can't have it: nothing can be configured.

/// Rows of a tile, at most.
pub(crate) const ROWS: usize = 16;

/// Bytes of a tile's row, at most.
pub(crate) const ROW_BYTES: usize = 64;

/// The shape of one tile: its rows, and the bytes of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// At most [`ROWS`].
    pub(crate) rows: usize,
    /// At most [`ROW_BYTES`], a multiple of 4.
    pub(crate) bytes: usize,
}

/// There are none. A field that can't be made, and no empty enum: what follows `configure` would be unreachable.
pub(crate) struct Tiles(std::convert::Infallible);

impl Tiles {
    /// # Safety
    /// Nobody can keep the promise that AMX is available.
    ///
    /// # Panics
    /// Always.
    pub(crate) unsafe fn configure(_: [Shape; 8]) -> Self {
        panic!("this processor has no AMX")
    }

    #[inline(always)]
    pub(crate) fn zero<const T: u8>(&self) {
        match self.0 {}
    }

    /// # Safety
    /// It can't be called.
    #[inline(always)]
    pub(crate) unsafe fn load<const T: u8>(&self, _: *const u8, _: usize) {
        match self.0 {}
    }

    /// # Safety
    /// It can't be called.
    #[inline(always)]
    pub(crate) unsafe fn store<const T: u8>(&self, _: *mut u8, _: usize) {
        match self.0 {}
    }
}

/// Writes products of two tiles.
macro_rules! products {
    ($($name:ident)*) => {
        impl Tiles {
            $(
                #[inline(always)]
                pub(crate) fn $name<const C: u8, const A: u8, const B: u8>(&self) {
                    match self.0 {}
                }
            )*
        }
    };
}

products!(dot_bf16 dot_i8_i8 dot_i8_u8 dot_u8_i8 dot_u8_u8);
