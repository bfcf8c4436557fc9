//! hiprtc: a source text to a code object, in this process.

use super::{
    load::Hip,
    result::RtcError,
    sys::{Compiler, hiprtcProgram},
};
use std::{
    ffi::{CString, c_char, c_int},
    ptr,
    sync::{Mutex, PoisonError},
};

/// One compilation at a time in a process: several at once have returned other kernels' code.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Why there is no code object.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// This HIP came without a compiler.
    #[error(
        "ROCm's run-time compiler is missing: {0}; install `hiprtc` of AMD's packages, or of Debian or Ubuntu what \
         `apt search hiprtc` finds with the number of libamdhip64"
    )]
    NoCompiler(String),
    /// The source or an option has a zero byte.
    #[error("a zero byte in the source or an option")]
    ZeroByte,
    /// A function of hiprtc failed.
    #[error("{error}{}", with_log(.log))]
    Failed {
        /// What failed.
        error: RtcError,
        /// What the compiler said.
        log: String,
    },
}

fn with_log(log: &str) -> String {
    if log.is_empty() { String::new() } else { format!(":\n{log}") }
}

/// Compiles `source` with `options` of clang.
///
/// An architecture that the compiler does not know ends the process: ask [`crate::compile`] instead, which sees to that.
///
/// # Errors
/// No compiler, or what it says, with its log.
pub fn compile(hip: &Hip, source: &str, options: &[String]) -> Result<Vec<u8>, CompileError> {
    let compiler = hip.compiler.as_ref().map_err(|e| CompileError::NoCompiler(e.clone()))?;
    let c_text = |text: &str| CString::new(text).map_err(|_| CompileError::ZeroByte);
    let source = c_text(source)?;
    let options: Vec<_> = options.iter().map(|o| c_text(o)).collect::<Result<_, _>>()?;
    let pointers: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();

    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let failed = |error| CompileError::Failed { error, log: String::new() };
    let program = Program::new(compiler, &source).map_err(failed)?;
    // SAFETY: the program is alive, and there are as many terminated texts as are said.
    let compiled = unsafe {
        let count = pointers.len() as c_int;
        compiler.hiprtcCompileProgram(program.raw, count, pointers.as_ptr())
    };
    compiled.map_err(|error| CompileError::Failed { error, log: program.log() })?;
    program.code().map_err(failed)
}

struct Program<'a> {
    compiler: &'a Compiler,
    raw: hiprtcProgram,
}

impl<'a> Program<'a> {
    fn new(compiler: &'a Compiler, source: &CString) -> Result<Self, RtcError> {
        let mut raw = ptr::null_mut();
        let (name, none) = (c"kernels.hip".as_ptr(), ptr::null());
        // SAFETY: texts are terminated, there are no headers, the pointer is to a live handle.
        unsafe { compiler.hiprtcCreateProgram(&mut raw, source.as_ptr(), name, 0, none, none) }?;
        Ok(Self { compiler, raw })
    }

    /// What the compiler said; empty if it can't be had.
    fn log(&self) -> String {
        let mut len = 0;
        // SAFETY: the program is alive, the pointer is to a live integer.
        if unsafe { self.compiler.hiprtcGetProgramLogSize(self.raw, &mut len) }.is_err() {
            return String::new();
        }
        // One more: not every release ends it with a zero.
        let mut log = vec![0u8; len + 1];
        // SAFETY: the buffer has more bytes than the log.
        let read = unsafe { self.compiler.hiprtcGetProgramLog(self.raw, log.as_mut_ptr().cast()) };
        read.map_or(String::new(), |()| {
            String::from_utf8_lossy(&log).trim_end_matches(['\0', '\n']).to_owned()
        })
    }

    fn code(&self) -> Result<Vec<u8>, RtcError> {
        let mut len = 0;
        // SAFETY: the program is alive, the pointer is to a live integer.
        unsafe { self.compiler.hiprtcGetCodeSize(self.raw, &mut len) }?;
        let mut code = vec![0u8; len];
        // SAFETY: the buffer has as many bytes as the code.
        unsafe { self.compiler.hiprtcGetCode(self.raw, code.as_mut_ptr().cast()) }?;
        Ok(code)
    }
}

impl Drop for Program<'_> {
    fn drop(&mut self) {
        // SAFETY: the program is alive, and nothing uses it after this.
        if let Err(error) = unsafe { self.compiler.hiprtcDestroyProgram(&mut self.raw) } {
            tracing::warn!("{error}");
        }
    }
}
