//! What CUDA and HIP have in common: one device, one stream, everything in order.

use inference_core::{Error, Result};
use std::ffi::c_void;

/// A GPU as a driver shows it: memory, kernels that are compiled at run time, and one stream of work.
///
/// Whatever is asked of it happens in the order in which it was asked. A failure of work that was launched earlier may
/// show at any later call.
pub trait Driver: 'static {
    /// Device memory; freed on drop, once nothing in the stream needs it any more.
    type Buffer;
    /// A function of a loaded module, which it keeps alive.
    type Kernel: Clone;
    /// A recorded sequence of launches.
    type Graph;

    /// What kernels are compiled for.
    fn target(&self) -> &Target;

    /// Whether every piece of memory is to be a buffer of its own, of just its size, and is never recorded: so that a test sees
    /// what reaches beyond it.
    fn keeps_apart(&self) -> bool {
        false
    }

    /// The device's memory.
    ///
    /// # Errors
    /// The driver's own.
    fn memory(&self) -> Result<Memory>;

    /// `bytes` bytes with anything in them, aligned to at least 256; at least one.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`]; the driver's own.
    fn alloc(&self, bytes: usize) -> Result<Self::Buffer>;

    /// Where kernels find it.
    fn address(&self, buffer: &Self::Buffer) -> u64;

    /// Copies `bytes` to byte `at` of `into`, in the order of the stream. `bytes` may be used for something else on
    /// return.
    ///
    /// # Errors
    /// [`Error::Device`] where they don't fit (see [`check_range`]); the driver's own.
    fn upload(&self, into: &Self::Buffer, at: usize, bytes: &[u8]) -> Result<()>;

    /// Copies from byte `at` of `from`, and waits until they are there.
    ///
    /// # Errors
    /// As [`upload`](Self::upload), and failures of what was launched before.
    fn download(&self, from: &Self::Buffer, at: usize, bytes: &mut [u8]) -> Result<()>;

    /// Waits until everything is done.
    ///
    /// # Errors
    /// Failures of what was launched before.
    fn synchronize(&self) -> Result<()>;

    /// Compiles `source` with `defines` (each `-DNAME=value`) for this device, or takes it from a cache, and finds the
    /// kernels called `names` in it. The driver adds what its compiler needs, among it `-DWAVE=…`.
    ///
    /// # Errors
    /// [`Error::Device`] with the compiler's messages; a name that isn't there.
    fn compile(
        &self,
        source: &str,
        defines: &[String],
        names: &[&str],
    ) -> Result<Vec<Self::Kernel>>;

    /// Starts a kernel.
    ///
    /// # Errors
    /// A launch that the device can't run; failures of what was launched before.
    ///
    /// # Safety
    /// `args` points to one value for each of the kernel's parameters, of its type. Everything that the kernel reads and
    /// writes is alive until it has run, and in bounds.
    unsafe fn launch(
        &self,
        kernel: &Self::Kernel,
        launch: Launch,
        args: &mut [*mut c_void],
    ) -> Result<()>;

    /// Records what `f` launches, without running it. `None`: this driver or device can't replay, or is known to do it
    /// wrongly, and `f` was not called.
    ///
    /// # Errors
    /// Those of `f`; the driver's own.
    fn capture(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<Option<Self::Graph>>;

    /// Runs what was recorded.
    ///
    /// # Errors
    /// As [`launch`](Self::launch).
    ///
    /// # Safety
    /// What the recorded launches read and write is still alive, where it was.
    unsafe fn replay(&self, graph: &Self::Graph) -> Result<()>;
}

/// The shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks; at most 65,535 in y and z.
    pub grid: [u32; 3],
    /// Threads of a block, all in x.
    pub block: u32,
    /// Bytes of dynamic shared memory of a block.
    pub shared_bytes: u32,
}

impl Launch {
    /// `blocks` blocks of `block` threads, without dynamic shared memory.
    pub fn new(blocks: u32, block: u32) -> Self {
        Self { grid: [blocks, 1, 1], block, shared_bytes: 0 }
    }
}

/// A device's memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Not in use by anyone.
    pub free: u64,
    /// All of it.
    pub total: u64,
}

