//! The sentences.

use crate::hip::{HipError, LoadError};

/// Variables that hide devices, in the order in which they act.
pub(crate) const HIDING: [&str; 4] =
    ["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"];

/// Why there is no device to run on. `docs/amd-gpus.md` has each, with more to try.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Problem {
    #[error(
        "there is no AMD GPU in this machine: use the backend cpu; a card that is built in is listed by \
         `lspci -d 1002:`, and a virtual machine has to be given one"
    )]
    NoCard,

    #[error(
        "there is an AMD GPU at {card}, but its kernel driver is not loaded: run `sudo modprobe amdgpu`; if that \
         fails, `sudo dmesg | grep amdgpu` says why"
    )]
    NoDriver { card: String },

    #[error(
        "there is an AMD GPU at {card}, but its kernel driver does not offer it for computing: update the kernel or \
         install `amdgpu-dkms`; `sudo dmesg | grep -e amdgpu -e kfd` says more"
    )]
    NotOffered { card: String },

    #[error(
        "there is an AMD GPU, but no {what}: start the container with `--device=/dev/kfd --device=/dev/dri`; outside \
         of one, `sudo modprobe amdgpu`"
    )]
    NoFile { what: &'static str },

    #[error(
        "this user may not open {path}: run `sudo usermod -aG {group} $USER` and log in again; a container is started \
         with `--group-add` and the number that `stat -c %g {path}` prints"
    )]
    Denied { path: String, group: String },

    #[error(
        "{path} can't be opened ({reason}): a container needs `--device=/dev/kfd --device=/dev/dri`, in LXC a device \
         rule in its configuration"
    )]
    Forbidden { path: String, reason: String },

    #[error(transparent)]
    Library(#[from] LoadError),

    #[error(
        "HIP sees no GPU, and {} is set: unset it, or set it to a device that `rocminfo` lists",
        .variables.join(" and ")
    )]
    Hidden { variables: Vec<String> },

    #[error(
        "HIP {version} does not see the GPU{}: install a newer ROCm; `rocminfo` and `sudo dmesg | grep kfd` say more",
        named(.archs)
    )]
    NotSeen { version: String, archs: Vec<String> },

    #[error(
        "the kernel driver is older than HIP {version} needs: update the kernel or install `amdgpu-dkms` of the same \
         release as ROCm"
    )]
    OldDriver { version: String },

    #[error(
        "HIP {version} can't start ({error}): run `rocminfo`, and reinstall ROCm if that fails too"
    )]
    NotStarted { version: String, error: HipError },
}

fn named(archs: &[String]) -> String {
    if archs.is_empty() { String::new() } else { format!(" ({})", archs.join(", ")) }
}

impl Problem {
    /// What it means that HIP, of `version`, found no device with `error`, or none at all.
    pub(crate) fn of_hip(
        error: Option<HipError>,
        version: String,
        archs: Vec<String>,
        is_set: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let code = match &error {
            Some(HipError::Call { code, .. }) => *code,
            Some(_) => 0,
            None => 100,
        };
        // 5.2 says "invalid device" (101) from hipInit where there is none.
        if code != 100 && code != 101 {
            return match error {
                Some(_) if code == 35 => Self::OldDriver { version },
                Some(error) => Self::NotStarted { version, error },
                None => Self::NotSeen { version, archs },
            };
        }
        let words = |name: &&str| is_set(name).map(|value| format!("{name}={value}"));
        let variables: Vec<_> = HIDING.iter().filter_map(words).collect();
        if variables.is_empty() {
            Self::NotSeen { version, archs }
        } else {
            Self::Hidden { variables }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: Option<u32>, set: &[&str]) -> String {
        let (call, name, text) = ("hipInit", "hipErrorX".to_owned(), "x".to_owned());
        let error = code.map(|code| HipError::Call { call, code, name, text });
        let is_set = |name: &str| set.contains(&name).then(|| "7".to_owned());
        let archs = vec!["gfx1201".to_owned()];
        Problem::of_hip(error, "6.0.1".to_owned(), archs, &is_set).to_string()
    }

    #[test]
    fn a_variable_that_hides_the_card_is_named() {
        for code in [None, Some(100), Some(101)] {
            let both = of(code, &["ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"]);
            assert!(
                both.contains("ROCR_VISIBLE_DEVICES=7 and HIP_VISIBLE_DEVICES=7 is set"),
                "{both}"
            );
            let none = of(code, &[]);
            assert!(none.contains("HIP 6.0.1 does not see the GPU (gfx1201)"), "{none}");
        }
    }

    #[test]
    fn other_failures_of_hip_have_sentences_of_their_own() {
        assert!(of(Some(35), &HIDING).contains("older than HIP 6.0.1 needs"));
        assert!(
            of(Some(999), &HIDING).contains("HIP 6.0.1 can't start (hipInit: hipErrorX (999): x)")
        );
    }
}
