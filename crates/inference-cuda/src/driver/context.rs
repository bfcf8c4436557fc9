//! A device's primary context.

use super::error::{CudaError, check};
use cudarc::driver::{
    result,
    sys::{CUcontext, CUdevice},
};
use std::ptr;

/// The primary context of a device, retained until it is dropped.
#[derive(Debug)]
pub(super) struct Context {
    device: CUdevice,
    raw: CUcontext,
}

impl Context {
    pub(super) fn new(ordinal: i32) -> Result<Self, CudaError> {
        let device = check("cuDeviceGet", result::device::get(ordinal))?;
        // SAFETY: the device is one that CUDA has just named.
        let raw = unsafe { result::primary_ctx::retain(device) };
        Ok(Self { device, raw: check("cuDevicePrimaryCtxRetain", raw)? })
    }

    /// Makes it the one of this thread, which calls of CUDA that name none use.
    pub(super) fn bind(&self) -> Result<(), CudaError> {
        // SAFETY: it is retained.
        check("cuCtxSetCurrent", unsafe { result::ctx::set_current(self.raw) })
    }

    /// What `f` finds in the context of device `ordinal`; afterwards this thread's current one is what it was.
    pub(super) fn aside<T>(
        ordinal: i32,
        f: impl FnOnce(&Self) -> Result<T, CudaError>,
    ) -> Result<T, CudaError> {
        let before = check("cuCtxGetCurrent", result::ctx::get_current())?;
        let found = f(&Self::new(ordinal)?);
        // SAFETY: it was current a moment ago; null is none.
        let set = unsafe { result::ctx::set_current(before.unwrap_or(ptr::null_mut())) };
        check("cuCtxSetCurrent", set).and(found)
    }

    /// Free and total memory, in bytes.
    pub(super) fn memory(&self) -> Result<(u64, u64), CudaError> {
        self.bind()?;
        let (free, total) = check("cuMemGetInfo", result::mem_get_info())?;
        Ok((free as u64, total as u64))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained once and is released once.
        let released = unsafe { result::primary_ctx::release(self.device) };
        released_or_told(check("cuDevicePrimaryCtxRelease", released));
    }
}

/// For what can't be released: nobody could act on it, but a log should have it.
pub(super) fn released_or_told(result: Result<(), CudaError>) {
    if let Err(error) = result {
        tracing::warn!("{error}");
    }
}
