//! Finding and opening `libamdhip64` and its compiler.

use super::{
    result::HipError,
    sys::{Compiler, Runtime},
};
use libloading::os::unix::{Library as UnixLibrary, RTLD_LOCAL, RTLD_NOW};
use std::{
    ffi::{OsStr, OsString, c_int},
    fmt, fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// A folder that is searched instead of all others.
pub const LIB_DIR: &str = "INFERENCE_ROCM_LIB_DIR";

/// Library majors, the one that most machines have first. They follow HIP, not the release of ROCm.
const MAJORS: [u32; 6] = [7, 8, 9, 10, 6, 5];

/// The oldest HIP that these bindings fit.
const OLDEST: Version = Version { major: 5, minor: 2, patch: 0 };

/// HIP, open for the rest of the process.
///
/// It is never closed: the runtime has threads and exit handlers of its own.
pub struct Hip {
    /// The runtime's functions.
    pub runtime: Runtime,
    /// The compiler's functions, or why there are none.
    pub compiler: Result<Compiler, String>,
    /// What the runtime says it is.
    pub version: Version,
    /// The file of the runtime.
    pub path: PathBuf,
    /// The file of the compiler; that of the runtime if it is in there.
    pub compiler_path: PathBuf,
}

impl fmt::Debug for Hip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hip").field("version", &self.version).field("path", &self.path).finish()
    }
}

/// A version of HIP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The library's major.
    pub major: u32,
    /// The release's minor.
    pub minor: u32,
    /// A build number.
    pub patch: u32,
}

impl Version {
    /// From what `hipRuntimeGetVersion` says: 70253211 is 7.2.53211.
    pub fn from_number(number: c_int) -> Self {
        let number = u32::try_from(number).unwrap_or_default();
        Self { major: number / 10_000_000, minor: number / 100_000 % 100, patch: number % 100_000 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Why HIP could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// No file of that name anywhere; where it was looked for.
    NotFound {
        /// Folders, and "the system's library path".
        tried: Vec<String>,
    },
    /// A file is there, and the dynamic loader refuses it.
    Refused {
        /// The file.
        path: PathBuf,
        /// The loader's own words: often another library that is missing.
        reason: String,
    },
    /// A function is missing.
    NoSymbol {
        /// The file.
        path: PathBuf,
        /// The function.
        name: &'static str,
    },
    /// An older HIP than these bindings fit.
    TooOld {
        /// The file.
        path: PathBuf,
        /// What it is.
        version: Version,
    },
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound { tried } => write!(
                f,
                "the HIP runtime (libamdhip64.so) is not installed: install `hip-runtime-amd` of AMD's packages or \
                 Arch, `libamdhip64-7` (or -6, -5) of Debian or Ubuntu, or `rocm-hip` of Fedora; if it is in another \
                 folder, name that in {LIB_DIR}; looked in {}",
                tried.join(", ")
            ),
            Self::Refused { path, reason } => write!(
                f,
                "the HIP runtime {} can't be opened: {reason}; install the package with the library that is missing, \
                 or reinstall ROCm",
                path.display()
            ),
            Self::NoSymbol { path, name } => write!(
                f,
                "the HIP runtime {} has no function `{name}`: install ROCm {}.{} or later",
                path.display(),
                OLDEST.major,
                OLDEST.minor
            ),
            Self::TooOld { path, version } => write!(
                f,
                "the HIP runtime {} is version {version}, which is too old: install ROCm {}.{} or later",
                path.display(),
                OLDEST.major,
                OLDEST.minor
            ),
        }
    }
}

impl std::error::Error for LoadError {}

/// Where to look, in order.
#[derive(Debug, Clone)]
pub struct Places(Vec<Place>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Folder(PathBuf),
    /// What the dynamic loader finds by name: `LD_LIBRARY_PATH`, the system's cache.
    ByName,
}

