//! What the kernel says of a machine's AMD GPUs: read from `/sys` and `/dev` in less than a millisecond, with no library.

use super::Problem;
use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// AMD's number among makers of PCI devices.
const AMD: &str = "0x1002";

/// What a machine has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Machine {
    /// PCI addresses of AMD's graphics and accelerators.
    pub(crate) cards: Vec<String>,
    /// Whether the kernel driver `amdgpu` is there.
    pub(crate) has_driver: bool,
    /// Whether the driver was built to offer devices for computing.
    pub(crate) has_compute: bool,
    /// Architectures of the devices that it offers.
    pub(crate) offered: Vec<String>,
    /// A device that the driver offers, but not to this container, and the kernel's words.
    pub(crate) hidden: Option<(PathBuf, String)>,
    /// Linux on Windows, where the card is reached through `/dev/dxg`.
    pub(crate) is_wsl: bool,
    /// `/dev/kfd`.
    pub(crate) compute: Access,
    /// The `/dev/dri/renderD*` that is easiest to open.
    pub(crate) render: Access,
}

/// Whether a device file can be opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Access {
    /// It isn't there.
    #[default]
    Missing,
    /// It can.
    Granted,
    /// This user may not; who may.
    Denied {
        path: PathBuf,
        /// The group that may; its number if it has no name here.
        group: String,
    },
    /// Something else, in the kernel's words.
    Refused { path: PathBuf, reason: String },
}

impl Machine {
    /// What is there under `root`; `open` opens a device file for reading and writing.
    pub(crate) fn read(root: &Path, open: &dyn Fn(&Path) -> io::Result<()>) -> Self {
        let dri = list(&root.join("dev/dri"));
        let render = dri.into_iter().filter(|p| name(p).starts_with("renderD"));
        let render: Vec<_> = render.map(|path| access(root, &path, open)).collect();
        let best = render.iter().find(|access| **access == Access::Granted);
        let (offered, hidden) = offered(root);
        Self {
            cards: cards(&root.join("sys/bus/pci/devices")),
            has_driver: root.join("sys/module/amdgpu").exists(),
            has_compute: root.join("sys/class/kfd").exists(),
            offered,
            hidden,
            is_wsl: root.join("dev/dxg").exists(),
            compute: access(root, &root.join("dev/kfd"), open),
            render: best.or(render.first()).cloned().unwrap_or_default(),
        }
    }

    /// This machine.
    pub(crate) fn this() -> Self {
        let open = |path: &Path| fs::File::options().read(true).write(true).open(path).map(drop);
        Self::read(Path::new("/"), &open)
    }

    /// What keeps HIP from using a card here, as far as the kernel can say.
    pub(crate) fn problem(&self) -> Option<Problem> {
        if self.is_wsl && self.compute == Access::Missing {
            return None;
        }
        let card = || self.cards.first().cloned().unwrap_or_default();
        if self.offered.is_empty() && self.hidden.is_none() {
            return Some(match (self.cards.is_empty(), self.has_driver) {
                (true, _) => Problem::NoCard,
                (false, false) => Problem::NoDriver { card: card() },
                // Such a driver has its files outside of containers.
                (false, true) => match self.files().find(|(_, file)| **file == Access::Missing) {
                    Some((what, _)) if self.has_compute => Problem::NoFile { what },
                    _ => Problem::NotOffered { card: card() },
                },
            });
        }
        for (what, access) in self.files() {
            let (path, problem): (_, fn(String, String) -> Problem) = match access {
                Access::Granted => continue,
                Access::Missing => return Some(Problem::NoFile { what }),
                Access::Denied { path, group } => {
                    ((path, group), |path, group| Problem::Denied { path, group })
                }
                Access::Refused { path, reason } => {
                    ((path, reason), |path, reason| Problem::Forbidden { path, reason })
                }
            };
            return Some(problem(path.0.display().to_string(), path.1.clone()));
        }
        // Another maker's render device may be open to all.
        let (path, reason) = self.hidden.as_ref().filter(|_| self.offered.is_empty())?;
        Some(Problem::Forbidden { path: path.display().to_string(), reason: reason.clone() })
    }

    /// What HIP opens.
    fn files(&self) -> impl Iterator<Item = (&'static str, &Access)> {
        [("/dev/kfd", &self.compute), ("/dev/dri/renderD*", &self.render)].into_iter()
    }
}

fn access(root: &Path, path: &Path, open: &dyn Fn(&Path) -> io::Result<()>) -> Access {
    let Ok(metadata) = fs::metadata(path) else { return Access::Missing };
    let shown = shown(root, path);
    match open(path) {
        Ok(()) => Access::Granted,
        // EACCES: the file's mode says no. (EPERM has the same kind, and means a rule of the container.)
        Err(error) if error.raw_os_error() == Some(13) => {
            Access::Denied { path: shown, group: group(root, metadata.gid()) }
        }
        Err(error) => Access::Refused { path: shown, reason: error.to_string() },
    }
}

/// `path` as it is under `/`.
fn shown(root: &Path, path: &Path) -> PathBuf {
    Path::new("/").join(path.strip_prefix(root).unwrap_or(path))
}

/// The name of group `gid`, or its number. For the group of `root`, which nobody is to join, the one that distributions
/// give these files to.
fn group(root: &Path, gid: u32) -> String {
    if gid == 0 {
        return "render".to_owned();
    }
    let groups = fs::read_to_string(root.join("etc/group")).unwrap_or_default();
    let name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(gid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| gid.to_string())
}

/// Displays (class 03) and accelerators (class 12) of AMD's.
fn cards(devices: &Path) -> Vec<String> {
    let is_card = |path: &PathBuf| {
        let field = |name| fs::read_to_string(path.join(name)).unwrap_or_default();
        let class = field("class");
        field("vendor").trim() == AMD && (class.starts_with("0x03") || class.starts_with("0x12"))
    };
    list(devices).into_iter().filter(is_card).map(|path| name(&path)).collect()
}

/// Architectures of the nodes that compute as GPUs do (processors are nodes too, without such units), and the first node
/// that can't be read: the kernel refuses that in a container that may not use its device.
fn offered(root: &Path) -> (Vec<String>, Option<(PathBuf, String)>) {
    let (mut offered, mut hidden) = (Vec::new(), None);
    for node in list(&root.join("sys/class/kfd/kfd/topology/nodes")) {
        let path = node.join("properties");
        match fs::read_to_string(&path) {
            Ok(text) => offered.extend(arch(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                hidden.get_or_insert((shown(root, &path), error.to_string()));
            }
        }
    }
    (offered, hidden)
}

/// The architecture of a node with these properties, if it is a GPU.
fn arch(properties: &str) -> Option<String> {
    let value = |key| {
        let line = properties.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
        line.and_then(|value| value.trim().parse::<u32>().ok()).unwrap_or_default()
    };
    (value("simd_count") > 0).then(|| arch_name(value("gfx_target_version")))
}

/// 110000 is gfx1100, 90010 gfx90a: major × 10000 + minor × 100 + step, of which minor and step are written in hexadecimal.
fn arch_name(version: u32) -> String {
    format!("gfx{}{:x}{:x}", version / 10_000, version / 100 % 100, version % 100)
}

/// What is in a folder, sorted; nothing if it can't be read.
fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
