//! Device memory.

use super::HipDevice;
use crate::hip::{HipError, Kind};
use bytemuck::Pod;
use std::{ffi::c_void, marker::PhantomData, ptr, sync::Arc};

/// `len` values of `T` in device memory; freed on drop, which waits for the device.
#[derive(Debug)]
pub struct HipSlice<T> {
    pointer: *mut c_void,
    len: usize,
    device: Arc<HipDevice>,
    values: PhantomData<T>,
}

// SAFETY: the pointer is an address in device memory that only HIP follows, and HIP may be called from any thread.
unsafe impl<T: Send> Send for HipSlice<T> {}
// SAFETY: as above; nothing here changes through `&self` but device memory, whose order is the streams'.
unsafe impl<T: Sync> Sync for HipSlice<T> {}

impl<T: Pod> HipSlice<T> {
    /// Memory for `len` values, with whatever was there before.
    ///
    /// # Errors
    /// [`HipError::OutOfMemory`] with what is free, or what HIP says.
    pub fn new(device: &Arc<HipDevice>, len: usize) -> Result<Self, HipError> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(HipError::OutOfMemory {
            bytes: u64::MAX,
            free: 0,
            total: device.info().memory,
        })?;
        let mut pointer = ptr::null_mut();
        if bytes > 0 {
            // SAFETY: the pointer is to a live pointer.
            let result = device.call(|runtime| unsafe { runtime.hipMalloc(&mut pointer, bytes) });
            result.map_err(|error| with_sizes(device, bytes, error))?;
        }
        Ok(Self { pointer, len, device: device.clone(), values: PhantomData })
    }

    /// Bytes.
    pub fn bytes(&self) -> usize {
        self.len * size_of::<T>()
    }
}

impl<T> HipSlice<T> {
    /// Values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Its address on the device; 0 if it holds nothing.
    pub fn address(&self) -> u64 {
        self.pointer as u64
    }

    /// The device whose memory it is.
    pub fn device(&self) -> &Arc<HipDevice> {
        &self.device
    }

    /// The address of byte `at`, if `bytes` from there are within.
    pub(super) fn at(&self, at: usize, bytes: usize) -> Result<*mut c_void, HipError> {
        let size = self.len * size_of::<T>();
        if at.checked_add(bytes).is_none_or(|end| end > size) {
            return Err(HipError::OutOfBounds { at, bytes, size });
        }
        Ok(self.pointer.wrapping_byte_add(at))
    }
}

impl<T> Drop for HipSlice<T> {
    fn drop(&mut self) {
        if !self.pointer.is_null() {
            // SAFETY: `hipMalloc` gave it, and only this frees it; freeing waits for work that uses it.
            self.device.release(|runtime| unsafe { runtime.hipFree(self.pointer) });
        }
    }
}

/// An error of an allocation, with the numbers that a caller needs.
fn with_sizes(device: &HipDevice, bytes: usize, error: HipError) -> HipError {
    if error.kind() != Kind::OutOfMemory {
        return error;
    }
    let (free, total) = device.memory().unwrap_or((0, device.info().memory));
    HipError::OutOfMemory { bytes: bytes as u64, free, total }
}
