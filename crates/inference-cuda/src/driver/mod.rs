//! CUDA as the driver of `inference_gpu`'s device. All calls of CUDA are in this folder.

mod context;
mod error;
mod graph;
mod library;
mod module;
pub mod nvrtc;
mod stream;

pub use error::CudaError;
pub use graph::Graph;
pub use library::{Cuda, Device, OpenError};
pub use module::Kernel;
pub use stream::Buffer;

use context::Context;
use cudarc::driver::result;
use error::{check, is_unfit_code};
use inference_core::{Error, Result};
use inference_gpu::{Driver, Launch, Memory, Target, code_cache::loaded, driver::check_range};
use module::Module;
use nvrtc::{Compiler, Nvrtc};
use std::{env, ffi::c_void, rc::Rc};
use stream::Stream;

/// `0`: never record launches.
pub(crate) const GRAPH: &str = "INFERENCE_CUDA_GRAPH";

/// One device, one stream.
#[derive(Debug)]
pub struct CudaDriver {
    target: Target,
    compiler: Compiler,
    records: bool,
    stream: Rc<Stream>,
    context: Rc<Context>,
}

impl CudaDriver {
    /// `device` of `cuda`, its kernels compiled by `nvrtc`.
    ///
    /// # Errors
    /// What CUDA says; a device that is too old for `nvrtc`.
    pub fn open(_: Cuda, device: &Device, nvrtc: &'static Nvrtc) -> Result<Self> {
        let compiler = Compiler::new(nvrtc, device.arch())?;
        let name = format!("sm_{}", device.arch());
        let target = Target::new(name, nvrtc::WAVE, device.multiprocessors, device.shared_bytes);
        let context = Rc::new(Context::new(device.ordinal)?);
        let stream = Rc::new(Stream::new(&context)?);
        let records = env::var(GRAPH).as_deref() != Ok("0");
        Ok(Self { target, compiler, records, stream, context })
    }
}

impl Driver for CudaDriver {
    type Buffer = Buffer;
    type Kernel = Kernel;
    type Graph = Graph;

    fn target(&self) -> &Target {
        &self.target
    }

    fn memory(&self) -> Result<Memory> {
        let (free, total) = self.context.memory()?;
        Ok(Memory { free, total })
    }

    fn alloc(&self, bytes: usize) -> Result<Self::Buffer> {
        Ok(Buffer::new(&self.stream, bytes)?)
    }

    fn address(&self, buffer: &Self::Buffer) -> u64 {
        buffer.address()
    }

    fn upload(&self, into: &Self::Buffer, at: usize, bytes: &[u8]) -> Result<()> {
        check_range(into.bytes(), at, bytes.len())?;
        // SAFETY: it is in the buffer, as was just checked, which lives until the stream is done with it.
        Ok(unsafe { self.stream.upload(into.address() + at as u64, bytes) }?)
    }

    fn download(&self, from: &Self::Buffer, at: usize, bytes: &mut [u8]) -> Result<()> {
        check_range(from.bytes(), at, bytes.len())?;
        // SAFETY: as above.
        Ok(unsafe { self.stream.download(from.address() + at as u64, bytes) }?)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(self.stream.synchronize()?)
    }

    fn compile(
        &self,
        source: &str,
        defines: &[String],
        names: &[&str],
    ) -> Result<Vec<Self::Kernel>> {
        // SAFETY: NVRTC has made it, and a cache gives back what it was given, whole.
        let load = |code: &[u8]| unsafe { Module::load(&self.context, code) };
        let compile = |fits: &dyn Fn(&[u8]) -> bool| self.compiler.compile(source, defines, fits);
        let module = loaded(load, is_unfit_code, compile)?;
        let kernel = |name: &&str| {
            let kernel = module.kernel(name)?;
            if kernel.spilled_bytes() > 0 {
                let arch = &self.target.arch;
                tracing::warn!("kernel `{name}` spills registers on {arch}: it will be slow");
            }
            Ok(kernel)
        };
        names.iter().map(kernel).collect()
    }

    unsafe fn launch(
        &self,
        kernel: &Self::Kernel,
        launch: Launch,
        args: &mut [*mut c_void],
    ) -> Result<()> {
        let Launch { grid: [x, y, z], block, shared_bytes } = launch;
        let stream = self.stream.bound()?;
        // SAFETY: the caller's; kernel and stream are alive.
        let launched = unsafe {
            result::launch_kernel(
                kernel.raw(),
                (x, y, z),
                (block, 1, 1),
                shared_bytes,
                stream,
                args,
            )
        };
        check("cuLaunchKernel", launched)?;
        if let Some(kernels) = self.stream.recording().borrow_mut().as_mut() {
            kernels.push(kernel.clone());
        }
        Ok(())
    }

    fn capture(&self, f: &mut dyn FnMut() -> Result<()>) -> Result<Option<Self::Graph>> {
        if !self.records {
            return Ok(None);
        }
        Graph::record::<Error>(&self.stream, f).map(Some)
    }

    unsafe fn replay(&self, graph: &Self::Graph) -> Result<()> {
        // SAFETY: the caller's.
        Ok(unsafe { graph.replay() }?)
    }
}
