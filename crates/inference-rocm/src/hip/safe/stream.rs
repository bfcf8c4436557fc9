//! A stream: copies and launches, in order.

use super::{
    HipDevice, HipFunction, HipSlice, LaunchBuilder, LaunchConfig, graph::Recording,
    staging::Staging,
};
use crate::hip::{
    HipError,
    sys::{Runtime, STREAM_NON_BLOCKING, hipStream_t},
};
use bytemuck::Pod;
use std::{
    ffi::c_void,
    fmt, ptr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Work that the device does in order. Copies to the device are done with their source on return; copies from it wait.
pub struct HipStream {
    raw: hipStream_t,
    device: Arc<HipDevice>,
    /// Made by the first copy.
    staging: Mutex<Option<Staging>>,
    /// While launches are recorded.
    pub(super) recording: Mutex<Option<Recording>>,
}

impl fmt::Debug for HipStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HipStream").field("device", &self.device).finish_non_exhaustive()
    }
}

// SAFETY: HIP's handles may be used from any thread; all else is behind locks.
unsafe impl Send for HipStream {}
// SAFETY: as above.
unsafe impl Sync for HipStream {}

impl HipStream {
    /// A stream of its own, in step with no other.
    ///
    /// # Errors
    /// What HIP says.
    pub fn new(device: &Arc<HipDevice>) -> Result<Arc<Self>, HipError> {
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is to a live handle.
        device.call(|runtime| unsafe {
            runtime.hipStreamCreateWithFlags(&mut raw, STREAM_NON_BLOCKING)
        })?;
        let (staging, recording) = (Mutex::new(None), Mutex::new(None));
        Ok(Arc::new(Self { raw, device: device.clone(), staging, recording }))
    }

    /// Its device.
    pub fn device(&self) -> &Arc<HipDevice> {
        &self.device
    }

    pub(super) fn raw(&self) -> hipStream_t {
        self.raw
    }

    /// Copies `values` to value `at` of `into`. They may be changed on return.
    ///
    /// # Errors
    /// [`HipError::OutOfBounds`], or what HIP says.
    pub fn upload<T: Pod>(
        &self,
        into: &HipSlice<T>,
        at: usize,
        values: &[T],
    ) -> Result<(), HipError> {
        let mut bytes: &[u8] = bytemuck::cast_slice(values);
        let mut to = into.at(at.saturating_mul(size_of::<T>()), bytes.len())?;
        self.only_launches("a copy")?;
        let mut staging = self.staging()?;
        let staging = staging.as_mut().expect("`staging` made it");
        while !bytes.is_empty() {
            let (from, len) = staging.place(bytes, self)?;
            let copy = |runtime: &Runtime| {
                // SAFETY: `len` bytes are in both; the pinned ones stay until the stream has read them.
                unsafe { runtime.hipMemcpyHtoDAsync(to, from, len, self.raw) }
            };
            self.device.call(copy)?;
            (bytes, to) = (&bytes[len..], to.wrapping_byte_add(len));
        }
        Ok(())
    }

    /// Copies from value `at` of `from`, and waits until they are there.
    ///
    /// # Errors
    /// [`HipError::OutOfBounds`], what HIP says, and what earlier work failed with.
    pub fn download<T: Pod>(
        &self,
        from: &HipSlice<T>,
        at: usize,
        values: &mut [T],
    ) -> Result<(), HipError> {
        let mut bytes: &mut [u8] = bytemuck::cast_slice_mut(values);
        let mut source = from.at(at.saturating_mul(size_of::<T>()), bytes.len())?;
        self.only_launches("a copy")?;
        if bytes.is_empty() {
            return self.synchronize();
        }
        let staging = self.staging()?;
        let (landing, most) = staging.as_ref().expect("`staging` made it").landing();
        while !bytes.is_empty() {
            let len = bytes.len().min(most);
            // SAFETY: `len` bytes are in both, and both stay until the stream was waited for.
            self.device.call(|runtime| unsafe {
                runtime.hipMemcpyDtoHAsync(landing.cast(), source, len, self.raw)
            })?;
            self.synchronize()?;
            let (now, rest) = bytes.split_at_mut(len);
            // SAFETY: the copy into these `len` bytes is done, and the lock keeps others away.
            unsafe { ptr::copy_nonoverlapping(landing, now.as_mut_ptr(), len) };
            (bytes, source) = (rest, source.wrapping_byte_add(len));
        }
        Ok(())
    }