impl Places {
    /// One folder alone.
    pub fn only(folder: impl Into<PathBuf>) -> Self {
        Self(vec![Place::Folder(folder.into())])
    }

    /// As the process's environment and this machine's folders say.
    pub fn of_this_machine() -> Self {
        Self::new(&|name| std::env::var_os(name), Path::new("/"))
    }

    /// As `variable` and the folders under `root` say: [`LIB_DIR`] alone if it is set; else `ROCM_PATH` and `HIP_PATH`,
    /// the dynamic loader, AMD's folders (newest first), the system's, and those of Python packages.
    pub fn new(variable: &dyn Fn(&str) -> Option<OsString>, root: &Path) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(folder) = set(LIB_DIR) {
            return Self::only(folder);
        }
        let mut folders = Vec::new();
        for base in ["ROCM_PATH", "HIP_PATH"].into_iter().filter_map(set) {
            folders.extend([base.join("lib"), base.join("lib64")].map(Place::Folder));
        }
        folders.push(Place::ByName);
        let opt = root.join("opt");
        folders.push(Place::Folder(opt.join("rocm/lib")));
        let newest = |parent: &Path, prefix| {
            matching(parent, prefix).into_iter().rev().map(|p| Place::Folder(p.join("lib")))
        };
        folders.extend(newest(&opt.join("rocm"), "core"));
        folders.extend(newest(&opt, "rocm-"));
        for system in ["usr/lib/x86_64-linux-gnu", "usr/lib64", "usr/lib"] {
            folders.push(Place::Folder(root.join(system)));
        }
        for base in ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(set) {
            for python in matching(&base.join("lib"), "python3") {
                let packages = python.join("site-packages");
                let inside = ["_rocm_sdk_core/lib", "torch/lib"];
                folders.extend(inside.map(|p| Place::Folder(packages.join(p))));
            }
        }
        Self(folders)
    }

    /// Files that are there, and names for the dynamic loader, in order.
    pub fn candidates(&self) -> Vec<PathBuf> {
        let mut all = Vec::new();
        for place in &self.0 {
            match place {
                Place::ByName => all.extend(names("libamdhip64").map(PathBuf::from)),
                Place::Folder(folder) => {
                    let files = names("libamdhip64").map(|name| folder.join(name));
                    all.extend(files.filter(|path| path.exists()));
                }
            }
        }
        all
    }

    fn tried(&self) -> Vec<String> {
        let words = |place: &Place| match place {
            Place::Folder(folder) => folder.display().to_string(),
            Place::ByName => "the system's library path".to_owned(),
        };
        self.0.iter().map(words).collect()
    }
}

/// `name.so` with each major, and last without: that link is of a development package, and may lead elsewhere.
fn names(name: &str) -> impl Iterator<Item = String> {
    let versioned = MAJORS.iter().map(move |major| format!("{name}.so.{major}"));
    versioned.chain([format!("{name}.so")])
}

/// Folders in `parent` whose names begin with `prefix`, sorted by the numbers in their names.
fn matching(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    let numbers = |name: &OsStr| -> Vec<u32> {
        let name = name.to_string_lossy().into_owned();
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
    };
    let mut found: Vec<_> = fs::read_dir(parent)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .map(|entry| (numbers(&entry.file_name()), entry.path()))
        .collect();
    found.sort();
    found.into_iter().map(|(_, path)| path).collect()
}

