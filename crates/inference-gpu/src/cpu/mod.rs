//! A driver without a GPU, for tests: the kernels compiled as C++ for this machine, and run lane by lane.
//!
//! `cpu/simt.h` says what it notices. A kernel that goes wrong is an error of the launch.

mod compiler;
mod graph;
#[cfg(test)]
mod tests;

use crate::driver::{Driver, Launch, MatrixUnit, Memory, Target, check_range};
pub use compiler::sanitizer;
use compiler::{Entry, Sizes};
pub use graph::{Fault, Graph};
use graph::{Recorded, Recording};
use inference_core::{Error, Result};
use std::{
    alloc::{self, Layout},
    cell::Cell,
    ffi::{CStr, c_void},
    ptr::NonNull,
    rc::Rc,
    sync::{Arc, atomic::AtomicUsize},
};

/// What [`CpuDriver::new`] needs, for the line of a test that is skipped.
pub const NEEDS: &str =
    "GPU kernels run on the CPU on Linux alone, and need a C++ compiler ($CXX, c++)";

/// Bytes that it says it has.
const TOTAL: u64 = 4 << 30;

/// In which order the lanes run between two points where they meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last.
    Forward,
    /// From the last to the first.
    Reverse,
    /// Shuffled anew each time, from a seed of the launch's number.
    Random,
}

/// See the [module](self).
#[derive(Debug)]
pub struct CpuDriver {
    target: Target,
    order: Order,
    compiler: String,
    used: Rc<Cell<u64>>,
    allocations: Cell<usize>,
    launches: Cell<usize>,
    recording: Recording,
    sanitises: bool,
}

impl CpuDriver {
    /// A driver that plays `arch`: its waves and matrix instructions. `None` where what it [`NEEDS`] is not there.
    pub fn new(arch: &str, order: Order) -> Option<Self> {
        let compiler = compiler::find()?;
        let wave = match arch {
            _ if MatrixUnit::of(arch) == MatrixUnit::Mfma => 64,
            "gfx906" => 64,
            _ => 32,
        };
        Some(Self {
            target: Target::new(arch, wave, 2, 64 << 10),
            order,
            compiler,
            used: Rc::default(),
            allocations: Cell::new(0),
            launches: Cell::new(0),
            recording: Recording::default(),
            sanitises: false,
        })
    }

    /// A driver whose kernels run under the address and the undefined behaviour sanitizer, which end the process where they
    /// find something. That process has to have the former's library ([`sanitizer`]) in `LD_PRELOAD`. `None` where there is
    /// no compiler with both.
    pub fn sanitising(arch: &str, order: Order) -> Option<Self> {
        sanitizer()?;
        Self::new(arch, order).map(|driver| Self { sanitises: true, ..driver })
    }

    /// How often memory was allocated.
    pub fn allocations(&self) -> usize {
        self.allocations.get()
    }

    /// How many kernels were launched, those of replayed graphs included.
    pub fn launches(&self) -> usize {
        self.launches.get()
    }

    /// Counts replays in `replays`, and goes wrong in them as `fault` says.
    pub fn with_replays(mut self, replays: Arc<AtomicUsize>, fault: Option<Fault>) -> Self {
        self.recording = Recording::new(replays, fault);
        self
    }

    fn start(&self, kernel: &Kernel, launch: Launch, args: &mut [*mut c_void]) -> Result<()> {
        self.launches.set(self.launches.get() + 1);
        let seed = self.launches.get() as u32;
        // SAFETY: `entry` is what the harness exports under this kernel's name, with this signature; the caller of `launch`
        // vouches for the arguments.
        let error = unsafe {
            (kernel.entry)(
                launch.grid.as_ptr(),
                launch.block,
                self.order as i32,
                seed,
                args.as_mut_ptr(),
            )
        };
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: a text in the module, which `kernel` keeps loaded.
        let text = unsafe { CStr::from_ptr(error) }.to_string_lossy();
        Err(Error::Device { reason: format!("{}: {text}", kernel.name) })
    }
}

/// Host memory that plays the device's; full of NaN at first.
#[derive(Debug)]
pub struct Buffer {
    memory: NonNull<u8>,
    layout: Layout,
    used: Rc<Cell<u64>>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.used.set(self.used.get() - self.layout.size() as u64);
        // SAFETY: it was allocated with this layout, and is freed here alone.
        unsafe { alloc::dealloc(self.memory.as_ptr(), self.layout) }
    }
}

