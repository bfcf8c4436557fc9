//! The sentences.

use crate::driver::{CudaError, OpenError, nvrtc::NvrtcError};

/// The variable that hides devices.
pub(crate) const HIDING: &str = "CUDA_VISIBLE_DEVICES";

/// The least compute capability: the oldest that NVRTC 12 compiles for. The kernels ask for nothing that came later.
pub(crate) const LEAST: (u32, u32) = (5, 0);

/// Why there is no device to run on. `docs/nvidia-gpus.md` has each, with more to try.
#[derive(Debug, Clone, thiserror::Error)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "some are what Linux alone tells"))]
pub(crate) enum Problem {
    #[error(
        "there is no NVIDIA GPU in this machine: use the backend cpu; a card that is built in is listed by \
         `lspci -d 10de:`, and a virtual machine has to be given one"
    )]
    NoCard,

    #[error(
        "there is an NVIDIA GPU at {card}, but NVIDIA's kernel driver is not loaded{}: install NVIDIA's driver and \
         restart, or run `sudo modprobe nvidia` if it is installed; `sudo dmesg | grep -e NVRM -e nvidia` says why it fails",
        instead(.other)
    )]
    NoDriver { card: String, other: Option<String> },

    #[error(
        "there is an NVIDIA GPU, but no /dev/nvidiactl: start the container with `--gpus all` (and NVIDIA's container \
         toolkit on the host); outside of one, run `sudo nvidia-modprobe -c 0 -u`"
    )]
    NoFile,

    #[error(
        "this user may not open /dev/nvidiactl: join the group that `stat -c %G /dev/nvidiactl` prints, \
         with `sudo usermod -aG GROUP $USER`, and log in again"
    )]
    Denied,

    #[error(
        "/dev/nvidiactl can't be opened ({reason}): a container needs `--gpus all`, in LXC a device rule in its \
         configuration"
    )]
    Forbidden { reason: String },

    #[error(
        "NVIDIA's kernel driver is loaded{}, but not its library for CUDA ({}): install the package of the same \
         version (`libcuda1` on Debian, `libnvidia-compute-…` on Ubuntu, `xorg-x11-drv-nvidia-cuda` on Fedora, \
         `nvidia-utils` on Arch); in a container, start it with `--gpus all -e NVIDIA_DRIVER_CAPABILITIES=compute,utility`",
        version(.driver), LIBRARY
    )]
    NoLibrary { driver: Option<String> },

    #[error(
        "no NVIDIA GPU reaches this WSL: install NVIDIA's driver on Windows, and none in Linux; `/usr/lib/wsl/lib` has to \
         be in the loader's path, so that `ldconfig -p | grep libcuda` shows it"
    )]
    Wsl,

    #[error("NVIDIA's driver with CUDA ({LIBRARY}) is not installed: install NVIDIA's driver")]
    NotInstalled,

    #[error(
        "NVIDIA's driver knows CUDA {}.{}, and 11.4 is the oldest that works: update the driver to 470 or later",
        .0.0, .0.1
    )]
    OldDriver((u32, u32)),

    #[error(
        "CUDA sees no GPU, and {HIDING}={value:?} is set: unset it, or set it to a device that `nvidia-smi -L` lists"
    )]
    Hidden { value: String },

    #[error("CUDA sees no GPU: run `nvidia-smi`, which should say why")]
    NotSeen,

    #[error("CUDA can't start ({error}): {advice}")]
    NotStarted { error: CudaError, advice: &'static str },

    #[error(
        "the GPU ({name}) has compute capability {}.{}, and {}.{} is the least that the kernels need: use the backend cpu",
        .capability.0, .capability.1, LEAST.0, LEAST.1
    )]
    OldDevice { name: String, capability: (u32, u32) },

    #[error(transparent)]
    Compiler(#[from] NvrtcError),
}

const LIBRARY: &str = if cfg!(windows) { "nvcuda.dll" } else { "libcuda.so.1" };

fn instead(other: &Option<String>) -> String {
    other.as_ref().map(|name| format!(" ({name} has the GPU)")).unwrap_or_default()
}

fn version(driver: &Option<String>) -> String {
    let known = driver.as_ref().filter(|version| !version.is_empty());
    known.map(|version| format!(" in version {version}")).unwrap_or_default()
}

