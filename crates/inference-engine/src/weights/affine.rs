//! Quantised matrices: whole numbers of a few bits, with a scale and a bias for every group of columns.
//!
//! It is MLX's form (<https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.quantize.html>), and
//! what every other format that is linear in its numbers becomes at the door.

use super::{DType, Kind, RawTensor};
use bytes::Bytes;
use inference_core::Quantisation;
use std::sync::Arc;

/// `w[r, c] = q[r, c] · scales[r, c / group] + biases[r, c / group]`, `[out, in]`.
#[derive(Debug, Clone)]
pub struct Affine {
    bits: u32,
    group: usize,
    shape: [usize; 2],
    q: Bytes,
    scales: RawTensor,
    biases: RawTensor,
    order: Option<Arc<[u32]>>,
}

impl Affine {
    /// Bits of a number that a matrix may have.
    pub const BITS: [u32; 6] = [2, 3, 4, 5, 6, 8];

    /// Columns that a group may have.
    pub const GROUPS: [usize; 4] = [16, 32, 64, 128];

    /// A matrix `[out, in]` of `bits` bits in groups of `group` columns.
    ///
    /// `q`: each row is one little-endian bit stream, in which number `c` has the bits `c·bits..(c+1)·bits`.
    /// `scales`, `biases`: `[out, in / group]`, of the same type.
    ///
    /// # Errors
    /// What does not fit together.
    pub fn new(
        bits: u32,
        group: usize,
        shape: [usize; 2],
        q: Bytes,
        scales: RawTensor,
        biases: RawTensor,
    ) -> Result<Self, String> {
        if !Self::BITS.contains(&bits) {
            return Err(format!("{bits} bits; 2, 3, 4, 5, 6 and 8 are possible"));
        }
        if !Self::GROUPS.contains(&group) {
            return Err(format!("groups of {group}; 16, 32, 64 and 128 are possible"));
        }
        let [rows, cols] = shape;
        if !cols.is_multiple_of(group) || !(cols * bits as usize).is_multiple_of(8) {
            return Err(format!("{cols} columns can't be divided into groups of {group}"));
        }
        let needed = rows.checked_mul(cols * bits as usize / 8);
        if needed != Some(q.len()) {
            return Err(format!("{} bytes for {shape:?} of {bits} bits", q.len()));
        }
        let of_groups = [rows, cols / group];
        if scales.shape != of_groups || biases.shape != of_groups {
            return Err(format!(
                "scales {:?} and biases {:?} must both be {of_groups:?}",
                scales.shape, biases.shape
            ));
        }
        if scales.dtype != biases.dtype {
            return Err("scales and biases must have the same type".to_owned());
        }
        Ok(Self { bits, group, shape, q, scales, biases, order: None })
    }

    /// The same matrix whose column `c` multiplies input `order[c]`: for formats whose groups are not neighbours.
    ///
    /// # Errors
    /// `order` is not a permutation of the columns.
    pub fn in_order(mut self, order: Arc<[u32]>) -> Result<Self, String> {
        let mut seen = vec![false; self.cols()];
        let fresh =
            |&c: &u32| seen.get_mut(c as usize).is_some_and(|s| !std::mem::replace(s, true));
        if order.len() != self.cols() || !order.iter().all(fresh) {
            return Err("the order of its columns is no permutation".to_owned());
        }
        self.order = Some(order);
        Ok(self)
    }

    /// Bits of a number.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// Columns that share a scale and a bias.
    pub fn group(&self) -> usize {
        self.group
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.shape[0]
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.shape[1]
    }

    /// `[rows, cols · bits / 8]`; see [`new`](Self::new).
    pub fn q(&self) -> &Bytes {
        &self.q
    }

    /// `[rows, cols / group]`
    pub fn scales(&self) -> &RawTensor {
        &self.scales
    }

    /// `[rows, cols / group]`, of the type of the scales.
    pub fn biases(&self) -> &RawTensor {
        &self.biases
    }

    /// The input that each column multiplies; `None`: its own.
    pub fn order(&self) -> Option<&Arc<[u32]>> {
        self.order.as_ref()
    }

    /// The numbers of row `row`, in the order of the columns.
    ///
    /// # Panics
    /// Without such a row, or where `out` is not as long as one.
    pub fn unpack_row(&self, row: usize, out: &mut [u8]) {
        assert_eq!(out.len(), self.cols(), "a row of another length");
        let stride = self.cols() * self.bits as usize / 8;
        let bytes = &self.q[row * stride..][..stride];
        let bits = self.bits as usize;
        // Eight numbers take `bits` bytes.
        for (eight, out) in bytes.chunks_exact(bits).zip(out.chunks_exact_mut(8)) {
            let mut word = [0; 8];
            word[..bits].copy_from_slice(eight);
            let word = u64::from_le_bytes(word);
            for (i, q) in out.iter_mut().enumerate() {
                *q = (word >> (i * bits)) as u8 & (0xff >> (8 - bits)) as u8;
            }
        }
    }

    /// The matrix, row-major, in the order of the inputs.
    pub fn to_f32(&self) -> Vec<f32> {
        let (cols, groups) = (self.cols(), self.cols() / self.group);
        let (scales, biases) = (self.scales.to_f32(), self.biases.to_f32());
        let mut all = vec![0.0; self.rows() * cols];
        let mut q = vec![0; cols];
        for (row, out) in all.chunks_exact_mut(cols.max(1)).enumerate() {
            self.unpack_row(row, &mut q);
            for (c, q) in q.iter().enumerate() {
                let at = row * groups + c / self.group;
                let input = self.order.as_ref().map_or(c, |order| order[c] as usize);
                out[input] = f32::from(*q) * scales[at] + biases[at];
            }
        }
        all
    }

