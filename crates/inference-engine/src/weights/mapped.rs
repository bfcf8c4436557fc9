//! Files as memory: the only `unsafe` of the engine.

use bytes::Bytes;
use inference_core::{Error, Result};
use memmap2::Mmap;
use std::{
    fs::{self, File},
    path::Path,
};

/// The file's bytes, read when they are touched. Slices share the mapping, which ends with the last of them.
///
/// # Errors
/// [`Error::Io`] if it can't be opened or mapped; [`Error::InvalidFile`] if it is a folder, a pipe or the like.
#[expect(unsafe_code, reason = "a memory map can't be had without")]
pub(super) fn map(path: &Path) -> Result<Bytes> {
    // Before it is opened: a pipe would be waited for.
    let kind = fs::metadata(path).map_err(|e| Error::io(path, e))?;
    if !kind.is_file() {
        return Err(Error::file(path, "not a regular file"));
    }
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    // SAFETY: the map is only read, and through byte slices, of which every content is valid. What Rust can't promise is
    // that nobody changes the file meanwhile: who loads a model upholds that, as with every loader that maps weights.
    // Shortening the file in place would end the process with SIGBUS; replacing it (a rename) is harmless.
    let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io(path, e))?;
    Ok(Bytes::from_owner(map))
}
