//! A stand-in for HIP, built with the host's C++ compiler; `fake-hip/fake_hip.cpp` says what it does.

#![allow(dead_code, reason = "each test uses some")]

use inference_rocm::{
    compile::Compiler,
    hip::{
        Hip, HipDevice, HipError, HipFunction, HipSlice, HipStream, LaunchConfig, LoadError, Places,
    },
};
use libloading::{Library, Symbol};
use std::{
    ffi::{CString, c_char, c_int, c_long},
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
};

/// Adds `a` × `x` to `y`, at most 64 lanes to a block.
pub(crate) const ADD: &str = concat!(
    include_str!("../../../inference-gpu/kernels/portable.h"),
    "
KERNEL(64) add(float *y, const float *x, float a, u32 n) {
    u32 i = BID_X * 64 + TID;
    if (i < n) y[i] += a * x[i];
}
"
);

/// The code object of [`ADD`].
pub(crate) fn code(device: &HipDevice) -> Vec<u8> {
    Compiler::with_cache_in(device.hip(), device.info(), None)
        .compile(ADD, &[], |_| true)
        .expect("it compiles")
}

/// Adds `a` × `x` to `y`, all of them.
pub(crate) fn add(
    stream: &HipStream,
    function: &HipFunction,
    y: &HipSlice<f32>,
    x: &HipSlice<f32>,
    a: f32,
) -> Result<(), HipError> {
    let n = y.len() as u32;
    let config = LaunchConfig { grid: [n.div_ceil(64), 1, 1], block: [64, 1, 1], shared_bytes: 0 };
    // SAFETY: the kernel stays below `n`, which both slices have; the tests wait before they drop them.
    unsafe { stream.launch(function).slice(y).slice(x).value(a).value(n).run(config) }
}

const NAME: &str = "libamdhip64.so.7";

/// Builds the stand-in; `None` where there is no C++ compiler.
fn build(options: &[&str]) -> Option<tempfile::TempDir> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let built = Command::new("c++")
        .args(["-std=c++17", "-O1", "-shared", "-fPIC", "-fno-gnu-unique"])
        .arg(format!("-DSIMT=\"{}\"", here.join("../inference-gpu/cpu/simt.h").display()))
        .args(options)
        .arg("-o")
        .arg(folder.path().join(NAME))
        .arg(here.join("tests/fake-hip/fake_hip.cpp"))
        .arg("-ldl")
        .status();
    assert!(built.as_ref().ok()?.success(), "the stand-in does not compile");
    Some(folder)
}

/// A copy of the stand-in, with faults and counts of its own.
pub(crate) struct Fake {
    library: Library,
    folder: tempfile::TempDir,
}

impl Fake {
    /// `None`, and a line that says so, where there is no C++ compiler.
    pub(crate) fn new() -> Option<Self> {
        static BUILT: OnceLock<Option<tempfile::TempDir>> = OnceLock::new();
        let built = BUILT.get_or_init(|| build(&[])).as_ref();
        let Some(built) = built else {
            println!("skipped: no C++ compiler (c++) for the stand-in of HIP");
            return None;
        };
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::copy(built.path().join(NAME), folder.path().join(NAME)).expect("it can be copied");
        Some(Self::in_folder(folder))
    }

    /// Built with options, such as `-DhipMalloc=other` for one without `hipMalloc`.
    pub(crate) fn with(options: &[&str]) -> Option<Self> {
        build(options).map(Self::in_folder)
    }

    fn in_folder(folder: tempfile::TempDir) -> Self {
        // SAFETY: its initialisers make empty containers.
        let library = unsafe { Library::new(folder.path().join(NAME)) };
        Self { library: library.expect("it was just built"), folder }
    }

    /// The folder that holds it.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub(crate) fn open(&self) -> Result<&'static Hip, LoadError> {
        Hip::open(&Places::only(self.folder()))
    }

    pub(crate) fn device(&self) -> Arc<HipDevice> {
        HipDevice::open(self.open().expect("it is whole"), 0).expect("it has a device")
    }

    pub(crate) fn set(&self, key: &str, value: i64) {
        let key = CString::new(key).expect("no zero in it");
        // SAFETY: the function has this type.
        unsafe {
            let set: Symbol<'_, unsafe extern "C" fn(*const c_char, c_long)> =
                self.symbol("fake_set");
            set(key.as_ptr(), value);
        }
    }

    pub(crate) fn arch(&self, name: &str) {
        let name = CString::new(name).expect("no zero in it");
        // SAFETY: the function has this type.
        unsafe {
            let arch: Symbol<'_, unsafe extern "C" fn(*const c_char)> = self.symbol("fake_arch");
            arch(name.as_ptr());
        }
    }

    /// The call of `function` after `nth` others fails with `status`; "kernel" is a kernel that runs.
    pub(crate) fn fail(&self, function: &str, nth: usize, status: i32) {
        let name = CString::new(function).expect("no zero in it");
        // SAFETY: the function has this type.
        unsafe {
            let fail: Symbol<'_, unsafe extern "C" fn(*const c_char, c_long, c_int)> =
                self.symbol("fake_fail");
            fail(name.as_ptr(), nth as c_long, status);
        }
    }

    /// Takes back what [`fail`](Self::fail) said, and says whether it was still to come.
    pub(crate) fn is_pending(&self, function: &str) -> bool {
        let name = CString::new(function).expect("no zero in it");
        // SAFETY: the function has this type.
        unsafe {
            let pending: Symbol<'_, unsafe extern "C" fn(*const c_char) -> c_long> =
                self.symbol("fake_pending");
            pending(name.as_ptr()) != 0
        }
    }

    /// A new card in the place of one that was lost.
    pub(crate) fn restart(&self) {
        // SAFETY: the function has this type.
        unsafe {
            let restart: Symbol<'_, unsafe extern "C" fn()> = self.symbol("fake_restart");
            restart();
        }
    }

    /// How much was handed out and not given back.
    pub(crate) fn alive(&self) -> i64 {
        self.count("fake_alive")
    }

    /// How often its compiler was asked.
    pub(crate) fn compiled(&self) -> i64 {
        self.count("fake_compiled")
    }

    fn count(&self, name: &str) -> i64 {
        // SAFETY: the function has this type.
        unsafe {
            let count: Symbol<'_, unsafe extern "C" fn() -> c_long> = self.symbol(name);
            count()
        }
    }

    /// # Safety
    /// The function has the type `T`.
    unsafe fn symbol<T>(&self, name: &str) -> Symbol<'_, T> {
        // SAFETY: the caller's.
        unsafe { self.library.get(name) }.expect("the stand-in has it")
    }
}
