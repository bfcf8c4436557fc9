//! The C interface of HIP and hiprtc: what this crate calls, with the types and values that hold from HIP 5.2 to 7.14.
//!
//! Enumerations of C are integers here: a newer library may return values that no list of ours has.

#![expect(non_camel_case_types, reason = "the names of the C interface")]
#![expect(non_snake_case, reason = "the names of the C interface")]

use super::result::{HipError, RtcError};
use libloading::Library;
use std::ffi::{c_char, c_float, c_int, c_uint, c_ulonglong, c_ushort, c_void};

/// A status of HIP; 0 is success.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct hipError_t(pub u32);

/// A status of hiprtc; 0 is success.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct hiprtcResult(pub u32);

/// A device by its place among the visible ones.
pub type hipDevice_t = c_int;

/// An address in device memory.
pub type hipDeviceptr_t = *mut c_void;

macro_rules! handles {
    ($($inner:ident $handle:ident $what:literal),* $(,)?) => {$(
        #[doc = concat!("What a `", stringify!($handle), "` points to; never looked into.")]
        #[repr(C)]
        pub struct $inner([u8; 0]);
        #[doc = $what]
        pub type $handle = *mut $inner;
    )*};
}

handles! {
    ihipStream hipStream_t "A stream: work in order.",
    ihipEvent hipEvent_t "A point in a stream.",
    ihipModule hipModule_t "A loaded code object.",
    ihipFunction hipFunction_t "A kernel of a module.",
    ihipGraph hipGraph_t "Recorded work.",
    ihipGraphExec hipGraphExec_t "Recorded work, ready to run.",
    ihipGraphNode hipGraphNode_t "One piece of recorded work.",
    ihiprtcProgram hiprtcProgram "A source on its way to a code object.",
}

/// The identity of a device; AMD's runtime fills it with 16 hexadecimal digits as text.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct hipUUID {
    /// As text.
    pub bytes: [u8; 16],
}

/// Values of `hipError_t` that are told apart here.
pub mod code {
    /// `hipErrorOutOfMemory`.
    pub const OUT_OF_MEMORY: u32 = 2;
    /// `hipErrorNotInitialized`.
    pub const NOT_INITIALIZED: u32 = 3;
    /// `hipErrorInsufficientDriver`.
    pub const INSUFFICIENT_DRIVER: u32 = 35;
    /// `hipErrorNoDevice`.
    pub const NO_DEVICE: u32 = 100;
    /// `hipErrorInvalidDevice`; 5.2 gives it from `hipInit` where there is no device.
    pub const INVALID_DEVICE: u32 = 101;
    /// `hipErrorNotReady`: an answer of a query, no failure.
    pub const NOT_READY: u32 = 600;
    /// `hipErrorRuntimeMemory`.
    pub const RUNTIME_MEMORY: u32 = 1052;
    /// No kernel for this device: invalid function, image, binary, file.
    pub const NO_BINARY: [u32; 4] = [98, 200, 209, 218];
    /// After these the device is gone for this process: uncorrectable memory, bad address, time-out, destroyed context,
    /// assertion, failed launch.
    pub const LOST: [u32; 6] = [214, 700, 702, 709, 710, 719];
}

/// Values of `hipDeviceAttribute_t`, stable since HIP 4.5.
pub mod attribute {
    /// 1 for a GPU that is part of the processor.
    pub const INTEGRATED: i32 = 16;
    /// Lanes of a block.
    pub const MAX_THREADS_PER_BLOCK: i32 = 56;
    /// Compute units; on RDNA pairs of them.
    pub const MULTIPROCESSOR_COUNT: i32 = 63;
    /// Bytes of shared memory (LDS) of a block.
    pub const MAX_SHARED_MEMORY_PER_BLOCK: i32 = 74;
    /// Lanes of a wave.
    pub const WARP_SIZE: i32 = 87;
}

