//! The number types of tensors, and how many bytes their blocks take.
//!
//! Codes: `ggml_type` of <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Blocks: the `block_*` structures of
//! <https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h>.

use std::fmt;

/// Defines the types: code, name, weights of a block, bytes of a block, bits of a weight if it is quantised, and weights
/// that share a scale.
macro_rules! types {
    ($($code:literal $name:ident $text:literal $len:literal $bytes:literal $bits:expr, $group:expr;)*) => {
        /// How a tensor's numbers are stored: in blocks along its innermost dimension.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        #[expect(non_camel_case_types, reason = "as ggml writes them")]
        #[expect(missing_docs, reason = "ggml's own names")]
        pub enum GgmlType {
            $($name = $code,)*
        }

        impl GgmlType {
            /// All types, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The type that a file means by `code`, if it is known.
            pub fn from_code(code: u32) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// ggml's name of it, such as `Q4_K`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Numbers of a block.
            pub fn block_len(self) -> u64 {
                match self { $(Self::$name => $len,)* }
            }

            /// Bytes of a block.
            pub fn block_bytes(self) -> u64 {
                match self { $(Self::$name => $bytes,)* }
            }

            /// Bits of a number, without its share of scales; `None` for types that are not quantised.
            pub fn quantised_bits(self) -> Option<u8> {
                match self { $(Self::$name => $bits,)* }
            }

            /// Numbers that share a scale; `None` for types that are not quantised.
            pub fn group_len(self) -> Option<usize> {
                match self { $(Self::$name => $group,)* }
            }
        }
    };
}

types! {
    0 F32 "F32" 1 4 None, None;
    1 F16 "F16" 1 2 None, None;
    2 Q4_0 "Q4_0" 32 18 Some(4), Some(32);
    3 Q4_1 "Q4_1" 32 20 Some(4), Some(32);
    6 Q5_0 "Q5_0" 32 22 Some(5), Some(32);
    7 Q5_1 "Q5_1" 32 24 Some(5), Some(32);
    8 Q8_0 "Q8_0" 32 34 Some(8), Some(32);
    9 Q8_1 "Q8_1" 32 36 Some(8), Some(32);
    10 Q2_K "Q2_K" 256 84 Some(2), Some(16);
    11 Q3_K "Q3_K" 256 110 Some(3), Some(16);
    12 Q4_K "Q4_K" 256 144 Some(4), Some(32);
    13 Q5_K "Q5_K" 256 176 Some(5), Some(32);
    14 Q6_K "Q6_K" 256 210 Some(6), Some(16);
    15 Q8_K "Q8_K" 256 292 Some(8), Some(256);
    16 IQ2_XXS "IQ2_XXS" 256 66 Some(2), Some(32);
    17 IQ2_XS "IQ2_XS" 256 74 Some(2), Some(16);
    18 IQ3_XXS "IQ3_XXS" 256 98 Some(3), Some(32);
    19 IQ1_S "IQ1_S" 256 50 Some(1), Some(32);
    20 IQ4_NL "IQ4_NL" 32 18 Some(4), Some(32);
    21 IQ3_S "IQ3_S" 256 110 Some(3), Some(32);
    22 IQ2_S "IQ2_S" 256 82 Some(2), Some(16);
    23 IQ4_XS "IQ4_XS" 256 136 Some(4), Some(32);
    24 I8 "I8" 1 1 None, None;
    25 I16 "I16" 1 2 None, None;
    26 I32 "I32" 1 4 None, None;
    27 I64 "I64" 1 8 None, None;
    28 F64 "F64" 1 8 None, None;
    29 IQ1_M "IQ1_M" 256 56 Some(1), Some(16);
    30 BF16 "BF16" 1 2 None, None;
    34 TQ1_0 "TQ1_0" 256 54 Some(2), Some(256);
    35 TQ2_0 "TQ2_0" 256 66 Some(2), Some(256);
    39 MXFP4 "MXFP4" 32 17 Some(4), Some(32);
    40 NVFP4 "NVFP4" 64 36 Some(4), Some(16);
    41 Q1_0 "Q1_0" 128 18 Some(1), Some(128);
    42 Q2_0 "Q2_0" 64 18 Some(2), Some(64);
}

impl GgmlType {
    /// What a file calls it.
    pub fn code(self) -> u32 {
        self as u32
    }

    /// Bytes of a tensor with the dimensions `dims`, the innermost first.
    ///
    /// # Errors
    /// What is wrong with the dimensions: not 1 to 4, one is zero, the first is no multiple of the block, or there are
    /// too many numbers.
    pub fn bytes(self, dims: &[u64]) -> Result<u64, String> {
        if !(1..=4).contains(&dims.len()) {
            return Err(format!("has {} dimensions; 1 to 4 are possible", dims.len()));
        }
        if dims.contains(&0) {
            return Err(format!("has a dimension of zero in {dims:?}"));
        }
        let block = self.block_len();
        if !dims[0].is_multiple_of(block) {
            return Err(format!(
                "has rows of {} numbers, but a block of {self} has {block}",
                dims[0]
            ));
        }
        let numbers = dims.iter().try_fold(1_u64, |n, dim| n.checked_mul(*dim));
        numbers
            .and_then(|n| (n / block).checked_mul(self.block_bytes()))
            .filter(|bytes| i64::try_from(*bytes).is_ok())
            .ok_or_else(|| format!("is too large: {dims:?}"))
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_blocks_are_ggmls() {
        for ty in GgmlType::ALL {
            assert_eq!(GgmlType::from_code(ty.code()), Some(*ty));
            // Scales add something, and a block is never half as long again.
            if let (Some(bits), Some(group)) = (ty.quantised_bits(), ty.group_len()) {
                let real = ty.block_bytes() as f64 * 8.0 / ty.block_len() as f64;
                assert!((real - f64::from(bits)).abs() <= 1.5, "{ty}: {real}");
                assert!(ty.block_len().is_multiple_of(group as u64), "{ty}");
            }
        }
        for removed in [4, 5, 31, 32, 33, 36, 37, 38, 43, u32::MAX] {
            assert_eq!(GgmlType::from_code(removed), None);
        }
    }

    #[test]
    fn bytes_of_a_tensor() {
        assert_eq!(GgmlType::F32.bytes(&[3, 5]), Ok(60));
        assert_eq!(GgmlType::Q4_K.bytes(&[512, 3]), Ok(2 * 3 * 144));
        for dims in [&[][..], &[1; 5], &[0], &[4, 0], &[u64::MAX], &[1 << 62, 4], &[1 << 40; 4]] {
            assert!(GgmlType::F32.bytes(dims).is_err(), "{dims:?}");
        }
        assert!(GgmlType::Q8_0.bytes(&[33]).unwrap_err().contains("a block of Q8_0 has 32"));
    }
}
