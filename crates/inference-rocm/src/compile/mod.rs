//! From source to code objects: the disk's, or compiled here, or in a process of its own.
//!
//! A compiler that is asked for an architecture which it does not know does not refuse: it ends the process. So this
//! process compiles only what the version of HIP is known to know (the table in `arches.rs`); the rest is compiled by a second process of
//! the same program, if that program begins with [`compile_if_asked`], and else refused.
//! (A fork without exec would keep locks of other threads closed for ever, a second executable would have to be found and
//! installed, and the arguments of the host's program are not a library's to define.)

mod arches;
mod cache;
mod child;

pub use child::compile_if_asked;

use crate::hip::{DeviceInfo, Hip, rtc};
use cache::Cache;
use sha2::{Digest as _, Sha256};
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

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
    base: Sha256,
    options: Vec<String>,
    cache: Option<Cache>,
}

impl Compiler {
    /// For `device`, with the cache of this user.
    pub fn new(hip: &'static Hip, device: &DeviceInfo) -> Self {
        Self::with_cache(hip, device, Cache::of_this_user())
    }

    /// For `device`, with a cache in `folder`, or none.
    pub fn with_cache_in(hip: &'static Hip, device: &DeviceInfo, folder: Option<&Path>) -> Self {
        Self::with_cache(hip, device, folder.map(Cache::new))
    }

    fn with_cache(hip: &'static Hip, device: &DeviceInfo, cache: Option<Cache>) -> Self {
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
        let mut base = Sha256::new();
        for part in
            [REVISION, &device.target, &hip.version.to_string(), &identity(&hip.compiler_path)]
        {
            add(&mut base, part);
        }
        let comgr: Vec<String> = comgr(&hip.path).iter().map(|path| identity(path)).collect();
        add(&mut base, &comgr.join("\n"));
        for name in APPENDED {
            add(&mut base, &std::env::var(name).unwrap_or_default());
        }
        options.iter().for_each(|option| add(&mut base, option));
        Self { hip, arch, base, options, cache }
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
        defines.iter().for_each(|define| add(&mut key, define));
        add(&mut key, source);
        let key: String = key.finalize().iter().map(|byte| format!("{byte:02x}")).collect();

        if let Some(code) =
            self.cache.as_ref().and_then(|cache| cache.read(&key)).filter(|c| fits(c))
        {
            return Ok(code);
        }
        let options: Vec<String> = self.options.iter().chain(defines).cloned().collect();
        let code = self.ask(source, &options)?;
        if let Some(cache) = &self.cache
            && let Err(error) = cache.write(&key, &code)
        {
            tracing::warn!("compiled kernels can't be kept: {error}");
        }
        Ok(code)
    }

    fn ask(&self, source: &str, options: &[String]) -> Result<Vec<u8>, CompileError> {
        if let Some(objection) = objection_to(self.hip, &self.arch) {
            return Err(objection);
        }
        if arches::is_known(&self.arch, self.hip.version) {
            return Ok(rtc::compile(self.hip, source, options)?);
        }
        child::compile(self.hip, &self.arch, source, options)
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

/// Adds a text and its end, so that no two lists of texts make one key.
fn add(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

/// Which file it is: a compiler that was replaced is another one, though it says the same version.
fn identity(path: &Path) -> String {
    let metadata = || -> io::Result<(u64, u64)> {
        let metadata = fs::metadata(path)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok((metadata.len(), modified.as_secs()))
    };
    format!("{} {:?}", path.display(), metadata().unwrap_or_default())
}

/// The files of `libamd_comgr`, which holds the compiler that hiprtc asks: those that this process has open, else those
/// beside the runtime.
fn comgr(runtime: &Path) -> Vec<PathBuf> {
    let is_comgr = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libamd_comgr"))
    };
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let open = maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])));
    let mut files: Vec<PathBuf> = open.filter(is_comgr).collect();
    if files.is_empty() {
        let entries = runtime.parent().and_then(|folder| fs::read_dir(folder).ok());
        let beside = entries.into_iter().flatten().flatten().map(|entry| entry.path());
        files = beside.filter(is_comgr).filter_map(|path| path.canonicalize().ok()).collect();
    }
    files.sort();
    files.dedup();
    files
}
