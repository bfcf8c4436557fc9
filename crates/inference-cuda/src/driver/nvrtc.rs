//! NVRTC, CUDA's run-time compiler: found, opened, and asked for code. It needs no GPU and no driver.
//!
//! Its functions, described in <https://docs.nvidia.com/cuda/nvrtc/>, are found by name here and not by cudarc, which can't
//! be told which library to take: an installation often has several, and the newest may be too new for the driver.

mod compiler;
mod find;

pub(crate) use compiler::CACHE_DIR;
pub use compiler::Compiler;

use find::{builtins, candidates, file, first, linux_version};
use inference_gpu::code_cache::{identity, open_libraries};
use libloading::Library;
use std::{
    collections::BTreeMap,
    env,
    ffi::{CStr, CString, c_char, c_int, c_void},
    path::{Path, PathBuf},
    ptr,
    sync::{Mutex, PoisonError},
};

/// NVRTC's file, or the folder that it is in.
pub const PLACE: &str = "INFERENCE_CUDA_NVRTC";

/// The first CUDA whose compiler knows compute capability 8.0, and can say what it knows.
const OLDEST: u32 = 11;

/// Lanes of a warp, on all of NVIDIA's GPUs.
pub(super) const WAVE: u32 = 32;

/// What `nvrtcProgram` points to.
type Program = *mut c_void;

/// `nvrtcResult`: 0 is success.
type Status = c_int;

/// Declares the functions, and finds them in a library.
macro_rules! functions {
    ($($name:ident($($type:ty),*) -> $result:ty;)*) => {
        #[expect(non_snake_case, reason = "they are called as NVIDIA calls them")]
        #[derive(Debug, Clone, Copy)]
        struct Functions { $($name: unsafe extern "C" fn($($type),*) -> $result,)* }

        impl Functions {
            /// # Safety
            /// `library` is NVRTC, whose functions have had these types since CUDA 11.2, and stays open.
            unsafe fn find(library: &Library) -> Result<Self, libloading::Error> {
                // SAFETY: the caller's.
                Ok(unsafe { Self { $($name: *library.get(concat!(stringify!($name), "\0"))?,)* } })
            }
        }
    };
}

functions! {
    nvrtcVersion(*mut c_int, *mut c_int) -> Status;
    nvrtcGetErrorString(Status) -> *const c_char;
    nvrtcGetNumSupportedArchs(*mut c_int) -> Status;
    nvrtcGetSupportedArchs(*mut c_int) -> Status;
    nvrtcCreateProgram(
        *mut Program, *const c_char, *const c_char, c_int, *const *const c_char, *const *const c_char
    ) -> Status;
    nvrtcCompileProgram(Program, c_int, *const *const c_char) -> Status;
    nvrtcGetProgramLogSize(Program, *mut usize) -> Status;
    nvrtcGetProgramLog(Program, *mut c_char) -> Status;
    nvrtcGetCUBINSize(Program, *mut usize) -> Status;
    nvrtcGetCUBIN(Program, *mut c_char) -> Status;
    nvrtcGetPTXSize(Program, *mut usize) -> Status;
    nvrtcGetPTX(Program, *mut c_char) -> Status;
    nvrtcDestroyProgram(*mut Program) -> Status;
}

/// The compiler, open until the process ends.
#[derive(Debug)]
pub struct Nvrtc {
    /// CUDA's version that it is of, major and minor.
    pub version: (u32, u32),
    /// Where it was found; a bare name if the system found it.
    pub path: PathBuf,
    /// Compute capabilities that it compiles for, ascending: 90 is 9.0.
    pub archs: Vec<u32>,
    functions: Functions,
}

