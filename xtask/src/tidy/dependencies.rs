//! Who may depend on whom: the rules of `docs/architecture.md`.

use super::Fault;
use crate::{Result, root};
use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use std::process::Command;

/// Our crates, and which of ours each may depend on. Tests may depend on all.
const OURS: [(&str, &[&str]); 12] = [
    ("inference-core", &[]),
    ("inference-text", &["inference-core"]),
    ("inference-engine", &["inference-core", "inference-text"]),
    ("inference-cpu", &["inference-core", "inference-text", "inference-engine"]),
    ("inference-gpu", &["inference-core", "inference-text", "inference-engine"]),
    ("inference-metal", &["inference-core", "inference-text", "inference-engine"]),
    ("inference-rocm", &["inference-core", "inference-text", "inference-engine", "inference-gpu"]),
    ("inference-cuda", &["inference-core", "inference-text", "inference-engine", "inference-gpu"]),
    ("inference-llama-cpp", &["inference-core", "inference-text"]),
    (
        "inference",
        &[
            "inference-core",
            "inference-text",
            "inference-engine",
            "inference-cpu",
            "inference-metal",
            "inference-rocm",
            "inference-cuda",
            "inference-llama-cpp",
        ],
    ),
    ("inference-cli", &["inference"]),
    (
        "xtask",
        &[
            "inference",
            "inference-text",
            "inference-engine",
            "inference-cpu",
            "inference-gpu",
            "inference-cuda",
            "inference-rocm",
        ],
    ),
];

/// May depend on everything: the crate of tests over all of ours.
const TESTS: &str = "inference-tests";

/// Crates of others (by how the name begins) that only these of ours may use.
const ONLY: [(&str, &[&str]); 5] = [
    ("candle", &["inference-metal"]),
    ("objc2", &["inference-metal"]),
    ("cudarc", &["inference-cuda"]),
    // In inference-gpu for the kernels that tests compile for the CPU.
    ("libloading", &["inference-rocm", "inference-cuda", "inference-gpu"]),
    ("llama-cpp", &["inference-llama-cpp"]),
];

/// Crates (by how the name begins) that the contract must not know: tensors, GPUs, async runtimes.
const NOT_IN_CORE: [&str; 16] = [
    "candle",
    "burn",
    "ndarray",
    "nalgebra",
    "tch",
    "ort",
    "cudarc",
    "wgpu",
    "metal",
    "ash",
    "objc",
    "tokio",
    "async-std",
    "smol",
    "async-global-executor",
    "rayon",
];

/// Crates that compile C, or bind to it at build time.
const NEEDS_C: [&str; 7] =
    ["cc", "cmake", "bindgen", "onig", "onig_sys", "pkg-config", "autotools"];

/// Checks the manifests, and what the facade builds by default.
pub(super) fn check() -> Result<Vec<Fault>> {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .map_err(|e| format!("cargo metadata: {e}"))?;
    let mut faults: Vec<_> =
        metadata.workspace_packages().iter().flat_map(|p| declared(&metadata, p)).collect();
    if metadata.workspace_packages().iter().any(|p| p.name.as_str() == "inference") {
        faults.extend(compiled_c(&default_build()?));
    }
    Ok(faults)
}

fn declared(metadata: &Metadata, package: &Package) -> Vec<Fault> {
    let path = package.manifest_path.strip_prefix(&metadata.workspace_root);
    let path = path.unwrap_or(&package.manifest_path).to_string().replace('\\', "/");
    let name = package.name.as_str();
    let dependencies: Vec<_> = package
        .dependencies
        .iter()
        .filter(|d| d.kind != DependencyKind::Development)
        .map(|d| d.name.as_str())
        .collect();
    forbidden(name, &dependencies).into_iter().map(|text| Fault::new(&path, None, text)).collect()
}

/// What is wrong with the dependencies of our crate `name`.
fn forbidden(name: &str, dependencies: &[&str]) -> Vec<String> {
    if name == TESTS {
        return Vec::new();
    }
    let Some((_, allowed)) = OURS.iter().find(|(ours, _)| *ours == name) else {
        let text = format!(
            "{name} is not in the table; say in xtask/src/tidy/dependencies.rs what it may depend on"
        );
        return vec![text];
    };
    let is_ours = |d: &str| d == TESTS || OURS.iter().any(|(ours, _)| *ours == d);
    let mut faults = Vec::new();
    for d in dependencies {
        if is_ours(d) && !allowed.contains(d) {
            faults.push(format!(
                "{name} depends on {d}; move what it needs below both (docs/architecture.md)"
            ));
        }
        if let Some((_, only)) =
            ONLY.iter().find(|(start, only)| d.starts_with(start) && !only.contains(&name))
        {
            faults.push(format!("{name} depends on {d}; only {} may", only.join(" and ")));
        }
        if name == "inference-core" && NOT_IN_CORE.iter().any(|n| begins(d, n)) {
            faults.push(format!(
                "the contract depends on {d}; it knows no tensor, no GPU and no async runtime"
            ));
        }
    }
    faults
}

/// Whether a crate is `family` or one of its parts, such as `tokio-util`.
fn begins(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

/// Names of all crates that a default build of the facade compiles, on any platform.
fn default_build() -> Result<Vec<String>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["tree", "--package", "inference", "--edges", "normal,build", "--target", "all"])
        .args(["--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .map_err(|e| format!("cargo tree: {e}"))?;
    if !output.status.success() {
        return Err(format!("cargo tree: {}", String::from_utf8_lossy(&output.stderr).trim()));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
}

fn compiled_c(crates: &[String]) -> Option<Fault> {
    let mut found: Vec<_> =
        crates.iter().filter(|c| NEEDS_C.contains(&c.as_str())).map(String::as_str).collect();
    found.sort_unstable();
    found.dedup();
    let text = format!(
        "the default build needs {}, so a C compiler; find who brings it with `cargo tree -p inference -i NAME`, and drop it",
        found.join(" and ")
    );
    (!found.is_empty()).then(|| Fault::new("crates/inference/Cargo.toml", None, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_depend_downwards() {
        assert!(
            forbidden("inference-engine", &["inference-core", "inference-text", "serde"])
                .is_empty()
        );
        assert_eq!(forbidden("inference-core", &["inference-text"]).len(), 1);
        assert_eq!(forbidden("inference-llama-cpp", &["inference-engine"]).len(), 1);
        assert_eq!(forbidden("inference-cpu", &["inference-metal"]).len(), 1);
        assert_eq!(forbidden("inference-cli", &["inference-cpu"]).len(), 1);
        assert!(forbidden(TESTS, &["inference-cpu", "candle-core"]).is_empty());
        assert_eq!(forbidden("inference-new", &[]).len(), 1);
    }

    #[test]
    fn crates_of_others_stay_where_they_belong() {
        assert!(forbidden("inference-metal", &["candle-core"]).is_empty());
        assert_eq!(forbidden("inference-cpu", &["candle-core"]).len(), 1);
        assert_eq!(forbidden("inference-cpu", &["libloading"]).len(), 1);
        assert_eq!(forbidden("inference-core", &["tokio-util"]).len(), 1);
        assert!(forbidden("inference-core", &["futures-core", "ordered"]).is_empty());
    }

    #[test]
    fn a_c_compiler_is_noticed() {
        let crates = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(compiled_c(&crates(&["serde", "ccx"])), None);
        assert!(compiled_c(&crates(&["cc", "serde", "cc"])).is_some());
    }
}
