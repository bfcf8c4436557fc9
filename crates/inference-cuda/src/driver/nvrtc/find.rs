//! Where NVRTC is.

use super::{NvrtcError, OLDEST, PLACE};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What follows the name on Linux, of the library and of Debian's package: all since 11.2 say 11.2.
pub(super) fn linux_version(major: u32) -> String {
    if major == 11 { "11.2".to_owned() } else { major.to_string() }
}

/// The library's name in CUDA's version `major`.
pub(super) fn file(major: u32) -> String {
    if cfg!(windows) {
        // 11.2 was the last of CUDA 11 to change its name.
        format!("nvrtc64_{major}{}_0.dll", if major == 11 { 2 } else { 0 })
    } else {
        format!("libnvrtc.so.{}", linux_version(major))
    }
}

/// Where pip's packages have it, before CUDA 13 and from then on.
const PACKAGES: &[&str] = if cfg!(windows) {
    &["nvidia/cuda_nvrtc/bin", "nvidia/cu13/bin/x86_64"]
} else {
    &["nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib"]
};

/// Where a toolkit has it; on Windows before CUDA 13 and from then on.
const TOOLKIT: &[&str] = if cfg!(windows) { &["bin", "bin/x64"] } else { &["lib64"] };

/// What is tried in turn for a driver of CUDA `cuda`: its own version of NVRTC first, and never a later one, whose code it
/// could not load. The system's loader comes before folders of `variable`s and the usual ones.
pub(super) fn candidates(cuda: u32, variable: &dyn Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    let versions = || (OLDEST..=cuda.max(OLDEST)).rev().map(file);
    if let Some(place) = variable(PLACE) {
        return match place.is_dir() {
            true => versions().map(|file| place.join(file)).collect(),
            false => vec![place],
        };
    }
    let mut folders = vec![PathBuf::new()];
    for environment in ["VIRTUAL_ENV", "CONDA_PREFIX"].iter().filter_map(|name| variable(name)) {
        folders.push(environment.join(if cfg!(windows) { "Library/bin" } else { "lib" }));
        let packages = site_packages(&environment);
        folders.extend(packages.iter().flat_map(|p| PACKAGES.iter().map(|end| p.join(end))));
    }
    let toolkits = ["CUDA_HOME", "CUDA_PATH"].iter().filter_map(|name| variable(name));
    for toolkit in toolkits.chain((!cfg!(windows)).then(|| PathBuf::from("/usr/local/cuda"))) {
        folders.extend(TOOLKIT.iter().map(|end| toolkit.join(end)));
    }
    versions()
        .flat_map(|file| folders.iter().map(move |folder| folder.join(&file)))
        .filter(|path| path.parent() == Some(Path::new("")) || path.exists())
        .collect()
}

/// Where a Python environment has its packages.
fn site_packages(environment: &Path) -> Vec<PathBuf> {
    if cfg!(windows) {
        return vec![environment.join("Lib/site-packages")];
    }
    let entries = fs::read_dir(environment.join("lib")).into_iter().flatten().flatten();
    entries.map(|entry| entry.path().join("site-packages")).filter(|path| path.is_dir()).collect()
}

/// The libraries beside NVRTC at `path` that it opens by their names alone. The system does not look there, unless they are
/// open already.
pub(super) fn builtins(path: &Path) -> Vec<PathBuf> {
    let start = if cfg!(windows) { "nvrtc-builtins64_" } else { "libnvrtc-builtins.so." };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = folder.and_then(|folder| fs::read_dir(folder).ok()).into_iter().flatten();
    let paths = entries.flatten().map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // The `.alt` ones are for machines with little memory.
        name.starts_with(start) && !name.contains(".alt.")
    };
    paths.filter(is_one).collect()
}

/// The first library at `paths` that opens and `fits`, or else why the first that opens does not; where none opens, what
/// the loader says of a file that is there.
pub(super) fn first<T>(
    paths: &[PathBuf],
    open: impl Fn(&Path) -> Result<T, String>,
    fits: impl Fn(&T) -> Result<(), NvrtcError>,
    missing: impl FnOnce(Option<String>) -> NvrtcError,
) -> Result<T, NvrtcError> {
    let (mut reason, mut unfit) = (None, None);
    for path in paths {
        match open(path).map(|found| (fits(&found), found)) {
            Ok((Ok(()), found)) => return Ok(found),
            Ok((Err(error), _)) => unfit = unfit.or(Some(error)),
            // That a name is nowhere says nothing; that a file is no library does.
            Err(error) if path.is_file() => reason = Some(error),
            Err(_) => {}
        }
    }
    Err(unfit.unwrap_or_else(|| missing(reason)))
}