    /// Sets every byte of `slice` to zero.
    ///
    /// # Errors
    /// What HIP says.
    pub fn zero<T: Pod>(&self, slice: &HipSlice<T>) -> Result<(), HipError> {
        self.only_launches("a fill")?;
        if slice.is_empty() {
            return Ok(());
        }
        let (to, bytes) = (slice.at(0, slice.bytes())?, slice.bytes());
        // SAFETY: `bytes` bytes are there; dropping the slice waits for the device.
        self.device.call(|runtime| unsafe { runtime.hipMemsetAsync(to, 0, bytes, self.raw) })
    }

    /// Waits for all its work.
    ///
    /// # Errors
    /// What any of it failed with.
    pub fn synchronize(&self) -> Result<(), HipError> {
        self.only_launches("a wait")?;
        // SAFETY: the handle is alive.
        self.device.call(|runtime| unsafe { runtime.hipStreamSynchronize(self.raw) })
    }

    /// Begins a launch of `function`.
    pub fn launch<'a>(&'a self, function: &'a HipFunction) -> LaunchBuilder<'a> {
        LaunchBuilder::new(self, function)
    }

    /// Starts `function` with a pointer to each argument. Number and shape are checked, sizes can't be.
    ///
    /// # Errors
    /// Number or shape do not fit; or what HIP says.
    ///
    /// # Safety
    /// Each pointer is to a value of the kernel's type; what the kernel reads and writes is in bounds, and alive until it
    /// has run.
    pub unsafe fn launch_raw(
        &self,
        function: &HipFunction,
        config: LaunchConfig,
        arguments: &mut [*mut c_void],
    ) -> Result<(), HipError> {
        let kernel = function.kernel();
        let wrong = |reason| HipError::Launch { kernel: kernel.name.clone(), reason };
        if !Arc::ptr_eq(function.device(), &self.device) {
            return Err(wrong("the kernel is of another device".to_owned()));
        }
        config.check(kernel, self.device.info()).map_err(wrong)?;
        let (given, has) = (arguments.len(), kernel.arguments.len());
        if given != has {
            return Err(wrong(format!("{given} arguments, where it has {has}")));
        }
        let mut recording = self.recording();
        let Some(recording) = recording.as_mut() else {
            // SAFETY: the caller's.
            return unsafe { self.start(function, config, arguments) };
        };
        // SAFETY: the caller's: there are as many pointers as arguments, each to a value of its type.
        let mut pointers = unsafe { recording.keep(function, arguments) }?;
        // SAFETY: copies of the same values, which the recording keeps; the rest is the caller's.
        unsafe { self.start(function, config, &mut pointers) }?;
        recording.launched(self)
    }

    /// # Safety
    /// As of [`launch_raw`](Self::launch_raw), and the arguments are of the kernel's number.
    unsafe fn start(
        &self,
        function: &HipFunction,
        config: LaunchConfig,
        arguments: &mut [*mut c_void],
    ) -> Result<(), HipError> {
        let LaunchConfig { grid: [gx, gy, gz], block: [bx, by, bz], shared_bytes } = config;
        let (raw, arguments) = (function.raw(), arguments.as_mut_ptr());
        // SAFETY: both handles are alive, HIP copies the arguments before it returns, and the rest is the caller's.
        self.device.call(|runtime| unsafe {
            runtime.hipModuleLaunchKernel(
                raw,
                gx,
                gy,
                gz,
                bx,
                by,
                bz,
                shared_bytes,
                self.raw,
                arguments,
                ptr::null_mut(),
            )
        })
    }

    pub(super) fn recording(&self) -> MutexGuard<'_, Option<Recording>> {
        self.recording.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses `what` while launches are recorded.
    pub(crate) fn only_launches(&self, what: &'static str) -> Result<(), HipError> {
        if self.recording().is_some() { Err(HipError::Capturing(what)) } else { Ok(()) }
    }

    fn staging(&self) -> Result<MutexGuard<'_, Option<Staging>>, HipError> {
        let mut staging = self.staging.lock().unwrap_or_else(PoisonError::into_inner);
        if staging.is_none() {
            *staging = Some(Staging::new(&self.device)?);
        }
        Ok(staging)
    }
}

impl Drop for HipStream {
    fn drop(&mut self) {
        // SAFETY: the handle is alive, and nothing uses it after this; pinned memory is freed after the wait.
        self.device.release(|runtime| unsafe {
            let waited = runtime.hipStreamSynchronize(self.raw);
            waited.and(runtime.hipStreamDestroy(self.raw))
        });
    }
}