/// Why there is no code.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum NvrtcError {
    /// The library is nowhere, or can't be opened.
    #[error("{}", missing(.place, *.cuda, .reason))]
    Missing {
        /// What [`PLACE`] says, if it is set.
        place: Option<PathBuf>,
        /// The driver's version of CUDA, its major number.
        cuda: u32,
        /// What the loader said last, if it found a file.
        reason: Option<String>,
    },
    /// It does not know so old a device any more.
    #[error(
        "NVRTC {}.{} no longer compiles for compute capability {}.{}: install an older one, such as \
         `pip install nvidia-cuda-nvrtc-cu12`, and set {PLACE} to its folder",
        .version.0, .version.1, .arch / 10, .arch % 10
    )]
    DeviceTooOld {
        /// Compute capability: 61 for 6.1.
        arch: u32,
        /// NVRTC's.
        version: (u32, u32),
    },
    /// A function said no, or the source is wrong.
    #[error("{call}: {text}{}", log_of(.log))]
    Failed {
        /// The function.
        call: &'static str,
        /// What NVRTC says of its status.
        text: String,
        /// The compiler's messages; empty if there are none.
        log: String,
    },
    /// Text with a zero in it.
    #[error("the source or an option has a zero in it")]
    Zero,
}

fn missing(place: &Option<PathBuf>, cuda: u32, reason: &Option<String>) -> String {
    let because = reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    // Version 12 serves later drivers as well, and still compiles for old cards.
    let major = cuda.clamp(OLDEST, 12);
    let file = file(major);
    match place {
        Some(place) => format!(
            "there is no NVRTC for this driver at {PLACE}={}{because}: unset it, or set it to the folder of {file}",
            place.display()
        ),
        None if cfg!(windows) => format!(
            "NVRTC, CUDA's run-time compiler ({file}), is not installed{because}: run `pip install \
             nvidia-cuda-nvrtc-cu{major}` and set {PLACE} to its folder `nvidia\\cuda_nvrtc\\bin`, or install the \
             component NVRTC of NVIDIA's CUDA toolkit {major}"
        ),
        None => format!(
            "NVRTC, CUDA's run-time compiler ({file}), is not installed{because}: run `pip install \
             nvidia-cuda-nvrtc-cu{major}` and set {PLACE} (or LD_LIBRARY_PATH) to its folder \
             `nvidia/cuda_nvrtc/lib`, or install the system's package, such as `libnvrtc{}` or `cuda-nvrtc`",
            linux_version(major)
        ),
    }
}

fn log_of(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!("\n{log}") }
}

impl From<NvrtcError> for inference_core::Error {
    fn from(error: NvrtcError) -> Self {
        Self::Device { reason: format!("kernels can't be compiled: {error}") }
    }
}

impl Nvrtc {
    /// Which version and files it is, with the builtins beside it: it opens those only when it first compiles.
    pub fn identity(&self) -> String {
        // One that the system found has no path.
        let mut files = open_libraries("libnvrtc.so");
        files.push(self.path.clone());
        let beside: Vec<_> = files.iter().flat_map(|file| builtins(file)).collect();
        files.extend(beside);
        files.sort();
        files.dedup();
        let files: Vec<_> = files.iter().map(|file| identity(file)).collect();
        format!("{:?} {}", self.version, files.join(" "))
    }

