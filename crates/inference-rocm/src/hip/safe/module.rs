//! Code on the device.

use super::HipDevice;
use crate::{
    code_object::{CodeObject, Kernel},
    hip::{
        HipError,
        sys::{hipFunction_t, hipModule_t},
    },
};
use std::{ffi::CString, fmt, ptr, sync::Arc};

/// A loaded code object.
pub struct HipModule {
    raw: hipModule_t,
    contents: CodeObject,
    device: Arc<HipDevice>,
    /// HIP may look into it again when a kernel is first asked for.
    _code: Box<[u8]>,
}

impl fmt::Debug for HipModule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HipModule").field("contents", &self.contents).finish_non_exhaustive()
    }
}

// SAFETY: HIP's handles may be used from any thread.
unsafe impl Send for HipModule {}
// SAFETY: as above.
unsafe impl Sync for HipModule {}

impl HipModule {
    /// Loads a code object.
    ///
    /// # Errors
    /// [`HipError::CodeObject`]: damaged, or for another architecture; or what HIP says.
    pub fn load(device: &Arc<HipDevice>, code: Vec<u8>) -> Result<Arc<Self>, HipError> {
        let contents = CodeObject::read(&code).map_err(HipError::CodeObject)?;
        let arch = device.info().arch();
        if !contents.is_for(arch) {
            let reason = format!("it is for {}, the device is {arch}", contents.target);
            return Err(HipError::CodeObject(reason));
        }
        let code = code.into_boxed_slice();
        let mut raw = ptr::null_mut();
        let image = code.as_ptr().cast();
        // SAFETY: `CodeObject::read` has found all that the file's headers name within `code`, which outlives the module.
        device.call(|runtime| unsafe { runtime.hipModuleLoadData(&mut raw, image) })?;
        Ok(Arc::new(Self { raw, contents, device: device.clone(), _code: code }))
    }

    /// Its kernel `name`.
    ///
    /// # Errors
    /// [`HipError::NoKernel`], or what HIP says.
    pub fn function(self: &Arc<Self>, name: &str) -> Result<HipFunction, HipError> {
        let missing = || HipError::NoKernel(name.to_owned());
        let kernel = self.contents.kernel(name).ok_or_else(missing)?.clone();
        let name = CString::new(name).map_err(|_| missing())?;
        let mut raw = ptr::null_mut();
        // SAFETY: the module is loaded, the name ends with a zero, the pointer is to a live handle.
        self.device.call(|runtime| unsafe {
            runtime.hipModuleGetFunction(&mut raw, self.raw, name.as_ptr())
        })?;
        Ok(HipFunction { raw, kernel: Arc::new(kernel), module: self.clone() })
    }
}

impl Drop for HipModule {
    fn drop(&mut self) {
        // SAFETY: the handle is alive, and every function of it holds the module.
        self.device.release(|runtime| unsafe { runtime.hipModuleUnload(self.raw) });
    }
}

/// A kernel, which keeps its module loaded.
#[derive(Clone)]
pub struct HipFunction {
    raw: hipFunction_t,
    kernel: Arc<Kernel>,
    module: Arc<HipModule>,
}

impl fmt::Debug for HipFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HipFunction").field(&self.kernel).finish()
    }
}

// SAFETY: HIP's handles may be used from any thread.
unsafe impl Send for HipFunction {}
// SAFETY: as above.
unsafe impl Sync for HipFunction {}

impl HipFunction {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.kernel.name
    }

    /// Bytes of scratch memory of a lane; more than 0 where registers were spilled.
    pub fn scratch_bytes(&self) -> u32 {
        self.kernel.scratch_bytes
    }

    pub(super) fn raw(&self) -> hipFunction_t {
        self.raw
    }

    pub(super) fn kernel(&self) -> &Arc<Kernel> {
        &self.kernel
    }

    pub(super) fn device(&self) -> &Arc<HipDevice> {
        &self.module.device
    }
}
