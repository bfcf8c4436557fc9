//! Apple's GPU: memory and a queue by candle, kernels by us.

use crate::{
    NAME,
    kernels::{Buffer, Kernel, Launcher, Library},
};
use candle_core::{
    CpuStorage, DType, Device, MetalDevice, MetalError, MetalStorage, Result, Shape, Storage,
    Tensor, backend::BackendStorage, bail, op::BackpropOp,
};
use candle_metal_kernels::{
    MetalKernelError,
    metal::{self, ComputePipeline, MetalDeviceType},
};
use inference_core::Error;
use objc2::rc::autoreleasepool;
use objc2_metal::{
    MTLCompileOptions, MTLDevice, MTLGPUFamily, MTLMathFloatingPointFunctions, MTLMathMode, MTLSize,
};
use std::{cell::RefCell, collections::HashMap, fmt, sync::Arc};

/// The GPU of this machine, with a queue of its own.
pub struct AppleGpu {
    device: MetalDevice,
    cores: usize,
    libraries: RefCell<HashMap<Library, metal::Library>>,
    pipelines: RefCell<HashMap<(Library, &'static str), ComputePipeline>>,
}

impl fmt::Debug for AppleGpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AppleGpu").field("device", &self.device).finish_non_exhaustive()
    }
}

/// The GPU, if the kernels run on it, or why they don't.
pub(crate) fn find() -> std::result::Result<metal::Device, String> {
    // candle asks for residency sets, and ends the program where there are none.
    if !objc2::available!(macos = 15.0) {
        return Err("the metal backend needs macOS 15 or newer".to_owned());
    }
    let Some(gpu) = metal::Device::all().into_iter().next() else {
        let reason = "macOS offers no GPU to this process; in a virtual machine there may be none";
        return Err(reason.to_owned());
    };
    if !gpu.as_ref().supportsFamily(MTLGPUFamily::Apple7) {
        return Err(format!(
            "{} has no matrix instructions (GPU family Apple7, from M1 on); a virtual machine's GPU has none either",
            name(&gpu)
        ));
    }
    Ok(gpu)
}

/// What Apple calls it.
pub(crate) fn name(gpu: &metal::Device) -> String {
    gpu.as_ref().name().to_string()
}

/// Metal doesn't say how many there are; these are those of the largest of a kind, or near it.
fn cores(gpu: &metal::Device) -> usize {
    match gpu.device_type() {
        MetalDeviceType::Phone => 6,
        MetalDeviceType::BasePro | MetalDeviceType::Medium => 20,
        MetalDeviceType::Max => 40,
        MetalDeviceType::Ultra => 80,
    }
}

fn kernel_error(error: MetalKernelError) -> candle_core::Error {
    MetalError::from(error).into()
}

impl AppleGpu {
    /// Opens the GPU.
    ///
    /// # Errors
    /// [`Error::BackendNotAvailable`] where there is none that the kernels run on; candle's own.
    pub fn open() -> inference_core::Result<Self> {
        find().map_err(|reason| Error::BackendNotAvailable { name: NAME.to_owned(), reason })?;
        let opened = Device::new_metal(0).map_err(crate::device::fault)?;
        match opened {
            Device::Metal(device) => Ok(Self {
                cores: cores(device.metal_device()),
                device,
                libraries: RefCell::default(),
                pipelines: RefCell::default(),
            }),
            _ => Err(Error::Device { reason: "candle opened another device".to_owned() }),
        }
    }

    fn tensor(&self, buffer: Arc<metal::Buffer>, dtype: DType, shape: impl Into<Shape>) -> Tensor {
        let shape = shape.into();
        let storage = MetalStorage::new(buffer, self.device.clone(), shape.elem_count(), dtype);
        Tensor::from_storage(Storage::Metal(storage), shape, BackpropOp::none(), false)
    }

    /// Refuses what is more than a buffer can have.
    fn fits(&self, bytes: usize) -> Result<()> {
        let most = self.device.metal_device().as_ref().maxBufferLength();
        if bytes > most {
            bail!("a buffer of the model needs {bytes} bytes, and this GPU's have at most {most}");
        }
        Ok(())
    }

    /// A library, compiled if it is asked for the first time.
    fn library(&self, library: Library) -> Result<metal::Library> {
        if let Some(compiled) = self.libraries.borrow().get(&library) {
            return Ok(compiled.clone());
        }
        let options = MTLCompileOptions::new();
        // What is no number, or infinite, must stay so: in what the compiler rearranges, and in `exp2` and its like, which
        // are Metal's fast ones unless this is said as well.
        options.setMathMode(MTLMathMode::Safe);
        options.setMathFloatingPointFunctions(MTLMathFloatingPointFunctions::Precise);
        let device = self.device.metal_device();
        let compiled = device
            .new_library_with_source(&library.source(), Some(&options))
            .map_err(kernel_error)?;
        self.libraries.borrow_mut().insert(library, compiled.clone());
        Ok(compiled)
    }

