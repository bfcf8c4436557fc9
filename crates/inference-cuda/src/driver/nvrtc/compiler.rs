//! From source to code: the disk's, or NVRTC's.

use super::{Nvrtc, NvrtcError, options};
use inference_gpu::code_cache::{CodeCache, CodeKey};
use std::path::Path;

/// Where compiled kernels are kept; empty: nowhere.
pub(crate) const CACHE_DIR: &str = "INFERENCE_CUDA_CACHE_DIR";

/// Changes when what is compiled changes without its source: options, the form of entries.
const REVISION: &str = "inference-cuda 1";

/// Compiles for one kind of device, and remembers on disk.
#[derive(Debug)]
pub struct Compiler {
    nvrtc: &'static Nvrtc,
    /// As [`Nvrtc::arch_for`] names it.
    arch: String,
    /// What is the same for all code of this compiler and device.
    base: CodeKey,
    cache: Option<CodeCache>,
}

impl Compiler {
    /// For compute capability `arch` (90 is 9.0), with the cache of this user.
    ///
    /// # Errors
    /// A device that is too old for `nvrtc`.
    pub fn new(nvrtc: &'static Nvrtc, arch: u32) -> Result<Self, NvrtcError> {
        Self::with_cache(nvrtc, arch, CodeCache::of_this_user(CACHE_DIR, crate::NAME))
    }

    /// The same with a cache in `folder`, or none.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_cache_in(
        nvrtc: &'static Nvrtc,
        arch: u32,
        folder: Option<&Path>,
    ) -> Result<Self, NvrtcError> {
        Self::with_cache(nvrtc, arch, folder.map(CodeCache::new))
    }

    fn with_cache(
        nvrtc: &'static Nvrtc,
        arch: u32,
        cache: Option<CodeCache>,
    ) -> Result<Self, NvrtcError> {
        let arch = nvrtc.arch_for(arch)?;
        let mut base = CodeKey::default();
        base.add(REVISION);
        base.add(&nvrtc.identity());
        Ok(Self { nvrtc, arch, base, cache })
    }

    /// The code of `source` with `defines`, from the cache if it is there and `fits`: a cubin, or PTX and a zero.
    ///
    /// # Errors
    /// The compiler's messages.
    pub fn compile(
        &self,
        source: &str,
        defines: &[String],
        fits: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, NvrtcError> {
        let options = options(&self.arch, defines);
        let mut key = self.base.clone();
        options.iter().for_each(|option| key.add(option));
        key.add(source);
        CodeCache::get(self.cache.as_ref(), &key, fits, || self.nvrtc.compile(source, &options))
    }
}
