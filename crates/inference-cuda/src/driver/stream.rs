//! The one stream of a device, its memory, and copies in its order.

use super::{
    context::{Context, released_or_told},
    error::{CudaError, check, is_out_of_memory},
    module::Kernel,
};
use cudarc::driver::{
    result::{self, stream::StreamKind},
    sys::{CUdeviceptr, CUstream},
};
use std::{
    cell::{Cell, RefCell},
    ffi::c_void,
    ptr::NonNull,
    rc::Rc,
    slice,
};

/// Bytes of pinned memory that uploads go through.
const STAGING: usize = 16 << 20;

/// Bytes of a copy at most: while one is under way the next is put beside it.
const PIECE: usize = 4 << 20;

/// A stream that does not wait for the default one.
#[derive(Debug)]
pub(super) struct Stream {
    raw: CUstream,
    staging: Staging,
    /// While launches are recorded: their kernels.
    recording: RefCell<Option<Vec<Kernel>>>,
    context: Rc<Context>,
}

/// Pinned memory, from which copies are still under way up to byte `used`.
#[derive(Debug)]
struct Staging {
    memory: NonNull<u8>,
    used: Cell<usize>,
}

impl Stream {
    pub(super) fn new(context: &Rc<Context>) -> Result<Self, CudaError> {
        context.bind()?;
        // SAFETY: the context is current; the memory is written before it is read.
        let memory = check("cuMemHostAlloc", unsafe { result::malloc_host(STAGING, 0) })?;
        let memory = NonNull::new(memory.cast()).expect("CUDA gives memory or an error");
        let staging = Staging { memory, used: Cell::new(0) };
        let raw = check("cuStreamCreate", result::stream::create(StreamKind::NonBlocking));
        match raw {
            Ok(raw) => {
                Ok(Self { raw, staging, recording: RefCell::default(), context: context.clone() })
            }
            Err(error) => {
                staging.free();
                Err(error)
            }
        }
    }

    /// The handle, for this thread.
    pub(super) fn bound(&self) -> Result<CUstream, CudaError> {
        self.context.bind()?;
        Ok(self.raw)
    }

    /// As [`bound`](Self::bound), for what can't be recorded.
    fn live(&self, what: &'static str) -> Result<CUstream, CudaError> {
        if self.recording.borrow().is_some() {
            return Err(CudaError::Recording(what));
        }
        self.bound()
    }

    pub(super) fn context(&self) -> &Rc<Context> {
        &self.context
    }

    /// Kernels of launches that are being recorded.
    pub(super) fn recording(&self) -> &RefCell<Option<Vec<Kernel>>> {
        &self.recording
    }

    /// Waits until everything is done.
    pub(super) fn synchronize(&self) -> Result<(), CudaError> {
        let raw = self.live("a wait")?;
        // SAFETY: the stream is alive.
        check("cuStreamSynchronize", unsafe { result::stream::synchronize(raw) })?;
        self.staging.used.set(0);
        Ok(())
    }

    /// Copies `bytes` to `address`; they may be reused on return.
    ///
    /// # Safety
    /// There are so many bytes of the device's memory.
    pub(super) unsafe fn upload(
        &self,
        address: CUdeviceptr,
        bytes: &[u8],
    ) -> Result<(), CudaError> {
        let raw = self.live("an upload")?;
        for (n, piece) in bytes.chunks(PIECE).enumerate() {
            if self.staging.used.get() + piece.len() > STAGING {
                self.synchronize()?;
            }
            let used = self.staging.used.get();
            // SAFETY: the piece fits behind what is in use, as was just seen to, and nothing else points there.
            let staged = unsafe { self.staging.memory.add(used).as_ptr() };
            // SAFETY: as above; the slice ends with the call, the bytes stay until the stream has been waited for.
            let staged = unsafe {
                staged.copy_from_nonoverlapping(piece.as_ptr(), piece.len());
                slice::from_raw_parts(staged, piece.len())
            };
            self.staging.used.set(used + piece.len());
            let to = address + (n * PIECE) as CUdeviceptr;
            // SAFETY: the caller's; the stream is alive.
            check("cuMemcpyHtoDAsync", unsafe { result::memcpy_htod_async(to, staged, raw) })?;
        }
        Ok(())
    }

    /// Copies from `address`, and waits until it is there.
    ///
    /// # Safety
    /// There are so many bytes of the device's memory.
    pub(super) unsafe fn download(
        &self,
        address: CUdeviceptr,
        bytes: &mut [u8],
    ) -> Result<(), CudaError> {
        let raw = self.live("a download")?;
        if !bytes.is_empty() {
            // SAFETY: the caller's; `bytes` outlives the copy, which is waited for even if asking for it failed.
            let copied = unsafe { result::memcpy_dtoh_async(bytes, address, raw) };
            let waited = self.synchronize();
            check("cuMemcpyDtoHAsync", copied)?;
            waited?;
        }
        Ok(())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        released_or_told(self.bound().and_then(|raw| {
            // SAFETY: it is alive, and destroyed once; nothing runs in it any more.
            check("cuStreamSynchronize", unsafe { result::stream::synchronize(raw) })?;
            // SAFETY: as above.
            check("cuStreamDestroy", unsafe { result::stream::destroy(raw) })
        }));
        self.staging.free();
    }
}

impl Staging {
    fn free(&self) {
        let memory = self.memory.as_ptr().cast::<c_void>();
        // SAFETY: it was allocated so, is freed once, and no copy from it is under way.
        released_or_told(check("cuMemFreeHost", unsafe { result::free_host(memory) }));
    }
}

/// Memory of the device; freed on drop.
#[derive(Debug)]
pub struct Buffer {
    address: CUdeviceptr,
    bytes: usize,
    stream: Rc<Stream>,
}

impl Buffer {
    /// `bytes` bytes, at least one, with anything in them.
    pub(super) fn new(stream: &Rc<Stream>, bytes: usize) -> Result<Self, CudaError> {
        stream.live("an allocation")?;
        let bytes = bytes.max(1);
        // SAFETY: the context is current. Only kernels and copies read the memory, as bytes, of which all values are valid.
        let made = check("cuMemAlloc", unsafe { result::malloc_sync(bytes) });
        match made {
            Ok(address) => Ok(Self { address, bytes, stream: stream.clone() }),
            Err(error) if is_out_of_memory(&error) => {
                let (free, _) = stream.context().memory().unwrap_or_default();
                Err(CudaError::OutOfMemory { bytes: bytes as u64, free })
            }
            Err(error) => Err(error),
        }
    }

    /// Where it is, for kernels.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// How large it is, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // Something in the stream may still use it. A device that is lost uses nothing, so its error does not matter here.
        let _ = self.stream.synchronize();
        released_or_told(self.stream.bound().and_then(|_| {
            // SAFETY: it was allocated so, in the context that is current, and is freed once.
            check("cuMemFree", unsafe { result::free_sync(self.address) })
        }));
    }
}
