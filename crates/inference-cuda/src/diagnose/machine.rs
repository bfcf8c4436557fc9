//! What the kernel says of a machine's NVIDIA GPUs: read from `/sys`, `/proc` and `/dev` in less than a millisecond, with
//! no library.

use super::Problem;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// NVIDIA's number among makers of PCI devices.
const NVIDIA: &str = "0x10de";

/// Linux on Windows (WSL) reaches any GPU through this.
const WSL: &str = "dev/dxg";

/// What only a machine has whose GPU is no PCI device of its own: Linux on Windows, and Jetson.
const OTHER_WAYS: [&str; 3] = [WSL, "dev/nvgpu", "dev/nvhost-ctrl-gpu"];

/// What a machine has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Machine {
    /// PCI addresses of NVIDIA's GPUs.
    pub(crate) cards: Vec<String>,
    /// The kernel driver that has the first of them.
    pub(crate) driver_of_card: Option<String>,
    /// The version of NVIDIA's kernel driver, if it is loaded; empty if it does not say.
    pub(crate) driver: Option<String>,
    /// Whether the GPU is reached in a way that is not looked at here.
    pub(crate) is_elsewhere: bool,
    /// Whether this is Linux on Windows.
    pub(crate) is_wsl: bool,
    /// `/dev/nvidiactl`.
    pub(crate) control: Access,
}

/// Whether a device file can be opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum Access {
    /// It isn't there.
    #[default]
    Missing,
    /// It can.
    Granted,
    /// This user may not.
    Denied,
    /// Something else, in the kernel's words.
    Refused(String),
}

impl Machine {
    /// What is there under `root`; `open` opens a device file for reading and writing.
    pub(crate) fn read(root: &Path, open: &dyn Fn(&Path) -> io::Result<()>) -> Self {
        let devices = root.join("sys/bus/pci/devices");
        let cards = cards(&devices);
        let driver_of = |card: &String| fs::read_link(devices.join(card).join("driver")).ok();
        let driver_of_card = cards.first().and_then(driver_of).map(|path| name(&path));
        Self {
            cards,
            driver_of_card,
            driver: driver_version(&root.join("proc/driver/nvidia/version")),
            is_elsewhere: OTHER_WAYS.iter().any(|path| root.join(path).exists()),
            is_wsl: root.join(WSL).exists(),
            control: access(&root.join("dev/nvidiactl"), open),
        }
    }

    /// This machine.
    pub(crate) fn this() -> Self {
        let open = |path: &Path| fs::File::options().read(true).write(true).open(path).map(drop);
        Self::read(Path::new("/"), &open)
    }

    /// What keeps CUDA from using a card here, as far as the kernel can say.
    pub(crate) fn problem(&self) -> Option<Problem> {
        // Some sandboxes hide `/sys` and `/proc`, and give the device all the same.
        if self.is_elsewhere || self.control == Access::Granted {
            return None;
        }
        match (self.cards.first(), &self.driver, &self.control) {
            (_, _, Access::Denied) => Some(Problem::Denied),
            (_, _, Access::Refused(reason)) => Some(Problem::Forbidden { reason: reason.clone() }),
            (None, _, _) => Some(Problem::NoCard),
            (Some(card), None, _) => {
                let other = self.driver_of_card.clone().filter(|name| name != "nvidia");
                Some(Problem::NoDriver { card: card.clone(), other })
            }
            (Some(_), Some(_), _) => Some(Problem::NoFile),
        }
    }

    /// The cause of `problem`, which CUDA has, as far as the kernel can say; else the same.
    pub(crate) fn explain(&self, problem: Problem) -> Problem {
        match problem {
            Problem::NoLibrary { .. } | Problem::NotSeen if self.is_wsl => Problem::Wsl,
            Problem::OldDriver(_) | Problem::Hidden { .. } => problem,
            _ => self.problem().unwrap_or(problem),
        }
    }
}

fn access(path: &Path, open: &dyn Fn(&Path) -> io::Result<()>) -> Access {
    if !path.exists() {
        return Access::Missing;
    }
    match open(path) {
        Ok(()) => Access::Granted,
        // EACCES: the file's mode says no. (EPERM has the same kind, and means a rule of the container.)
        Err(error) if error.raw_os_error() == Some(13) => Access::Denied,
        Err(error) => Access::Refused(error.to_string()),
    }
}

/// Displays and accelerators without one (class 03, any subclass) of NVIDIA's.
fn cards(devices: &Path) -> Vec<String> {
    let is_card = |path: &PathBuf| {
        let field = |name| fs::read_to_string(path.join(name)).unwrap_or_default();
        field("vendor").trim() == NVIDIA && field("class").starts_with("0x03")
    };
    let entries = fs::read_dir(devices).into_iter().flatten().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.path()).filter(is_card).collect();
    paths.sort();
    paths.iter().map(|path| name(path)).collect()
}

/// `550.54.14` of `NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 …`, or of the open module's line.
fn driver_version(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let is_version =
        |word: &&str| word.contains('.') && word.split('.').all(|part| part.parse::<u32>().is_ok());
    let line = text.lines().next().unwrap_or_default();
    Some(line.split_whitespace().find(is_version).unwrap_or_default().to_owned())
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
