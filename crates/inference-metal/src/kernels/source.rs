//! The kernels' text: what is compiled together.

use candle_core::{DType, Result, bail};

/// How numbers are stored; the same in `portable.metal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stored {
    /// f32
    F32 = 0,
    /// f16
    F16 = 1,
    /// bf16
    Bf16 = 2,
}

impl Stored {
    /// That of a type of candle's.
    pub(super) fn of(dtype: DType) -> Result<Self> {
        match dtype {
            DType::F32 => Ok(Self::F32),
            DType::F16 => Ok(Self::F16),
            DType::BF16 => Ok(Self::Bf16),
            other => bail!("the kernels have no numbers of type {other:?}"),
        }
    }
}

/// Kernels that are compiled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Library {
    /// Norms, gates, sums, copies of rows.
    Elementwise,
    /// Products with matrices of such numbers, and rows of them.
    Dense(Stored),
    /// The same with quantised matrices.
    Affine {
        /// Bits of a number.
        bits: u32,
        /// The type of scales and biases.
        scales: Stored,
    },
    /// What becomes of heads, and attention over a cache of such numbers.
    Attention(Stored),
    /// The largest logits.
    Sample,
}

const PORTABLE: &str = include_str!("../../kernels/portable.metal");
const PRODUCTS: &str = concat!(
    include_str!("../../kernels/gemv.metal"),
    include_str!("../../kernels/gemm.metal"),
    include_str!("../../kernels/embed.metal")
);

impl Library {
    /// Its text, in the Metal Shading Language.
    pub fn source(self) -> String {
        let one = |text: &str| format!("{PORTABLE}{text}");
        match self {
            Self::Elementwise => one(include_str!("../../kernels/elementwise.metal")),
            Self::Dense(stored) => {
                let reader = include_str!("../../kernels/dense.metal");
                format!("#define TYPE {}\n{PORTABLE}{reader}{PRODUCTS}", stored as u32)
            }
            Self::Affine { bits, scales } => {
                let reader = include_str!("../../kernels/affine.metal");
                let defines = format!("#define TYPE {}\n#define BITS {bits}\n", scales as u32);
                format!("{defines}{PORTABLE}{reader}{PRODUCTS}")
            }
            Self::Attention(stored) => {
                let kernels = concat!(
                    include_str!("../../kernels/cache.metal"),
                    include_str!("../../kernels/append.metal"),
                    include_str!("../../kernels/attend.metal"),
                    include_str!("../../kernels/flash.metal")
                );
                format!("#define TYPE {}\n{PORTABLE}{kernels}", stored as u32)
            }
            Self::Sample => one(include_str!("../../kernels/sample.metal")),
        }
    }

    /// The names of its kernels.
    pub fn kernels(self) -> &'static [&'static str] {
        match self {
            Self::Elementwise => &["rms_norm", "gate", "add", "softcap", "gather"],
            Self::Dense(_) | Self::Affine { .. } => {
                &["gemv_1", "gemv_2", "gemv_4", "gemv_8", "gemm_32", "gemm_64", "embed"]
            }
            Self::Attention(_) => {
                &["append", "copy_blocks", "attend", "merge", "flash_64", "flash_128", "flash_256"]
            }
            Self::Sample => &["argmax", "top_k"],
        }
    }

    /// Every library with every width and type.
    pub fn all() -> Vec<Self> {
        let types = [Stored::F32, Stored::F16, Stored::Bf16];
        let mut all = vec![Self::Elementwise, Self::Sample];
        all.extend(types.map(Self::Dense));
        all.extend(types.map(Self::Attention));
        for bits in inference_engine::weights::Affine::BITS {
            all.extend(types.map(|scales| Self::Affine { bits, scales }));
        }
        all
    }
}