    /// The compiler for a driver of CUDA `cuda` (its major number) and a device of compute capability `arch` (90 is 9.0):
    /// [`PLACE`] alone if that is set, else the first that knows the device, or an earlier one, of what the system's loader
    /// finds, active Python environments, and toolkits.
    ///
    /// # Errors
    /// It is not there, or all that are compile only for later devices.
    pub fn open(cuda: u32, arch: u32) -> Result<&'static Self, NvrtcError> {
        let variable = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let fits = |nvrtc: &&Self| nvrtc.arch_for(arch).map(drop);
        let missing = |reason| NvrtcError::Missing { place: variable(PLACE), cuda, reason };
        first(&candidates(cuda, &variable), Self::opened, fits, missing)
    }

    /// The one at `path`, opened once.
    fn opened(path: &Path) -> Result<&'static Self, String> {
        static OPENED: Mutex<BTreeMap<PathBuf, &Nvrtc>> = Mutex::new(BTreeMap::new());
        let mut opened = OPENED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(nvrtc) = opened.get(path) {
            return Ok(nvrtc);
        }
        let nvrtc: &Self = Box::leak(Box::new(Self::open_at(path)?));
        opened.insert(path.to_owned(), nvrtc);
        Ok(nvrtc)
    }

    fn open_at(path: &Path) -> Result<Self, String> {
        for path in builtins(path) {
            // SAFETY: opens the vendor's library, whose initialisers have no conditions.
            match unsafe { Library::new(&path) } {
                Ok(library) => std::mem::forget(library),
                Err(error) => tracing::debug!("{}: {error}", path.display()),
            }
        }
        // SAFETY: opens the vendor's library, whose initialisers have no conditions.
        let library = unsafe { Library::new(path) }.map_err(|error| error.to_string())?;
        // SAFETY: its name says that it is NVRTC; it is never closed, as the last line sees to.
        let functions = unsafe { Functions::find(&library) }.map_err(|error| error.to_string())?;
        let mut nvrtc =
            Self { version: (0, 0), path: path.to_owned(), archs: Vec::new(), functions };
        nvrtc.ask_what_it_is().map_err(|error| error.to_string())?;
        std::mem::forget(library);
        Ok(nvrtc)
    }

    fn ask_what_it_is(&mut self) -> Result<(), NvrtcError> {
        let (mut major, mut minor, mut count) = (0, 0, 0);
        // SAFETY: the pointers are to ints.
        let status = unsafe { (self.functions.nvrtcVersion)(&mut major, &mut minor) };
        self.check("nvrtcVersion", status)?;
        // SAFETY: as above.
        let status = unsafe { (self.functions.nvrtcGetNumSupportedArchs)(&mut count) };
        self.check("nvrtcGetNumSupportedArchs", status)?;
        let mut archs = vec![0; usize::try_from(count).unwrap_or_default()];
        // SAFETY: there is room for as many as it just said.
        let status = unsafe { (self.functions.nvrtcGetSupportedArchs)(archs.as_mut_ptr()) };
        self.check("nvrtcGetSupportedArchs", status)?;
        self.version = (major.unsigned_abs(), minor.unsigned_abs());
        self.archs = archs.into_iter().map(c_int::unsigned_abs).collect();
        self.archs.sort_unstable();
        Ok(())
    }

    /// The value of `--gpu-architecture` for compute capability `arch` (90 is 9.0): `sm_90` if it is known, else
    /// `compute_…` of the next lower one, whose PTX the driver compiles.
    ///
    /// # Errors
    /// All that is known is later.
    pub fn arch_for(&self, arch: u32) -> Result<String, NvrtcError> {
        arch_for(&self.archs, arch).ok_or(NvrtcError::DeviceTooOld { arch, version: self.version })
    }

    /// Compiles `source` with `options`: a cubin if they ask for `sm_…`, or else PTX and a zero.
    ///
    /// # Errors
    /// The compiler's messages.
    pub fn compile(&self, source: &str, options: &[String]) -> Result<Vec<u8>, NvrtcError> {
        self.compile_and_log(source, options).map(|(code, _)| code)
    }

    /// As [`compile`](Self::compile), with what the compiler said on the way.
    ///
    /// # Errors
    /// The compiler's messages.
    pub fn compile_and_log(
        &self,
        source: &str,
        options: &[String],
    ) -> Result<(Vec<u8>, String), NvrtcError> {
        let text = |text: &str| CString::new(text).map_err(|_| NvrtcError::Zero);
        let (source, name) = (text(source)?, text("kernels.cu")?);
        let words = options.iter().map(|o| text(o)).collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<_> = words.iter().map(|word| word.as_ptr()).collect();

        let mut raw = ptr::null_mut();
        let (none, f) = (ptr::null(), &self.functions);
        // SAFETY: the texts end with a zero and outlive the program; there are no headers.
        let status = unsafe {
            (f.nvrtcCreateProgram)(&mut raw, source.as_ptr(), name.as_ptr(), 0, none, none)
        };
        self.check("nvrtcCreateProgram", status)?;
        let program = Alive { raw, nvrtc: self };
        let count = pointers.len() as c_int;
        // SAFETY: the program is alive, and there are so many options, each of which ends with a zero.
        let status = unsafe { (f.nvrtcCompileProgram)(raw, count, pointers.as_ptr()) };
        let log =
            program.output("nvrtcGetProgramLog", f.nvrtcGetProgramLogSize, f.nvrtcGetProgramLog);
        let log =
            String::from_utf8_lossy(&log.unwrap_or_default()).trim_matches(['\0', '\n']).to_owned();
        self.check("nvrtcCompileProgram", status).map_err(|error| match error {
            NvrtcError::Failed { call, text, .. } => {
                NvrtcError::Failed { call, text, log: log.clone() }
            }
            other => other,
        })?;
        let code = if options.iter().any(|option| option.contains("=sm_")) {
            program.output("nvrtcGetCUBIN", f.nvrtcGetCUBINSize, f.nvrtcGetCUBIN)
        } else {
            program.output("nvrtcGetPTX", f.nvrtcGetPTXSize, f.nvrtcGetPTX)
        };
        Ok((code?, log))
    }

    fn check(&self, call: &'static str, status: Status) -> Result<(), NvrtcError> {
        if status == 0 {
            return Ok(());
        }
        // SAFETY: any status may be asked for.
        let text = unsafe { (self.functions.nvrtcGetErrorString)(status) };
        let text = if text.is_null() {
            format!("status {status}")
        } else {
            // SAFETY: it ends with a zero and is never freed.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(NvrtcError::Failed { call, text, log: String::new() })
    }
}