    /// A kernel, likewise.
    fn pipeline(&self, library: Library, name: &'static str) -> Result<ComputePipeline> {
        if let Some(pipeline) = self.pipelines.borrow().get(&(library, name)) {
            return Ok(pipeline.clone());
        }
        let function = self.library(library)?.get_function(name, None).map_err(kernel_error)?;
        let device = self.device.metal_device();
        let pipeline =
            device.new_compute_pipeline_state_with_function(&function).map_err(kernel_error)?;
        self.pipelines.borrow_mut().insert((library, name), pipeline.clone());
        Ok(pipeline)
    }

    fn encode(&self, kernel: &Kernel<'_>, grid: [usize; 3], threads: usize) -> Result<()> {
        let Kernel { library, name, buffers, arguments } = *kernel;
        let pipeline = self.pipeline(library, name)?;
        let most = pipeline.max_total_threads_per_threadgroup();
        if threads > most {
            bail!(
                "{name} of {library:?} needs {threads} threads, and this GPU has room for {most}"
            );
        }
        let guard = self.device.command_encoder()?;
        let encoder: &metal::ComputeCommandEncoder = guard.as_ref();
        encoder.set_compute_pipeline_state(&pipeline);
        for (at, buffer) in buffers.iter().enumerate() {
            let (Buffer::Read(tensor) | Buffer::Write(tensor)) = *buffer;
            let (storage, layout) = tensor.storage_and_layout();
            let Storage::Metal(storage) = &*storage else {
                bail!("an operand of {name} is not on the GPU")
            };
            let offset = layout.start_offset() * tensor.dtype().size_in_bytes();
            // By these two it is known what depends on what: launches run at the same time if nothing does.
            match buffer {
                Buffer::Read(_) => encoder.set_input_buffer(at, Some(storage.buffer()), offset),
                Buffer::Write(_) => encoder.set_output_buffer(at, Some(storage.buffer()), offset),
            }
        }
        let pointer = arguments.as_ptr().cast();
        encoder.set_bytes_directly(buffers.len(), arguments.len(), pointer);
        encoder.dispatch_thread_groups(size(grid), size([threads, 1, 1]));
        Ok(())
    }
}

/// The numbers of a tensor, when all that was asked for is done.
fn numbers(x: &Tensor) -> Result<Vec<f32>> {
    let (storage, layout) = x.storage_and_layout();
    let Storage::Metal(storage) = &*storage else { bail!("what is read is not on the GPU") };
    let (CpuStorage::F32(mut all), Some((from, to))) =
        (storage.to_cpu_storage()?, layout.contiguous_offsets())
    else {
        bail!("{:?} numbers in {layout:?} can't be read", x.dtype())
    };
    all.truncate(to);
    all.drain(..from);
    Ok(all)
}

fn size([width, height, depth]: [usize; 3]) -> MTLSize {
    MTLSize { width, height, depth }
}

impl Launcher for AppleGpu {
    fn room(&self, rows: usize, cols: usize) -> Result<Tensor> {
        let numbers = (rows * cols).max(1);
        // candle takes powers of two of bytes.
        self.fits((4 * numbers).next_power_of_two())?;
        let buffer = self.device.new_buffer_builder().with_size_for(numbers, DType::F32).build()?;
        Ok(self.tensor(buffer, DType::F32, (rows, cols)))
    }

    fn place(&self, bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor> {
        // Metal has no buffers without bytes.
        let bytes = if bytes.is_empty() { &[0; 4][..] } else { bytes };
        self.fits(bytes.len())?;
        let buffer = self.device.new_buffer_builder().with_data(bytes).build()?;
        Ok(self.tensor(buffer, dtype, shape))
    }

    fn cache(&self, numbers: usize, dtype: DType) -> Result<Tensor> {
        self.fits(numbers * dtype.size_in_bytes())?;
        // Of as many bytes as it needs, not of a power of two.
        let buffer = self.device.new_private_buffer(numbers.max(1), dtype, "cache")?;
        Ok(self.tensor(buffer, dtype, numbers))
    }

    fn read(&self, x: &Tensor) -> Result<Vec<f32>> {
        autoreleasepool(|_| {
            // Metal copies no regions without bytes: the rows that a chunk of a prompt wants may be none.
            let numbers = if x.elem_count() == 0 { Vec::new() } else { numbers(x)? };
            // Bringing them looks at the last of the queue's buffers alone; a step has several, and any may have failed.
            self.device.wait_until_completed()?;
            Ok(numbers)
        })
    }

    fn memory(&self) -> (u64, u64) {
        let device = self.device.metal_device();
        let most = device.recommended_max_working_set_size();
        (device.current_allocated_size() as u64, most as u64)
    }

    fn cores(&self) -> usize {
        self.cores
    }

    fn load(&self, library: Library) -> Result<()> {
        library.kernels().iter().try_for_each(|name| self.pipeline(library, name).map(drop))
    }

    fn launch(&self, kernel: &Kernel<'_>, grid: [usize; 3], threads: usize) -> Result<()> {
        // Else what Objective-C hands out would be kept as long as the thread.
        autoreleasepool(|_| self.encode(kernel, grid, threads))
    }
}
