//! Apple's GPU without one: the Metal kernels compiled as C++ for this machine and run lane by lane, over candle's CPU
//! tensors.

use candle_core::{CpuStorage, DType, InplaceOp1, Layout, Result, Storage, Tensor, bail};
use inference_gpu::{
    Driver, Launch,
    cpu::{self, CpuDriver, NEEDS, Order},
};
use inference_metal::{
    Buffer, Candle, Kernel, Kernels, Launcher, Library, OnCpu, operations::Operations,
};
use std::{
    cell::{Cell, RefCell},
    collections::{HashMap, hash_map::Entry},
    ffi::c_void,
    fmt,
    ptr::from_ref,
};

/// What the Metal Shading Language is in C++.
const SHIM: &str = include_str!("../../crates/inference-metal/kernels/shim/metal.h");

/// The device over candle's tensors with our kernels, whose lanes run in this order. `None`, and a line that says so, where
/// there can be none.
pub fn kernels(order: Order) -> Option<Candle<Kernels<Lanes>>> {
    Some(Candle::new(Kernels::new(Lanes::new(order)?)))
}

/// Runs the kernels.
pub struct Lanes {
    driver: CpuDriver,
    compiled: RefCell<HashMap<Library, Vec<cpu::Kernel>>>,
    /// What makes tensors.
    tensors: OnCpu,
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.driver.fmt(f)
    }
}

impl Lanes {
    /// `None`, and a line that says so, where kernels can't run on the CPU.
    pub fn new(order: Order) -> Option<Self> {
        // Any architecture with waves of 32 lanes: the driver's matrix instructions are not used.
        let driver = CpuDriver::new("gfx1030", order);
        if driver.is_none() {
            println!("skipped: {NEEDS}");
        }
        Some(Self { driver: driver?, compiled: RefCell::default(), tensors: OnCpu::default() })
    }

    fn kernel(&self, library: Library, name: &str) -> Result<cpu::Kernel> {
        let names = library.kernels();
        let mut compiled = self.compiled.borrow_mut();
        let kernels = match compiled.entry(library) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let source = format!("{SHIM}\n#line 1 \"{library:?}\"\n{}", library.source());
                let kernels = self.driver.compile(&source, &[], names);
                entry.insert(kernels.map_err(candle_core::Error::wrap)?)
            }
        };
        match names.iter().position(|n| *n == name) {
            Some(i) => Ok(kernels[i].clone()),
            None => bail!("{library:?} has no kernel {name}"),
        }
    }
}

/// Takes the address of what a tensor's storage holds, to write to it.
struct Address(Cell<*mut c_void>);

impl InplaceOp1 for Address {
    fn name(&self) -> &'static str {
        "address"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let at = layout.start_offset();
        self.0.set(match storage {
            CpuStorage::F32(all) => all[at..].as_mut_ptr().cast(),
            CpuStorage::F16(all) => all[at..].as_mut_ptr().cast(),
            CpuStorage::BF16(all) => all[at..].as_mut_ptr().cast(),
            CpuStorage::U32(all) => all[at..].as_mut_ptr().cast(),
            other => bail!("no kernel writes {other:?}"),
        });
        Ok(())
    }
}

fn address(buffer: Buffer<'_>) -> Result<*mut c_void> {
    let tensor = match buffer {
        Buffer::Write(tensor) => {
            let address = Address(Cell::new(std::ptr::null_mut()));
            tensor.inplace_op1(&address)?;
            return Ok(address.0.get());
        }
        Buffer::Read(tensor) => tensor,
    };
    let (storage, layout) = tensor.storage_and_layout();
    let at = layout.start_offset();
    Ok(match &*storage {
        Storage::Cpu(CpuStorage::F32(all)) => all[at..].as_ptr().cast_mut().cast(),
        Storage::Cpu(CpuStorage::F16(all)) => all[at..].as_ptr().cast_mut().cast(),
        Storage::Cpu(CpuStorage::BF16(all)) => all[at..].as_ptr().cast_mut().cast(),
        Storage::Cpu(CpuStorage::U32(all)) => all[at..].as_ptr().cast_mut().cast(),
        _ => bail!("no kernel reads {:?}", tensor.dtype()),
    })
}

impl Launcher for Lanes {
    fn room(&self, rows: usize, cols: usize) -> Result<Tensor> {
        self.tensors.room(rows, cols)
    }

    fn place(&self, bytes: &[u8], dtype: DType, shape: &[usize]) -> Result<Tensor> {
        self.tensors.place(bytes, dtype, shape)
    }

    fn cache(&self, numbers: usize, dtype: DType) -> Result<Tensor> {
        self.tensors.cache(numbers, dtype)
    }

    fn memory(&self) -> (u64, u64) {
        self.tensors.memory()
    }

    fn cores(&self) -> usize {
        2
    }

    fn load(&self, library: Library) -> Result<()> {
        library.kernels().iter().try_for_each(|name| self.kernel(library, name).map(drop))
    }

    fn launch(&self, kernel: &Kernel<'_>, grid: [usize; 3], threads: usize) -> Result<()> {
        let compiled = self.kernel(kernel.library, kernel.name)?;
        let addresses: Vec<_> =
            kernel.buffers.iter().map(|b| address(*b)).collect::<Result<_>>()?;
        let mut args: Vec<_> =
            addresses.iter().map(|a| from_ref(a).cast_mut().cast::<c_void>()).collect();
        args.push(kernel.arguments.as_ptr().cast_mut().cast());
        let launch =
            Launch { grid: grid.map(|n| n as u32), block: threads as u32, shared_bytes: 0 };
        // SAFETY: the kernel's buffers and its structure are those that it declares, as `Kernels` gives them; the tensors are
        // alive until this returns, when the kernel has run, and nobody else has them meanwhile.
        unsafe { self.driver.launch(&compiled, launch, &mut args) }
            .map_err(candle_core::Error::wrap)
    }
}