    /// Bytes of numbers, scales and biases.
    pub fn bytes(&self) -> u64 {
        (self.q.len() + self.scales.bytes.len() + self.biases.bytes.len()) as u64
    }
}

/// A matrix `[out, in]` of a checkpoint.
#[derive(Debug, Clone)]
pub enum Matrix {
    /// One floating-point number each.
    Dense(RawTensor),
    /// Quantised.
    Affine(Affine),
}

impl Matrix {
    /// Outputs and inputs.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::Dense(raw) => &raw.shape,
            Self::Affine(affine) => &affine.shape,
        }
    }

    /// The type of its numbers, or of its scales.
    pub fn dtype(&self) -> DType {
        match self {
            Self::Dense(raw) => raw.dtype,
            Self::Affine(affine) => affine.scales.dtype,
        }
    }

    /// What it is.
    pub fn kind(&self) -> Kind {
        let quantisation = match self {
            Self::Dense(_) => None,
            Self::Affine(a) => Some(Quantisation { bits: a.bits as u8, group_size: Some(a.group) }),
        };
        Kind { shape: self.shape().to_vec(), dtype: self.dtype(), quantisation }
    }

    /// Row-major, in the order of the inputs.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::Dense(raw) => raw.to_f32(),
            Self::Affine(affine) => affine.to_f32(),
        }
    }

    /// Bytes that it has in the checkpoint.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Dense(raw) => raw.bytes.len() as u64,
            Self::Affine(affine) => affine.bytes(),
        }
    }
}

impl From<RawTensor> for Matrix {
    fn from(raw: RawTensor) -> Self {
        Self::Dense(raw)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `mlx.core.quantize` makes of `(i - 7.5) / 4`, `i = 0..32`, in groups of 32.
    const GOLDEN: [(u32, &[u32], f32, f32); 6] = [
        (2, &[0x5aaa_aaaf, 0x0005_5555], -2.9375, 5.875),
        (3, &[0x2db7_6db7, 0x26db_7249, 0x0012_4949], -1.175, 5.875),
        (4, &[0xbccd_deef, 0x7889_9aab, 0x4455_6677, 0x0011_2233], -0.534_090_94, 5.875),
        (
            5,
            &[0xb7ce_fbff, 0x3a56_d7ce, 0x35cf_8465, 0xc742_54b6, 0x0044_3214],
            -0.244_791_67,
            5.875,
        ),
        (
            6,
            &[0x77e7_bf7f, 0xbb6f_c73d, 0x8639_67a6, 0x1665_b75f, 0xa30e_4125, 0x0021_0620],
            -0.122_395_836,
            5.875,
        ),
        (
            8,
            &[
                0xe6ee_f6ff,
                0xc5cd_d6de,
                0xa4ac_b5bd,
                0x838c_949c,
                0x636b_737b,
                0x424a_525a,
                0x2129_3139,
                0x0008_1019,
            ],
            -0.030_440_414,
            5.875,
        ),
    ];

    fn of(words: &[u32], bits: u32, scale: f32, bias: f32) -> Affine {
        let q: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let one = |x: f32| RawTensor {
            dtype: DType::F32,
            shape: vec![1, 1],
            bytes: x.to_le_bytes().to_vec().into(),
        };
        Affine::new(bits, 32, [1, 32], q.into(), one(scale), one(bias)).unwrap()
    }

    #[test]
    fn the_packing_is_mlxs() {
        for (bits, words, scale, bias) in GOLDEN {
            let w = of(words, bits, scale, bias).to_f32();
            for (i, w) in w.iter().enumerate() {
                let x = (i as f32 - 7.5) / 4.0;
                // The scale is stretched so that 0 is exact, which may cut the other end by up to half a step.
                assert!((w - x).abs() <= scale.abs(), "{bits} bits, {i}: {w} for {x}");
            }
        }
        assert_eq!(
            of(GOLDEN[2].1, 4, 1.0, 0.0).to_f32()[..8],
            [15., 14., 14., 13., 13., 12., 12., 11.]
        );
    }

    #[test]
    fn an_order_says_which_input_a_column_has() {
        let (bits, words, scale, bias) = GOLDEN[2];
        let plain = of(words, bits, scale, bias);
        let order: Vec<u32> = (0..32).rev().collect();
        let mut turned = plain.clone().in_order(order.into()).unwrap().to_f32();
        turned.reverse();
        assert_eq!(turned, plain.to_f32());
        for wrong in [vec![0; 32], (0..31).collect(), (1..33).collect()] {
            assert!(plain.clone().in_order(wrong.into()).is_err());
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let (_, words, scale, bias) = GOLDEN[2];
        let a = of(words, 4, scale, bias);
        let (q, s) = (a.q().clone(), a.scales().clone());
        let half = RawTensor { dtype: DType::F16, shape: vec![1, 1], bytes: vec![0; 2].into() };
        for (bits, group, shape, biases) in [
            (7, 32, [1, 32], &s),
            (4, 24, [1, 24], &s),
            (4, 64, [1, 32], &s),
            (4, 32, [2, 32], &s),
            (4, 32, [usize::MAX, 32], &s),
            (8, 32, [1, 32], &s),
            (4, 32, [1, 32], &half),
        ] {
            let made = Affine::new(bits, group, shape, q.clone(), s.clone(), biases.clone());
            assert!(made.is_err(), "{bits} bits, groups of {group}, {shape:?}");
        }
    }
}
