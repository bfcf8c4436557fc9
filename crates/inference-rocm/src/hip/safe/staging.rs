//! Pinned host memory that copies pass through: the card reads it without a stop, and the caller's may be reused at once.

use super::{HipDevice, HipEvent, HipStream};
use crate::hip::{HipError, sys::HOST_MALLOC_DEFAULT};
use std::{ffi::c_void, ptr, sync::Arc};

/// Bytes of a segment, and segments: one is filled while the card reads others.
const SEGMENT: usize = 4 << 20;
const SEGMENTS: usize = 4;

/// A ring of segments for copies to the device, and one for copies from it.
#[derive(Debug)]
pub(super) struct Staging {
    pinned: Pinned,
    segments: Vec<Segment>,
    current: usize,
    /// Bytes of the current segment that are taken.
    used: usize,
}

#[derive(Debug)]
struct Segment {
    /// Behind the last copy out of it.
    event: HipEvent,
    /// Whether that was recorded.
    is_pending: bool,
}

impl Staging {
    pub(super) fn new(device: &Arc<HipDevice>) -> Result<Self, HipError> {
        let segment = || Ok(Segment { event: HipEvent::new(device)?, is_pending: false });
        let segments = (0..SEGMENTS).map(|_| segment()).collect::<Result<_, HipError>>()?;
        let pinned = Pinned::new(device, (SEGMENTS + 1) * SEGMENT)?;
        Ok(Self { pinned, segments, current: 0, used: 0 })
    }

    /// Copies the beginning of `bytes` to pinned memory: where, and how many. They stay until the copy that the caller
    /// enqueues on `stream` before the next call.
    pub(super) fn place(
        &mut self,
        bytes: &[u8],
        stream: &HipStream,
    ) -> Result<(*const c_void, usize), HipError> {
        if self.used == SEGMENT {
            let segment = &mut self.segments[self.current];
            segment.event.record(stream)?;
            segment.is_pending = true;
            self.current = (self.current + 1) % SEGMENTS;
            let next = &mut self.segments[self.current];
            if next.is_pending {
                next.event.wait()?;
                next.is_pending = false;
            }
            self.used = 0;
        }
        let len = bytes.len().min(SEGMENT - self.used);
        let to = self.pinned.at(self.current * SEGMENT + self.used);
        // SAFETY: `len` bytes from there are within the segment, which no copy reads any more; `bytes` is the caller's.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, len) };
        self.used = (self.used + len).next_multiple_of(64).min(SEGMENT);
        Ok((to.cast(), len))
    }

    /// Where copies from the device land, and how many bytes may.
    pub(super) fn landing(&self) -> (*mut u8, usize) {
        (self.pinned.at(SEGMENTS * SEGMENT), SEGMENT)
    }
}

/// Pinned host memory.
#[derive(Debug)]
struct Pinned {
    pointer: *mut c_void,
    device: Arc<HipDevice>,
}

// SAFETY: it is the only owner of memory that any thread may use.
unsafe impl Send for Pinned {}

impl Pinned {
    fn new(device: &Arc<HipDevice>, bytes: usize) -> Result<Self, HipError> {
        let mut pointer = ptr::null_mut();
        // SAFETY: the pointer is to a live pointer.
        device.call(|runtime| unsafe {
            runtime.hipHostMalloc(&mut pointer, bytes, HOST_MALLOC_DEFAULT)
        })?;
        Ok(Self { pointer, device: device.clone() })
    }

    fn at(&self, byte: usize) -> *mut u8 {
        self.pointer.cast::<u8>().wrapping_add(byte)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: `hipHostMalloc` gave it, and only this frees it; the stream that copies out of it waits before.
        self.device.release(|runtime| unsafe { runtime.hipHostFree(self.pointer) });
    }
}