/// `hipStreamNonBlocking`: not in step with the default stream.
pub const STREAM_NON_BLOCKING: c_uint = 1;
/// `hipEventDisableTiming`.
pub const EVENT_DISABLE_TIMING: c_uint = 2;
/// `hipEventDefault`: with a time.
pub const EVENT_DEFAULT: c_uint = 0;
/// `hipHostMallocDefault`.
pub const HOST_MALLOC_DEFAULT: c_uint = 0;
/// `hipStreamCaptureModeThreadLocal`: what other threads do is nothing to a capture.
pub const CAPTURE_THREAD_LOCAL: c_int = 1;

/// `gcnArchName` in `hipDeviceProp_t` of HIP 6 and later (R0600), and before (R0000): bytes from the beginning.
pub const ARCH_NAME_R0600: usize = 1160;
/// See [`ARCH_NAME_R0600`].
pub const ARCH_NAME_R0000: usize = 396;
/// Bytes of that text.
pub const ARCH_NAME_LEN: usize = 256;

/// A table of functions, found by name in an open library, and a checked call of each under the same name.
macro_rules! functions {
    (
        $(#[$attribute:meta])*
        $table:ident: $status:ident => $error:ident;
        required { $(fn $name:ident($($arg:ident: $type:ty),*);)* }
        text { $(fn $text:ident($($text_arg:ident: $text_type:ty),*);)* }
        optional { $(fn $optional:ident($($optional_arg:ident: $optional_type:ty),*);)* }
    ) => {
        $(#[$attribute])*
        pub struct $table {
            $($name: unsafe extern "C" fn($($type),*) -> $status,)*
            $($text: unsafe extern "C" fn($($text_type),*) -> *const c_char,)*
            $($optional: Option<unsafe extern "C" fn($($optional_type),*) -> $status>,)*
        }

        impl $table {
            /// The names of all functions that must be there.
            pub const REQUIRED: &[&str] = &[$(stringify!($name),)* $(stringify!($text),)*];
            /// The names of all functions that may be missing.
            pub const OPTIONAL: &[&str] = &[$(stringify!($optional),)*];

            /// Finds the functions in `library`.
            ///
            /// # Errors
            /// The name of the first that is required and missing.
            ///
            /// # Safety
            /// What the library has under these names are the functions of HIP, and it is never closed.
            pub(super) unsafe fn find(library: &'static Library) -> Result<Self, &'static str> {
                Ok(Self {
                    // SAFETY: the caller vouches for the types; each is copied out of a library that stays open.
                    $($name: unsafe { library.get(stringify!($name)) }
                        .map(|symbol| *symbol).map_err(|_| stringify!($name))?,)*
                    // SAFETY: as above.
                    $($text: unsafe { library.get(stringify!($text)) }
                        .map(|symbol| *symbol).map_err(|_| stringify!($text))?,)*
                    // SAFETY: as above.
                    $($optional: unsafe { library.get(stringify!($optional)) }
                        .map(|symbol| *symbol).ok(),)*
                })
            }

            $(
                #[doc = concat!("Calls `", stringify!($name), "`.")]
                ///
                /// # Errors
                /// What the library says.
                ///
                /// # Safety
                /// As its documentation says: pointers and handles are valid, memory is large enough and lives as
                /// long as the work on it.
                #[allow(clippy::too_many_arguments, reason = "the library's own")]
                pub unsafe fn $name(&self, $($arg: $type),*) -> Result<(), $error> {
                    // SAFETY: the caller's.
                    self.check(stringify!($name), unsafe { (self.$name)($($arg),*) })
                }
            )*

            $(
                #[doc = concat!("Calls `", stringify!($text), "`: a text that is never freed.")]
                pub(super) fn $text(&self, $($text_arg: $text_type),*) -> String {
                    // SAFETY: takes any value, and returns null or a static text.
                    text(unsafe { (self.$text)($($text_arg),*) })
                }
            )*

            $(
                #[doc = concat!("Calls `", stringify!($optional), "`; `None` where this library has no such function.")]
                ///
                /// # Safety
                /// As of the others.
                pub unsafe fn $optional(&self, $($optional_arg: $optional_type),*) -> Option<Result<(), $error>> {
                    // SAFETY: the caller's.
                    self.$optional.map(|f| self.check(stringify!($optional), unsafe { f($($optional_arg),*) }))
                }
            )*
        }
    };
}

/// The text that C hands out; empty for null.
fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the library returns static, terminated texts.
    unsafe { std::ffi::CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

functions! {
    /// The runtime's functions: `libamdhip64`.
    Runtime: hipError_t => HipError;
    required {
        fn hipInit(flags: c_uint);
        fn hipDriverGetVersion(version: *mut c_int);
        fn hipRuntimeGetVersion(version: *mut c_int);
        fn hipGetDeviceCount(count: *mut c_int);
        fn hipGetDevice(device: *mut c_int);
        fn hipSetDevice(device: c_int);
        fn hipSetDeviceFlags(flags: c_uint);
        fn hipDeviceSynchronize();
        fn hipDeviceGet(device: *mut hipDevice_t, ordinal: c_int);
        fn hipDeviceGetName(name: *mut c_char, len: c_int, device: hipDevice_t);
        fn hipDeviceGetUuid(uuid: *mut hipUUID, device: hipDevice_t);
        fn hipDeviceGetPCIBusId(id: *mut c_char, len: c_int, device: c_int);
        fn hipDeviceTotalMem(bytes: *mut usize, device: hipDevice_t);
        fn hipDeviceGetAttribute(value: *mut c_int, attribute: c_int, device: c_int);
        fn hipMemGetInfo(free: *mut usize, total: *mut usize);
        fn hipGetLastError();
        fn hipPeekAtLastError();
        fn hipStreamCreateWithFlags(stream: *mut hipStream_t, flags: c_uint);
        fn hipStreamCreateWithPriority(stream: *mut hipStream_t, flags: c_uint, priority: c_int);
        fn hipStreamDestroy(stream: hipStream_t);
        fn hipStreamQuery(stream: hipStream_t);
        fn hipStreamSynchronize(stream: hipStream_t);
        fn hipStreamWaitEvent(stream: hipStream_t, event: hipEvent_t, flags: c_uint);
        fn hipEventCreateWithFlags(event: *mut hipEvent_t, flags: c_uint);
        fn hipEventDestroy(event: hipEvent_t);
        fn hipEventRecord(event: hipEvent_t, stream: hipStream_t);
        fn hipEventQuery(event: hipEvent_t);
        fn hipEventSynchronize(event: hipEvent_t);
        fn hipEventElapsedTime(milliseconds: *mut c_float, start: hipEvent_t, stop: hipEvent_t);
        fn hipMalloc(pointer: *mut *mut c_void, bytes: usize);
        fn hipFree(pointer: *mut c_void);
        fn hipExtMallocWithFlags(pointer: *mut *mut c_void, bytes: usize, flags: c_uint);
        fn hipHostMalloc(pointer: *mut *mut c_void, bytes: usize, flags: c_uint);
        fn hipHostFree(pointer: *mut c_void);
        fn hipHostRegister(pointer: *mut c_void, bytes: usize, flags: c_uint);
        fn hipHostUnregister(pointer: *mut c_void);
        fn hipHostGetDevicePointer(device: *mut *mut c_void, host: *mut c_void, flags: c_uint);
        fn hipMemcpyAsync(to: *mut c_void, from: *const c_void, bytes: usize, kind: c_int, stream: hipStream_t);
        fn hipMemcpyHtoDAsync(to: hipDeviceptr_t, from: *const c_void, bytes: usize, stream: hipStream_t);
        fn hipMemcpyDtoHAsync(to: *mut c_void, from: hipDeviceptr_t, bytes: usize, stream: hipStream_t);
        fn hipMemcpyDtoDAsync(to: hipDeviceptr_t, from: hipDeviceptr_t, bytes: usize, stream: hipStream_t);
        fn hipMemsetAsync(to: *mut c_void, value: c_int, bytes: usize, stream: hipStream_t);
        fn hipMemsetD16Async(to: hipDeviceptr_t, value: c_ushort, count: usize, stream: hipStream_t);
        fn hipMemsetD32Async(to: hipDeviceptr_t, value: c_int, count: usize, stream: hipStream_t);
        fn hipModuleLoadData(module: *mut hipModule_t, image: *const c_void);
        fn hipModuleUnload(module: hipModule_t);
        fn hipModuleGetFunction(function: *mut hipFunction_t, module: hipModule_t, name: *const c_char);
        fn hipModuleGetGlobal(pointer: *mut hipDeviceptr_t, bytes: *mut usize, module: hipModule_t, name: *const c_char);
        fn hipModuleLaunchKernel(function: hipFunction_t, grid_x: c_uint, grid_y: c_uint, grid_z: c_uint,
            block_x: c_uint, block_y: c_uint, block_z: c_uint, shared_bytes: c_uint, stream: hipStream_t,
            arguments: *mut *mut c_void, extra: *mut *mut c_void);
        fn hipModuleOccupancyMaxActiveBlocksPerMultiprocessor(blocks: *mut c_int, function: hipFunction_t,
            block: c_int, shared_bytes: usize);
        fn hipFuncGetAttribute(value: *mut c_int, attribute: c_int, function: hipFunction_t);
        fn hipStreamBeginCapture(stream: hipStream_t, mode: c_int);
        fn hipStreamEndCapture(stream: hipStream_t, graph: *mut hipGraph_t);
        fn hipStreamIsCapturing(stream: hipStream_t, status: *mut c_int);
        fn hipThreadExchangeStreamCaptureMode(mode: *mut c_int);
        fn hipGraphInstantiate(exec: *mut hipGraphExec_t, graph: hipGraph_t, error_node: *mut hipGraphNode_t,
            log: *mut c_char, log_bytes: usize);
        fn hipGraphLaunch(exec: hipGraphExec_t, stream: hipStream_t);
        fn hipGraphGetNodes(graph: hipGraph_t, nodes: *mut hipGraphNode_t, count: *mut usize);
        fn hipGraphNodeGetType(node: hipGraphNode_t, kind: *mut c_int);
        fn hipGraphDestroy(graph: hipGraph_t);
        fn hipGraphExecDestroy(exec: hipGraphExec_t);
    }
    text {
        fn hipGetErrorName(code: hipError_t);
        fn hipGetErrorString(code: hipError_t);
    }
    optional {
        fn hipGetDevicePropertiesR0600(properties: *mut c_void, device: c_int);
        fn hipGetDevicePropertiesR0000(properties: *mut c_void, device: c_int);
        fn hipGetDeviceProperties(properties: *mut c_void, device: c_int);
        fn hipGraphInstantiateWithFlags(exec: *mut hipGraphExec_t, graph: hipGraph_t, flags: c_ulonglong);
        fn hipGraphUpload(exec: hipGraphExec_t, stream: hipStream_t);
    }
}

functions! {
    /// The compiler's functions: `libhiprtc`, or up to HIP 6 `libamdhip64` itself.
    Compiler: hiprtcResult => RtcError;
    required {
        fn hiprtcVersion(major: *mut c_int, minor: *mut c_int);
        fn hiprtcCreateProgram(program: *mut hiprtcProgram, source: *const c_char, name: *const c_char,
            headers: c_int, header_texts: *const *const c_char, header_names: *const *const c_char);
        fn hiprtcCompileProgram(program: hiprtcProgram, options: c_int, texts: *const *const c_char);
        fn hiprtcDestroyProgram(program: *mut hiprtcProgram);
        fn hiprtcGetProgramLogSize(program: hiprtcProgram, bytes: *mut usize);
        fn hiprtcGetProgramLog(program: hiprtcProgram, log: *mut c_char);
        fn hiprtcGetCodeSize(program: hiprtcProgram, bytes: *mut usize);
        fn hiprtcGetCode(program: hiprtcProgram, code: *mut c_char);
    }
    text {
        fn hiprtcGetErrorString(code: hiprtcResult);
    }
    optional {}
}