impl Hip {
    /// HIP of this machine, opened at the first call; later calls return the same, error or not.
    ///
    /// # Errors
    /// Not installed, broken, or too old.
    pub fn of_this_machine() -> Result<&'static Self, LoadError> {
        static HIP: OnceLock<Result<&'static Hip, LoadError>> = OnceLock::new();
        HIP.get_or_init(|| Self::open(&Places::of_this_machine())).clone()
    }

    /// Opens the first library of `places` that the dynamic loader accepts. Each call leaks one.
    ///
    /// # Errors
    /// None is there, none can be opened, or the first that can is too old.
    pub fn open(places: &Places) -> Result<&'static Self, LoadError> {
        let mut refused = None;
        for candidate in places.candidates() {
            match open_library(&candidate) {
                Ok(library) => return Self::over(library, candidate),
                Err(reason) => {
                    let is_missing = !candidate.is_absolute()
                        && reason.starts_with(&*candidate.to_string_lossy());
                    if !is_missing && refused.is_none() {
                        refused = Some(LoadError::Refused { path: candidate, reason });
                    }
                }
            }
        }
        Err(refused.unwrap_or_else(|| LoadError::NotFound { tried: places.tried() }))
    }

    fn over(
        library: &'static libloading::Library,
        name: PathBuf,
    ) -> Result<&'static Self, LoadError> {
        // SAFETY: a library of this name has HIP's functions, and `open_library` leaks it.
        let runtime = unsafe { Runtime::find(library) };
        let runtime =
            runtime.map_err(|symbol| LoadError::NoSymbol { path: name.clone(), name: symbol })?;
        let path = file_of(library).unwrap_or_else(|| name.clone());
        let version = version(&runtime).unwrap_or(Version { major: 0, minor: 0, patch: 0 });
        if version < OLDEST {
            return Err(LoadError::TooOld { path, version });
        }
        let (compiler, compiler_path) = compiler(library, &path, version);
        Ok(Box::leak(Box::new(Self { runtime, compiler, version, path, compiler_path })))
    }
}

fn version(runtime: &Runtime) -> Result<Version, HipError> {
    let mut number = 0;
    // SAFETY: the pointer is to a live integer.
    unsafe { runtime.hipRuntimeGetVersion(&mut number) }?;
    Ok(Version::from_number(number))
}

/// The compiler from the folder and of the major of the runtime, since another would bring a second LLVM into the
/// process; else the one inside the runtime, as up to HIP 6.
fn compiler(
    runtime: &'static libloading::Library,
    path: &Path,
    version: Version,
) -> (Result<Compiler, String>, PathBuf) {
    let folder = path.parent().unwrap_or(Path::new(""));
    let name = format!("libhiprtc.so.{}", version.major);
    let beside = [name.clone(), "libhiprtc.so".to_owned()].map(|name| folder.join(name));
    let beside = beside.into_iter().find(|path| path.exists());
    let (library, file) = match beside {
        Some(file) => match open_library(&file) {
            Ok(library) => (library, file),
            Err(reason) => {
                return (Err(format!("{} can't be opened: {reason}", file.display())), file);
            }
        },
        None => (runtime, path.to_owned()),
    };
    // SAFETY: a library of this name has the compiler's functions, and `open_library` leaks it.
    let found = unsafe { Compiler::find(library) };
    let found = found.map_err(|symbol| match file == path {
        true => format!("there is no {name} beside {}", path.display()),
        false => format!("{} has no function `{symbol}`", file.display()),
    });
    (found, file)
}

fn open_library(path: &Path) -> Result<&'static libloading::Library, String> {
    // SAFETY: opening runs the initialisers of HIP and of what it needs; they ask nothing of the process.
    let library = unsafe { UnixLibrary::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    match library {
        Ok(library) => Ok(Box::leak(Box::new(library.into()))),
        Err(error) => Err(error.to_string()),
    }
}

/// The file that a library was loaded from: the one that the process has mapped around a function of it.
fn file_of(library: &libloading::Library) -> Option<PathBuf> {
    // SAFETY: the symbol is taken as an address, never called.
    let symbol = unsafe { library.get::<unsafe extern "C" fn()>("hipInit") }.ok()?;
    let address = *symbol as usize;
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let bound = |text| usize::from_str_radix(text, 16).ok();
        let path = rest.find('/').map(|at| PathBuf::from(&rest[at..]))?;
        (bound(from)? <= address && address < bound(to)?).then_some(path)
    })
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
