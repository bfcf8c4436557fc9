//! The host's C++ compiler as a kernel compiler, with a cache of what it made in the temporary folder.

use super::Kernel;
use crate::driver::{MatrixUnit, Target};
use inference_core::{Error, Result};
use libloading::{Library, Symbol};
use std::{
    ffi::{c_char, c_void},
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{self, Command},
    rc::Rc,
    sync::atomic::{AtomicUsize, Ordering},
};

/// `grid, threads, order, seed, args`; gives an error's text or null.
pub(super) type Entry =
    unsafe extern "C" fn(*const u32, u32, i32, u32, *mut *mut c_void) -> *const c_char;

/// Gives the sizes of a kernel's parameters, and a 0.
pub(super) type Sizes = unsafe extern "C" fn() -> *const u8;

const SIMT: &str = include_str!("../../cpu/simt.h");

/// The compiler that `$CXX` names, else the first of the usual ones; `None` where it does not answer, and where the harness
/// is not at home: it relies on ELF's sections and on `ucontext`.
pub(super) fn find() -> Option<String> {
    if !cfg!(target_os = "linux") {
        return None;
    }
    let usual = || ["c++", "g++", "clang++"].map(str::to_owned).to_vec();
    let named = std::env::var("CXX").ok().filter(|named| !named.is_empty());
    let named = named.map_or_else(usual, |named| vec![named]);
    named.into_iter().find(|c| {
        Command::new(c).arg("--version").output().is_ok_and(|output| output.status.success())
    })
}

/// What makes kernels stop where they reach beyond an array in global or shared memory, or do what C++ does not define.
pub(super) const SANITISE: [&str; 5] = [
    "-fsanitize=address,undefined",
    "-fsanitize-sections=simt_shared",
    "-fno-sanitize-recover=all",
    "-fno-omit-frame-pointer",
    "-g1",
];

/// The library of the address sanitizer; `None` where the compiler is none of GCC's, or has it not.
pub fn sanitizer() -> Option<PathBuf> {
    let output = Command::new(find()?).arg("-print-file-name=libasan.so").output().ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.canonicalize().ok().filter(|library| path.is_absolute() && library.is_file())
}

pub(super) fn compile(
    compiler: &str,
    target: &Target,
    source: &str,
    defines: &[String],
    names: &[&str],
) -> Result<Vec<Kernel>> {
    let exports: String = names.iter().map(|name| format!("SIMT_EXPORT({name})\n")).collect();
    let text = format!("{SIMT}\n#line 1 \"kernel\"\n{source}\n{exports}");
    let tile = match target.matrix {
        MatrixUnit::Plain => 0,
        MatrixUnit::WmmaGfx11 => 11,
        MatrixUnit::WmmaGfx12 => 12,
        MatrixUnit::Mfma => 9,
        MatrixUnit::MmaSync => 80,
    };
    let mut options = vec![
        "-std=c++17".to_owned(),
        "-O2".to_owned(),
        "-march=native".to_owned(),
        "-shared".to_owned(),
        "-fPIC".to_owned(),
        "-fvisibility=hidden".to_owned(),
        "-Wno-psabi".to_owned(),
        format!("-DWAVE={}", target.wave),
        format!("-DSIMT_TILE={tile}"),
    ];
    options.extend_from_slice(defines);
    let mut hasher = DefaultHasher::new();
    (&text, compiler, &options).hash(&mut hasher);
    let dir = std::env::temp_dir().join("inference-gpu-kernels");
    let path = dir.join(format!("{:016x}.so", hasher.finish()));
    if !path.exists() {
        build(compiler, &options, &text, &dir, &path)?;
    }
    load(&path, names)
}

/// Compiles `text` to `path`. Several processes may do so at once: the last one's file stays.
fn build(compiler: &str, options: &[String], text: &str, dir: &Path, path: &Path) -> Result<()> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    fs::create_dir_all(dir).map_err(|e| Error::io(dir, e))?;
    let unique = format!("{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let file = |ending: &str| -> PathBuf { dir.join(format!("{unique}.{ending}")) };
    let (from, to) = (file("cpp"), file("so"));
    fs::write(&from, text).map_err(|e| Error::io(&from, e))?;
    let output = Command::new(compiler)
        .args(options)
        .arg("-o")
        .args([&to, &from])
        .output()
        .map_err(|e| Error::io(compiler, e))?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr).chars().take(4000).collect();
        return Err(Error::Device { reason });
    }
    let _ = fs::remove_file(&from);
    fs::rename(&to, path).map_err(|e| Error::io(path, e))
}

fn load(path: &Path, names: &[&str]) -> Result<Vec<Kernel>> {
    let device = |e: libloading::Error| Error::Device { reason: e.to_string() };
    // SAFETY: what was compiled from our own text; it has no initialisers that do anything.
    let module = Rc::new(unsafe { Library::new(path) }.map_err(device)?);
    let kernel = |name: &&str| {
        // SAFETY: `SIMT_EXPORT` gives the symbols these types; the kernel keeps the module loaded.
        let (entry, sizes) = unsafe {
            let entry: Symbol<'_, Entry> =
                module.get(format!("simt_{name}").as_bytes()).map_err(device)?;
            let sizes: Symbol<'_, Sizes> =
                module.get(format!("simt_sizes_{name}").as_bytes()).map_err(device)?;
            (*entry, *sizes)
        };
        Ok(Kernel { name: (*name).to_owned(), entry, sizes, _module: module.clone() })
    };
    names.iter().map(kernel).collect()
}