impl Problem {
    /// Whether opening CUDA can't mend it: as root, or with `nvidia-modprobe` installed, that loads NVIDIA's kernel driver
    /// and makes the device files, which a machine without a display may lack until then.
    #[cfg(target_os = "linux")]
    pub(crate) fn stays(&self) -> bool {
        !matches!(self, Self::NoFile | Self::NoDriver { other: None, .. })
    }

    /// What it means that the driver can't be opened; `driver` is the kernel driver's version, on Linux.
    pub(crate) fn of_opening(
        error: OpenError,
        driver: Option<String>,
        is_set: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        match error {
            OpenError::NoLibrary if cfg!(windows) => Self::NotInstalled,
            OpenError::NoLibrary => Self::NoLibrary { driver },
            OpenError::TooOld(version) => Self::OldDriver(version),
            OpenError::Refused(error) => Self::of_error(error, is_set),
        }
    }

    /// What it means that CUDA shows no device.
    pub(crate) fn of_nothing(is_set: &dyn Fn(&str) -> Option<String>) -> Self {
        is_set(HIDING).map_or(Self::NotSeen, |value| Self::Hidden { value })
    }

    /// What it means that CUDA does not start.
    pub(crate) fn of_error(error: CudaError, is_set: &dyn Fn(&str) -> Option<String>) -> Self {
        let code = match &error {
            CudaError::Call { code, .. } => *code,
            _ => 0,
        };
        let advice = match code {
            100 | 101 => return Self::of_nothing(is_set),
            34 => {
                "the library found is a stub for linking: remove folders called `stubs` from LD_LIBRARY_PATH"
            }
            802 => "start the fabric manager with `sudo systemctl start nvidia-fabricmanager`",
            803 => {
                "kernel driver and library are of different versions, mostly after an update: restart the machine"
            }
            804 => {
                "a compatibility package for another kind of GPU is in the way: remove `cuda-compat` from LD_LIBRARY_PATH"
            }
            999 => "run `sudo nvidia-modprobe -c 0 -u`, or restart the machine",
            _ => "`nvidia-smi` should fail too; `sudo dmesg | grep NVRM` may say why",
        };
        Self::NotStarted { error, advice }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u32, set: bool) -> String {
        let (call, name, text) = ("cuInit", "CUDA_ERROR_X".to_owned(), "x".to_owned());
        let error = OpenError::Refused(CudaError::Call { call, code, name, text });
        let is_set = |name: &str| (set && name == HIDING).then(|| "7".to_owned());
        Problem::of_opening(error, None, &is_set).to_string()
    }

    #[test]
    fn a_variable_that_hides_the_card_is_named() {
        for code in [100, 101] {
            let hidden = of(code, true);
            assert!(hidden.contains("CUDA_VISIBLE_DEVICES=\"7\" is set: unset it"), "{hidden}");
            assert!(of(code, false).contains("run `nvidia-smi`"));
        }
        let empty = Problem::of_nothing(&|_| Some(String::new())).to_string();
        assert!(empty.contains("CUDA_VISIBLE_DEVICES=\"\" is set: unset it"), "{empty}");
    }

    #[test]
    fn failures_to_start_have_their_advice() {
        for (code, word) in [
            (34, "stubs"),
            (802, "fabricmanager"),
            (803, "restart the machine"),
            (804, "cuda-compat"),
            (999, "nvidia-modprobe"),
            (1, "dmesg"),
        ] {
            let sentence = of(code, true);
            assert!(
                sentence.contains(word) && sentence.contains("cuInit: CUDA_ERROR_X"),
                "{sentence}"
            );
        }
        let old = Problem::of_opening(OpenError::TooOld((11, 0)), None, &|_| None).to_string();
        assert!(old.contains("knows CUDA 11.0") && old.contains("470"), "{old}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_missing_library_is_named_with_its_package() {
        let missing = |driver: Option<&str>| {
            let driver = driver.map(str::to_owned);
            Problem::of_opening(OpenError::NoLibrary, driver, &|_| None).to_string()
        };
        let sentence = missing(Some("550.54.14"));
        for word in
            ["in version 550.54.14", "libcuda.so.1", "libcuda1", "libnvidia-compute", "--gpus all"]
        {
            assert!(sentence.contains(word), "{sentence}");
        }
        assert!(missing(None).starts_with("NVIDIA's kernel driver is loaded, but"));
    }
}