/// A compiled kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    name: String,
    entry: Entry,
    sizes: Sizes,
    _module: Rc<libloading::Library>,
}

impl Driver for CpuDriver {
    type Buffer = Buffer;
    type Kernel = Kernel;
    type Graph = Graph;

    fn target(&self) -> &Target {
        &self.target
    }

    fn keeps_apart(&self) -> bool {
        self.sanitises
    }

    fn memory(&self) -> Result<Memory> {
        Ok(Memory { free: TOTAL.saturating_sub(self.used.get()), total: TOTAL })
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
        self.recording.refuse("an allocation")?;
        self.allocations.set(self.allocations.get() + 1);
        let too_much = || Error::OutOfMemory {
            what: "a buffer".to_owned(),
            needed: bytes as u64,
            available: TOTAL.saturating_sub(self.used.get()),
            advice: "take a smaller model".to_owned(),
        };
        if bytes as u64 > TOTAL.saturating_sub(self.used.get()) {
            return Err(too_much());
        }
        let layout = Layout::from_size_align(bytes.max(1), 256).map_err(|_| too_much())?;
        // SAFETY: the layout has at least one byte.
        let memory = NonNull::new(unsafe { alloc::alloc(layout) }).ok_or_else(too_much)?;
        // SAFETY: so many bytes were just allocated.
        unsafe { memory.as_ptr().write_bytes(0xff, layout.size()) };
        self.used.set(self.used.get() + layout.size() as u64);
        Ok(Buffer { memory, layout, used: self.used.clone() })
    }

    fn address(&self, buffer: &Buffer) -> u64 {
        buffer.memory.as_ptr() as u64
    }

    fn upload(&self, into: &Buffer, at: usize, bytes: &[u8]) -> Result<()> {
        self.recording.refuse("a copy")?;
        check_range(into.layout.size(), at, bytes.len())?;
        // SAFETY: the range was just checked, and kernels run within calls of `launch` alone.
        unsafe { into.memory.as_ptr().add(at).copy_from(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn download(&self, from: &Buffer, at: usize, bytes: &mut [u8]) -> Result<()> {
        self.recording.refuse("a copy")?;
        check_range(from.layout.size(), at, bytes.len())?;
        // SAFETY: as in `upload`.
        unsafe { bytes.as_mut_ptr().copy_from(from.memory.as_ptr().add(at), bytes.len()) };
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        self.recording.refuse("waiting")
    }

    fn compile(&self, source: &str, defines: &[String], names: &[&str]) -> Result<Vec<Kernel>> {
        self.recording.refuse("a compilation")?;
        let mut options = defines.to_vec();
        if self.sanitises {
            options.extend(compiler::SANITISE.map(str::to_owned));
        }
        compiler::compile(&self.compiler, &self.target, source, &options, names)
    }

    unsafe fn launch(
        &self,
        kernel: &Kernel,
        launch: Launch,
        args: &mut [*mut c_void],
    ) -> Result<()> {
        if !self.recording.is_on() {
            return self.start(kernel, launch, args);
        }
        // SAFETY: the caller vouches for one value of each parameter's type.
        self.recording.push(unsafe { Recorded::new(kernel, launch, args) });
        Ok(())
    }

    fn capture(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<Option<Graph>> {
        self.recording.capture(f)
    }

    unsafe fn replay(&self, graph: &Graph) -> Result<()> {
        self.recording.refuse("a replay")?;
        for Recorded { kernel, launch, args } in self.recording.replayed(graph)? {
            let mut args: Vec<_> =
                args.iter().map(|words| words.as_ptr().cast_mut().cast::<c_void>()).collect();
            self.start(kernel, *launch, &mut args)?;
        }
        Ok(())
    }
}

impl Kernel {
    /// Bytes of each parameter.
    fn sizes(&self) -> Vec<usize> {
        // SAFETY: the harness exports it under this kernel's name: a text that ends with 0, in the module.
        let sizes = unsafe { CStr::from_ptr((self.sizes)().cast()) };
        sizes.to_bytes().iter().map(|b| usize::from(*b)).collect()
    }
}
