//! Loaded modules and their kernels.

use super::{
    context::{Context, released_or_told},
    error::{CudaError, check},
};
use cudarc::driver::{
    result,
    sys::{CUfunction, CUfunction_attribute, CUmodule},
};
use std::{ffi::CString, rc::Rc};

/// Code on the device; unloaded on drop.
#[derive(Debug)]
pub(super) struct Module {
    raw: CUmodule,
    context: Rc<Context>,
}

impl Module {
    /// Loads a cubin, or PTX that the driver compiles.
    ///
    /// # Safety
    /// `code` was made by NVRTC: CUDA is given no length, so it must be whole, and PTX end with a zero.
    pub(super) unsafe fn load(context: &Rc<Context>, code: &[u8]) -> Result<Rc<Self>, CudaError> {
        context.bind()?;
        // SAFETY: the caller's; CUDA copies what it needs.
        let raw = unsafe { result::module::load_data(code.as_ptr().cast()) };
        Ok(Rc::new(Self { raw: check("cuModuleLoadData", raw)?, context: context.clone() }))
    }

    /// The kernel called `name`.
    pub(super) fn kernel(self: &Rc<Self>, name: &str) -> Result<Kernel, CudaError> {
        self.context.bind()?;
        let name = CString::new(name).map_err(|_| CudaError::Name(name.to_owned()))?;
        // SAFETY: the module is loaded.
        let raw = unsafe { result::module::get_function(self.raw, name) };
        Ok(Kernel { raw: check("cuModuleGetFunction", raw)?, module: self.clone() })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        released_or_told(self.context.bind().and_then(|()| {
            // SAFETY: it is loaded, and unloaded once; kernels and graphs keep it until they are gone.
            check("cuModuleUnload", unsafe { result::module::unload(self.raw) })
        }));
    }
}

/// A function of a loaded module, which it keeps loaded.
#[derive(Debug, Clone)]
pub struct Kernel {
    raw: CUfunction,
    module: Rc<Module>,
}

impl Kernel {
    pub(super) fn raw(&self) -> CUfunction {
        self.raw
    }

    /// Bytes of memory that each thread has because registers did not suffice.
    pub fn spilled_bytes(&self) -> u32 {
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES;
        let bytes = self.module.context.bind().and_then(|()| {
            // SAFETY: the function is that of a loaded module.
            let value = unsafe { result::function::get_function_attribute(self.raw, attribute) };
            check("cuFuncGetAttribute", value)
        });
        bytes.map_or(0, i32::unsigned_abs)
    }
}
