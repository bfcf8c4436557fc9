//! Points in a stream.

use super::{HipDevice, HipStream};
use crate::hip::{
    HipError, Kind,
    sys::{EVENT_DEFAULT, EVENT_DISABLE_TIMING, hipEvent_t},
};
use std::{ptr, sync::Arc};

/// A point in a stream, to wait for or to measure from.
#[derive(Debug)]
pub struct HipEvent {
    raw: hipEvent_t,
    device: Arc<HipDevice>,
}

// SAFETY: HIP's handles may be used from any thread.
unsafe impl Send for HipEvent {}
// SAFETY: as above.
unsafe impl Sync for HipEvent {}

impl HipEvent {
    /// An event to wait for.
    ///
    /// # Errors
    /// What HIP says.
    pub fn new(device: &Arc<HipDevice>) -> Result<Self, HipError> {
        Self::with_flags(device, EVENT_DISABLE_TIMING)
    }

    /// An event with a time.
    ///
    /// # Errors
    /// What HIP says.
    pub fn timed(device: &Arc<HipDevice>) -> Result<Self, HipError> {
        Self::with_flags(device, EVENT_DEFAULT)
    }

    fn with_flags(device: &Arc<HipDevice>, flags: u32) -> Result<Self, HipError> {
        let mut raw = ptr::null_mut();
        // SAFETY: the pointer is to a live handle.
        device.call(|runtime| unsafe { runtime.hipEventCreateWithFlags(&mut raw, flags) })?;
        Ok(Self { raw, device: device.clone() })
    }

    /// Puts it behind all work of `stream` so far.
    ///
    /// # Errors
    /// What HIP says.
    pub fn record(&self, stream: &HipStream) -> Result<(), HipError> {
        // SAFETY: both handles are alive.
        self.device.call(|runtime| unsafe { runtime.hipEventRecord(self.raw, stream.raw()) })
    }

    /// Waits until it is reached; at once if it was never recorded.
    ///
    /// # Errors
    /// What HIP says.
    pub fn wait(&self) -> Result<(), HipError> {
        // SAFETY: the handle is alive.
        self.device.call(|runtime| unsafe { runtime.hipEventSynchronize(self.raw) })
    }

    /// Whether it is reached.
    ///
    /// # Errors
    /// What HIP says.
    pub fn is_reached(&self) -> Result<bool, HipError> {
        // SAFETY: the handle is alive.
        match self.device.call(|runtime| unsafe { runtime.hipEventQuery(self.raw) }) {
            Err(error) if error.kind() == Kind::NotReady => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Milliseconds from `start` to this; both are [`timed`](Self::timed) and reached.
    ///
    /// # Errors
    /// What HIP says.
    pub fn milliseconds_since(&self, start: &Self) -> Result<f32, HipError> {
        let mut time = 0.0;
        // SAFETY: both handles are alive, and the pointer is to a live number.
        self.device.call(|runtime| unsafe {
            runtime.hipEventElapsedTime(&mut time, start.raw, self.raw)
        })?;
        Ok(time)
    }
}

impl Drop for HipEvent {
    fn drop(&mut self) {
        // SAFETY: the handle is alive, and nothing uses it after this.
        self.device.release(|runtime| unsafe { runtime.hipEventDestroy(self.raw) });
    }
}
