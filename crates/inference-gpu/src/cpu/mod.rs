//! A driver without a GPU, for tests: the kernels compiled as C++ for this machine, and run lane by lane.
//!
//! `cpu/simt.h` says what it notices. A kernel that goes wrong is an error of the launch.

mod compiler;
#[cfg(test)]
mod tests;

use crate::driver::{Driver, Launch, MatrixUnit, Memory, Target, check_range};
use compiler::{Entry, Sizes};
use inference_core::{Error, Result};
use std::{
    alloc::{self, Layout},
    cell::{Cell, RefCell},
    ffi::{CStr, c_void},
    ptr::NonNull,
    rc::Rc,
};

/// Bytes that it says it has.
const TOTAL: u64 = 4 << 30;

/// In which order the lanes run between two points where they meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// From the first to the last.
    Forward,
    /// From the last to the first.
    Reverse,
    /// Another one each time.
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
    recording: RefCell<Option<Vec<Recorded>>>,
}

impl CpuDriver {
    /// A driver that plays `arch`: its waves and matrix instructions. `None` where no C++ compiler is found; `$CXX` or
    /// `c++`.
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
            recording: RefCell::new(None),
        })
    }

    /// How often memory was allocated.
    pub fn allocations(&self) -> usize {
        self.allocations.get()
    }

    /// How many kernels were launched, those of replayed graphs included.
    pub fn launches(&self) -> usize {
        self.launches.get()
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

/// A launch that waits to be replayed.
#[derive(Debug)]
struct Recorded {
    kernel: Kernel,
    launch: Launch,
    /// Each argument's bytes.
    args: Vec<Vec<u64>>,
}

/// Launches that wait to be replayed.
#[derive(Debug)]
pub struct Graph(Vec<Recorded>);

impl Driver for CpuDriver {
    type Buffer = Buffer;
    type Kernel = Kernel;
    type Graph = Graph;

    fn target(&self) -> &Target {
        &self.target
    }

    fn memory(&self) -> Result<Memory> {
        Ok(Memory { free: TOTAL.saturating_sub(self.used.get()), total: TOTAL })
    }

    fn alloc(&self, bytes: usize) -> Result<Buffer> {
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
        check_range(into.layout.size(), at, bytes.len())?;
        // SAFETY: the range was just checked, and kernels run within calls of `launch` alone.
        unsafe { into.memory.as_ptr().add(at).copy_from(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn download(&self, from: &Buffer, at: usize, bytes: &mut [u8]) -> Result<()> {
        check_range(from.layout.size(), at, bytes.len())?;
        // SAFETY: as in `upload`.
        unsafe { bytes.as_mut_ptr().copy_from(from.memory.as_ptr().add(at), bytes.len()) };
        Ok(())
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn compile(&self, source: &str, defines: &[String], names: &[&str]) -> Result<Vec<Kernel>> {
        compiler::compile(&self.compiler, &self.target, source, defines, names)
    }

    unsafe fn launch(
        &self,
        kernel: &Kernel,
        launch: Launch,
        args: &mut [*mut c_void],
    ) -> Result<()> {
        let Some(recording) = &mut *self.recording.borrow_mut() else {
            return self.start(kernel, launch, args);
        };
        let sizes = kernel.sizes();
        let copy = |(pointer, size): (&*mut c_void, usize)| {
            let mut words = vec![0_u64; size.div_ceil(8)];
            // SAFETY: the caller vouches for one value of the parameter's type, which has this size.
            unsafe { words.as_mut_ptr().cast::<u8>().copy_from(pointer.cast(), size) };
            words
        };
        let args = args.iter().zip(sizes).map(copy).collect();
        recording.push(Recorded { kernel: kernel.clone(), launch, args });
        Ok(())
    }

    fn capture(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<Option<Graph>> {
        *self.recording.borrow_mut() = Some(Vec::new());
        let done = f();
        let recorded = self.recording.borrow_mut().take().unwrap_or_default();
        done.map(|()| Some(Graph(recorded)))
    }

    unsafe fn replay(&self, graph: &Graph) -> Result<()> {
        for Recorded { kernel, launch, args } in &graph.0 {
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