fn arch_for(known: &[u32], arch: u32) -> Option<String> {
    let best = known.iter().filter(|known| **known <= arch).max()?;
    Some(if *best == arch { format!("sm_{arch}") } else { format!("compute_{best}") })
}

/// The options for kernels of this project: for `arch`, as [`Nvrtc::arch_for`] names it, with the caller's `defines`.
pub fn options(arch: &str, defines: &[String]) -> Vec<String> {
    let mut options = vec![
        format!("--gpu-architecture={arch}"),
        "--std=c++17".to_owned(),
        format!("-DWAVE={WAVE}"),
    ];
    options.extend_from_slice(defines);
    options
}

/// A program that is destroyed in the end.
struct Alive<'a> {
    raw: Program,
    nvrtc: &'a Nvrtc,
}

impl Alive<'_> {
    /// What a pair of functions gives: how long it is, and its bytes.
    fn output(
        &self,
        call: &'static str,
        size: unsafe extern "C" fn(Program, *mut usize) -> Status,
        copy: unsafe extern "C" fn(Program, *mut c_char) -> Status,
    ) -> Result<Vec<u8>, NvrtcError> {
        let mut len = 0;
        // SAFETY: the program is alive, the pointer is to a size.
        self.nvrtc.check(call, unsafe { size(self.raw, &mut len) })?;
        let mut bytes = vec![0_u8; len];
        // SAFETY: the program is alive, and there is room for as many bytes as it just said.
        self.nvrtc.check(call, unsafe { copy(self.raw, bytes.as_mut_ptr().cast()) })?;
        Ok(bytes)
    }
}

impl Drop for Alive<'_> {
    fn drop(&mut self) {
        // SAFETY: it was made by `nvrtcCreateProgram` and is destroyed once.
        unsafe { (self.nvrtc.functions.nvrtcDestroyProgram)(&mut self.raw) };
    }
}

#[cfg(test)]
#[path = "nvrtc_tests.rs"]
mod tests;
