//! What a GPU can do at best: measured where the backend is one of ours, else as its maker states.

use super::apple;
use crate::Result;
use inference_gpu::{Limits, MatrixUnit};
use serde::Serialize;

/// Cards whose fastest products need other instructions than our kernels have, by how their names begin, the more special
/// first; and what NVIDIA states of them, in units of 10¹² operations per second on bf16 without sparsity (the data sheets
/// of H100, H200, GH200, and HGX B200: half of what is stated with sparsity).
const STATED: [(&str, f64); 7] = [
    ("NVIDIA H100 PCIe", 756.0),
    ("NVIDIA H100 NVL", 835.0),
    ("NVIDIA H100", 989.0),
    ("NVIDIA H200 NVL", 835.0),
    ("NVIDIA H200", 989.0),
    ("NVIDIA GH200", 989.0),
    ("NVIDIA B200", 2250.0),
];

/// What shares of a candidate on a GPU are of.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Bound {
    /// Bytes per second of its memory, for decoding.
    pub(super) bandwidth: f64,
    /// Floating-point operations per second, for prefill.
    pub(super) operations: Option<f64>,
    /// Those of a large product of bf16 by our own kernels.
    pub(super) large_product: Option<f64>,
    /// Where the numbers come from, for people.
    pub(super) told: String,
}

impl Bound {
    /// Of a device of this name, which did so much.
    pub(super) fn measured(limits: &Limits, device: &str) -> Self {
        let Limits { copy, products, unit, large_product } = *limits;
        let stated = STATED.iter().find(|(name, _)| device.starts_with(name));
        let stated = stated.map(|(_, rate)| rate * 1e12).filter(|stated| *stated > products);
        let mut told = format!(
            "{device}: a copy moves {:.0} GB/s, {} multiply bf16 from registers with {:.1} TFLOP/s, a large product of ours has {:.1} TFLOP/s",
            copy / 1e9,
            instructions(unit),
            products / 1e12,
            large_product / 1e12
        );
        if let Some(stated) = stated {
            told += &format!(
                "; shares of prefill are of the {:.0} TFLOP/s that NVIDIA states, for other instructions",
                stated / 1e12
            );
        }
        Self {
            bandwidth: copy,
            operations: Some(stated.unwrap_or(products)),
            large_product: Some(large_product),
            told,
        }
    }

    /// Of a backend or a peer on the GPU of Apple's chip, if that is known.
    pub(super) fn stated(candidate: &str, chip: &str, cores: usize) -> Option<Self> {
        let bandwidth = apple::bandwidth_of(candidate, chip, cores)?;
        let told = format!("{chip}: its memory gives {:.0} GB/s, as Apple states", bandwidth / 1e9);
        Some(Self { bandwidth, operations: None, large_product: None, told })
    }
}

/// What multiplies, for people.
fn instructions(unit: MatrixUnit) -> &'static str {
    match unit {
        MatrixUnit::MmaSync => "mma.sync",
        MatrixUnit::Mfma => "MFMA",
        MatrixUnit::WmmaGfx11 | MatrixUnit::WmmaGfx12 => "WMMA",
        _ => "multiply-adds",
    }
}

/// Measures the device that a backend takes by itself. `None`: this backend is not measured, or never runs on this system.
pub(super) fn measure(backend: &str) -> Result<Option<Limits>> {
    if ["cuda", "rocm"].contains(&backend) {
        eprintln!("measuring the device of {backend}");
    }
    let limits: Option<inference::Result<Limits>> = match backend {
        #[cfg(any(target_os = "linux", target_os = "windows"))]
        "cuda" => Some(inference_cuda::limits(None)),
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        "rocm" => Some(inference_rocm::limits(None)),
        _ => None,
    };
    limits.transpose().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_the_measured_one_unless_the_card_has_faster_instructions() {
        let limits = Limits {
            copy: 4e12,
            products: 600e12,
            unit: MatrixUnit::MmaSync,
            large_product: 400e12,
        };
        for (device, peak) in [
            ("NVIDIA H200", 989e12),
            ("NVIDIA H100 PCIe", 756e12),
            ("NVIDIA GeForce RTX 4090", 600e12),
        ] {
            let bound = Bound::measured(&limits, device);
            assert_eq!((bound.bandwidth, bound.operations), (4e12, Some(peak)), "{device}");
            assert_eq!(bound.told.contains("NVIDIA states"), peak != 600e12, "{}", bound.told);
        }
        let slow = Bound::stated("metal", "Apple M1", 8).expect("it is known");
        assert_eq!((slow.bandwidth, slow.operations), (68.25e9, None));
        assert!(Bound::stated("cpu", "Apple M1", 8).is_none());
    }

    #[test]
    fn a_machine_without_a_card_is_told_of_when_its_card_is_to_be_measured() {
        assert!(measure("cpu").is_ok_and(|limits| limits.is_none()));
        let is_there = |name| inference::get(name).is_some_and(|b| b.availability().is_available());
        for name in ["cuda", "rocm"] {
            if !is_there(name) && cfg!(all(target_os = "linux", target_arch = "x86_64")) {
                let error = measure(name).expect_err("there is no card");
                assert!(error.contains(name), "{error}");
            }
        }
    }
}
