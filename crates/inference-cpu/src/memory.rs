//! Memory for what is packed at load and for the cache: large pages, where the system has them.

use inference_core::{Error, Result};
use memmap2::MmapMut;
use std::{cell::RefCell, ptr::NonNull, sync::Arc};

/// Bytes of a large page.
const PAGE: usize = 2 << 20;

/// Bytes that a store asks for at a time.
const CHUNK: usize = 64 << 20;

/// Bytes of a line of the cache.
const LINE: usize = 64;

/// Some bytes that nobody else has; zeros at first. They begin on a line of the cache.
#[derive(Debug)]
pub(crate) struct Memory {
    start: NonNull<u8>,
    len: usize,
    /// What they are a part of.
    _chunk: Arc<MmapMut>,
}

// SAFETY: it is the only one that reads and writes its bytes, as a `Vec<u8>` is.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `len` bytes, from the begin of a large page on.
    ///
    /// # Errors
    /// [`Error::Device`] where the system has no more.
    pub(crate) fn new(len: usize) -> Result<Self> {
        let (chunk, start) = chunk(len)?;
        Ok(Self { start, len, _chunk: chunk })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `start` is the begin of `len` bytes of the chunk, which lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above; nobody else has these bytes.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

/// Where the memory of many matrices comes from: they lie one after the other, so that small ones are in large pages
/// too.
#[derive(Debug, Default)]
pub(crate) struct Store {
    free: RefCell<Option<Free>>,
}

/// What is left of a chunk.
#[derive(Debug)]
struct Free {
    chunk: Arc<MmapMut>,
    start: NonNull<u8>,
    len: usize,
}

impl Store {
    /// `len` bytes.
    ///
    /// # Errors
    /// [`Error::Device`] where the system has no more.
    pub(crate) fn take(&self, len: usize) -> Result<Memory> {
        if len > CHUNK / 2 {
            return Memory::new(len);
        }
        let taken = len.next_multiple_of(LINE);
        let mut free = self.free.borrow_mut();
        let Free { chunk, start, len: left } = match free.take() {
            Some(free) if free.len >= taken => free,
            _ => {
                let (chunk, start) = chunk(CHUNK)?;
                Free { chunk, start, len: CHUNK }
            }
        };
        // SAFETY: `taken` bytes are left of the chunk from `start` on.
        let next = unsafe { start.add(taken) };
        *free = Some(Free { chunk: chunk.clone(), start: next, len: left - taken });
        Ok(Memory { start, len, _chunk: chunk })
    }
}

/// A map of `len` bytes and a bit more, and where its first large page begins.
fn chunk(len: usize) -> Result<(Arc<MmapMut>, NonNull<u8>)> {
    let failed = |reason: String| Error::Device { reason };
    let whole =
        len.checked_add(PAGE).ok_or_else(|| failed(format!("no memory has {len} bytes")))?;
    let mut map =
        MmapMut::map_anon(whole).map_err(|e| failed(format!("no memory for {len} bytes: {e}")))?;
    advise(&map);
    let skipped = map.as_ptr().align_offset(PAGE).min(PAGE);
    let start = NonNull::from(&mut map[skipped..]).cast();
    Ok((Arc::new(map), start))
}

/// Asks for large pages. An error means only that there are none.
#[cfg(target_os = "linux")]
fn advise(map: &MmapMut) {
    let _ = map.advise(memmap2::Advice::HugePage);
}

#[cfg(not(target_os = "linux"))]
fn advise(_: &MmapMut) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_store_are_apart_and_zero() {
        let store = Store::default();
        let mut parts: Vec<_> = [0, 1, 100, CHUNK / 2, 3, CHUNK / 2, CHUNK / 2 + 1, CHUNK + 1, 5]
            .map(|len| (len, store.take(len).unwrap()))
            .into();
        for (i, (len, part)) in parts.iter_mut().enumerate() {
            assert_eq!(part.bytes().len(), *len);
            assert!(part.bytes().as_ptr().align_offset(LINE) == 0);
            assert!(part.bytes().iter().all(|b| *b == 0));
            part.bytes_mut().fill(i as u8);
        }
        drop(store);
        for (i, (_, part)) in parts.iter().enumerate() {
            assert!(part.bytes().iter().all(|b| *b == i as u8));
        }
    }
}
