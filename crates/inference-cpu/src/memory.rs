//! Memory for what is packed at load: whole pages, large ones where the system has them.

use inference_core::{Error, Result};
use memmap2::MmapMut;

/// Zeros at first; begins on a page.
#[derive(Debug)]
pub(crate) struct Memory(MmapMut);

impl Memory {
    /// `len` bytes.
    ///
    /// # Errors
    /// [`Error::Device`] where the system has no more.
    pub(crate) fn new(len: usize) -> Result<Self> {
        let failed = |e| Error::Device { reason: format!("no memory for {len} bytes: {e}") };
        // A map of nothing is an error.
        let map = MmapMut::map_anon(len.max(1)).map_err(failed)?;
        advise(&map);
        Ok(Self(map))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

/// Asks for large pages. An error means only that there are none.
#[cfg(target_os = "linux")]
fn advise(map: &MmapMut) {
    if std::env::var_os("NOHUGE").is_none() {
    let _ = map.advise(memmap2::Advice::HugePage);
    }
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &MmapMut) {}
