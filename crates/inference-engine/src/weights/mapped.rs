//! Files as memory: the only `unsafe` of the engine.

use bytes::Bytes;
use inference_core::{Error, Result};
use memmap2::Mmap;
use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};

/// A file's bytes, read when they are touched.
#[derive(Debug, Clone)]
pub(crate) struct Mapped {
    map: Arc<Mmap>,
    bytes: Bytes,
}

struct Owner(Arc<Mmap>);

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Mapped {
    /// Maps a file.
    ///
    /// # Errors
    /// [`Error::Io`] if it can't be opened or mapped; [`Error::InvalidFile`] if it is a folder, a pipe or the like.
    #[expect(unsafe_code, reason = "a memory map can't be had without")]
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Before it is opened: a pipe would be waited for.
        let kind = fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if !kind.is_file() {
            return Err(Error::file(path, "not a regular file"));
        }
        let file = File::open(path).map_err(|e| Error::io(path, e))?;
        // SAFETY: the map is only read, and through byte slices, of which every content is valid. What Rust can't promise
        // is that nobody changes the file meanwhile: who loads a model upholds that, as with every loader that maps
        // weights. Shortening the file in place would end the process with SIGBUS; replacing it (a rename) is harmless.
        let map = Arc::new(unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?);
        let bytes = Bytes::from_owner(Owner(map.clone()));
        Ok(Self { map, bytes })
    }

    /// The whole file. Slices share the mapping, which ends with the last of them.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Lets the memory behind `part`, a slice of [`bytes`](Self::bytes), go. Who touches it again reads the file again.
    pub(crate) fn release(&self, part: &Bytes) {
        let offset = (part.as_ptr() as usize).wrapping_sub(self.map.as_ptr() as usize);
        if part.is_empty() || offset.checked_add(part.len()).is_none_or(|end| end > self.map.len())
        {
            return;
        }
        self.dont_need(offset, part.len());
    }

    #[cfg(unix)]
    #[expect(unsafe_code, reason = "the advice is dangerous for other kinds of maps")]
    fn dont_need(&self, offset: usize, len: usize) {
        // SAFETY: the range is inside the map, which is of a file and never written: what is dropped is read again.
        // An error means only that the memory stays.
        let _ = unsafe {
            self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, offset, len)
        };
    }

    #[cfg(not(unix))]
    fn dont_need(&self, _: usize, _: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_released_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        fs::write(&path, &content).unwrap();
        let mapped = Mapped::open(&path).unwrap();
        for range in [0..100_000, 5000..9000, 99_999..100_000, 7..7] {
            mapped.release(&mapped.bytes().slice(range));
            assert!(mapped.bytes()[..] == content);
        }
        mapped.release(&Bytes::from(vec![1; 10]));
    }
}