/// What kernels are compiled for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// `gfx1100`, `sm_90`, or the architecture that the CPU driver plays.
    pub arch: String,
    /// Lanes that run together: 32 or 64.
    pub wave: u32,
    /// Compute units, streaming multiprocessors: how many blocks should be there at least.
    pub units: u32,
    /// Shared memory that a block may have, in bytes.
    pub shared_bytes: u32,
    /// How matrices are multiplied.
    pub matrix: MatrixUnit,
}

impl Target {
    /// A target whose matrix instructions are those of its name.
    pub fn new(arch: impl Into<String>, wave: u32, units: u32, shared_bytes: u32) -> Self {
        let arch = arch.into();
        let matrix = MatrixUnit::of(&arch);
        Self { arch, wave, units, shared_bytes, matrix }
    }
}

/// Instructions that multiply matrices of 16 × 16 16-bit numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MatrixUnit {
    /// None: multiply-adds, lane by lane.
    Plain,
    /// RDNA 3's `v_wmma`, whose two halves of a wave hold the same operands.
    WmmaGfx11,
    /// RDNA 4's `v_wmma`.
    WmmaGfx12,
    /// CDNA's `v_mfma`, in waves of 64.
    Mfma,
    /// NVIDIA's `mma.sync`, from compute capability 8.0 on.
    MmaSync,
}

impl MatrixUnit {
    /// What an architecture of this name has.
    pub fn of(arch: &str) -> Self {
        let base = arch.split(':').next().unwrap_or(arch);
        match base {
            "gfx908" | "gfx90a" | "gfx942" | "gfx950" => Self::Mfma,
            // gfx1250 is another generation, with other shapes.
            _ if base.len() == 7 && base.starts_with("gfx11") => Self::WmmaGfx11,
            "gfx1200" | "gfx1201" => Self::WmmaGfx12,
            _ => match base.strip_prefix("sm_").map(|n| n.trim_end_matches(char::is_alphabetic)) {
                Some(n) if n.parse::<u32>().is_ok_and(|n| n >= 80) => Self::MmaSync,
                _ => Self::Plain,
            },
        }
    }
}

/// Whether `len` bytes from `at` on lie in a buffer of `bytes`; what `upload` and `download` ask first.
///
/// # Errors
/// [`Error::Device`]: they don't.
pub fn check_range(bytes: usize, at: usize, len: usize) -> Result<()> {
    match at.checked_add(len) {
        Some(end) if end <= bytes => Ok(()),
        _ => Err(Error::Device {
            reason: format!("{len} bytes at {at} are not in a buffer of {bytes} bytes"),
        }),
    }
}

/// The arguments of a launch: pointers to values that live as long as the statement, `args![address, n as u32]`.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => {
        &mut [$(::std::ptr::from_ref(&$value).cast_mut().cast::<::std::ffi::c_void>()),*]
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_says_which_matrix_instructions_there_are() {
        for (arch, unit) in [
            ("gfx906", MatrixUnit::Plain),
            ("gfx908", MatrixUnit::Mfma),
            ("gfx90a:sramecc+:xnack-", MatrixUnit::Mfma),
            ("gfx950", MatrixUnit::Mfma),
            ("gfx1030", MatrixUnit::Plain),
            ("gfx1100", MatrixUnit::WmmaGfx11),
            ("gfx1151", MatrixUnit::WmmaGfx11),
            ("gfx1201", MatrixUnit::WmmaGfx12),
            ("gfx1250", MatrixUnit::Plain),
            ("sm_75", MatrixUnit::Plain),
            ("sm_80", MatrixUnit::MmaSync),
            ("sm_90a", MatrixUnit::MmaSync),
            ("sm_120", MatrixUnit::MmaSync),
            ("cpu", MatrixUnit::Plain),
        ] {
            assert_eq!(MatrixUnit::of(arch), unit, "{arch}");
        }
    }

    #[test]
    fn what_lies_outside_is_refused() {
        assert!(check_range(8, 0, 8).is_ok() && check_range(8, 8, 0).is_ok());
        for (at, len) in [(1, 8), (9, 0), (usize::MAX, 1)] {
            assert!(check_range(8, at, len).is_err(), "{len} at {at}");
        }
    }

    #[test]
    fn arguments_are_pointers_to_values() {
        let args = args![3_u64, 5_u32];
        assert_eq!(args.len(), 2);
        assert!(args.iter().all(|pointer| !pointer.is_null()));
    }
}
