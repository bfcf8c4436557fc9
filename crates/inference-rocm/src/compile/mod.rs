//! From source to code objects: the disk's, or compiled here, or in a process of its own.
//!
//! A compiler that is asked for an architecture which it does not know does not refuse: it ends the process. So this
//! process compiles only what the version of HIP is known to know (the table in `arches.rs`); the rest is compiled by a second process of
//! the same program, if that program begins with [`compile_if_asked`], and else refused.
//! (A fork without exec would keep locks of other threads closed for ever, a second executable would have to be found and
//! installed, and the arguments of the host's program are not a library's to define.)

mod arches;
mod child;

pub use child::compile_if_asked;

use crate::{
    NAME,
    hip::{DeviceInfo, Hip, rtc},
};
use inference_gpu::code_cache::{CodeCache, CodeKey, identity, open_libraries};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// Where compiled kernels are kept; empty: nowhere.
pub(crate) const CACHE_DIR: &str = "INFERENCE_ROCM_CACHE_DIR";

/// Options that hiprtc adds to every compilation; what they say is part of what a code object is of.
const APPENDED: [&str; 2] = ["HIPRTC_COMPILE_OPTIONS_APPEND", "HIPRTC_LINK_OPTIONS_APPEND"];

/// Changes when what is compiled changes without its source: options, the form of entries.
const REVISION: &str = "inference-rocm 1";

/// Why there is no code object.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The compiler says why.
    #[error(transparent)]
    Refused(#[from] rtc::CompileError),
    /// The compiler may not know the architecture, and must not be asked in this process.
    #[error(
        "HIP {version} may not know {arch}{}, and asking could end this process: install a newer ROCm",
        since(.oldest)
    )]
    UnknownArchitecture {
        /// The device's.
        arch: String,
        /// The version of HIP that is installed.
        version: String,
        /// The first version that knows it, if that is known.
        oldest: Option<(u32, u32)>,
    },
    /// The process that was to compile ended without a result.
    #[error(
        "the compiler of HIP {version} died on {arch} ({how}): it does not know this GPU; install a newer ROCm"
    )]
    Died {
        /// The device's.
        arch: String,
        /// The version of HIP that is installed.
        version: String,
        /// Its signal or status, and its last words.
        how: String,
    },
    /// The other process could not be started or spoken to.
    #[error("compiling in another process: {0}")]
    Process(String),
}

fn since(oldest: &Option<(u32, u32)>) -> String {
    oldest.map_or(String::new(), |(major, minor)| format!(", which came with {major}.{minor}"))
}

impl From<CompileError> for inference_core::Error {
    fn from(error: CompileError) -> Self {
        Self::Device { reason: format!("kernels can't be compiled: {error}") }
    }
}

/// Compiles for one device, and remembers on disk.
#[derive(Debug)]
pub struct Compiler {
    hip: &'static Hip,
    /// Without settings.
    arch: String,
    /// What is the same for all code objects of this device: options, versions.
    base: CodeKey,
    options: Vec<String>,
    cache: Option<CodeCache>,
    patience: Duration,
}

impl Compiler {
    /// For `device`, with the cache of this user.
    pub fn new(hip: &'static Hip, device: &DeviceInfo) -> Self {
        Self::with_cache(hip, device, CodeCache::of_this_user(CACHE_DIR, NAME))
    }

    /// For `device`, with a cache in `folder`, or none.
    pub fn with_cache_in(hip: &'static Hip, device: &DeviceInfo, folder: Option<&Path>) -> Self {
        Self::with_cache(hip, device, folder.map(CodeCache::new))
    }

    /// How long another process may take for a module, instead of two minutes.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    fn with_cache(hip: &'static Hip, device: &DeviceInfo, cache: Option<CodeCache>) -> Self {
        let arch = device.arch().to_owned();
        let mut options = vec![
            // The name without settings: such code runs whatever they are.
            format!("--offload-arch={arch}"),
            "-std=c++17".to_owned(),
            "-O3".to_owned(),
            "-ffp-contract=fast".to_owned(),
            format!("-DWAVE={}", device.wave),
        ];
        if device.is_rdna() {
            // A block stays on one compute unit: its barriers are cheaper, and shared memory is the unit's.
            options.push("-mcumode".to_owned());
        }
        let mut base = CodeKey::default();
        for part in
            [REVISION, &device.target, &hip.version.to_string(), &identity(&hip.compiler_path)]
        {
            base.add(part);
        }
        let comgr: Vec<String> = comgr(&hip.path).iter().map(|path| identity(path)).collect();
        base.add(&comgr.join("\n"));
        for name in APPENDED {
            base.add(&std::env::var(name).unwrap_or_default());
        }
        options.iter().for_each(|option| base.add(option));
        Self { hip, arch, base, options, cache, patience: child::PATIENCE }
    }

    /// The code object of `source` with `defines`, from the cache if it is there and `fits`.
    ///
    /// # Errors
    /// The compiler's, or why it was not asked. That the cache can't be written is logged.
    pub fn compile(
        &self,
        source: &str,
        defines: &[String],
        fits: impl Fn(&[u8]) -> bool,
    ) -> Result<Vec<u8>, CompileError> {
        let mut key = self.base.clone();
        defines.iter().for_each(|define| key.add(define));
        key.add(source);
        CodeCache::get(self.cache.as_ref(), &key, fits, || {
            let options: Vec<String> = self.options.iter().chain(defines).cloned().collect();
            self.ask(source, &options)
        })
    }

    fn ask(&self, source: &str, options: &[String]) -> Result<Vec<u8>, CompileError> {
        if let Some(objection) = objection_to(self.hip, &self.arch) {
            return Err(objection);
        }
        if arches::is_known(&self.arch, self.hip.version) {
            return Ok(rtc::compile(self.hip, source, options)?);
        }
        child::compile(self.hip, &self.arch, source, options, self.patience)
    }
}

/// Why nothing can be compiled for `device`, if that is known without trying.
pub(crate) fn objection(hip: &Hip, device: &DeviceInfo) -> Option<CompileError> {
    objection_to(hip, device.arch())
}

fn objection_to(hip: &Hip, arch: &str) -> Option<CompileError> {
    if let Err(reason) = &hip.compiler {
        return Some(rtc::CompileError::NoCompiler(reason.clone()).into());
    }
    let is_fine = arches::is_known(arch, hip.version) || child::is_possible();
    (!is_fine).then(|| CompileError::UnknownArchitecture {
        arch: arch.to_owned(),
        version: hip.version.to_string(),
        oldest: arches::oldest(arch),
    })
}

/// The files of `libamd_comgr`, which holds the compiler that hiprtc asks: those that this process has open, else those
/// beside the runtime.
fn comgr(runtime: &Path) -> Vec<PathBuf> {
    const START: &str = "libamd_comgr";
    let open = open_libraries(START);
    if !open.is_empty() {
        return open;
    }
    let entries = runtime.parent().and_then(|folder| fs::read_dir(folder).ok());
    let beside = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(START));
    let mut files: Vec<PathBuf> =
        beside.filter_map(|entry| entry.path().canonicalize().ok()).collect();
    files.sort();
    files.dedup();
    files
}
