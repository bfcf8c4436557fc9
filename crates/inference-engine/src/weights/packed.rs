//! What GPTQ and AWQ share: whole numbers with a zero point and a scale for each group, `w = (q − zero) · scale`, stored
//! with inputs before outputs in 32-bit words.

use super::{Affine, DType, RawTensor, convert, safetensors::Part};
use crate::config::PackedForm;
use half::{bf16, f16};
use inference_core::Result;
use std::sync::Arc;

/// Outputs that are converted side by side.
pub(super) const LANES: usize = 16;

/// The shape and the parts of a matrix whose groups are known.
pub(super) struct Groups {
    pub(super) bits: u32,
    /// Columns that share a scale.
    pub(super) group: usize,
    /// `[out, in]`
    pub(super) shape: [usize; 2],
    /// `[groups, out]`
    pub(super) scales: RawTensor,
}

impl Groups {
    /// Of a matrix `[out, in] = shape`, whose configuration says `form`, if it says anything.
    ///
    /// # Errors
    /// Scales of another type or shape, groups of another size, or of none that can be.
    pub(super) fn new(
        label: &str,
        form: Option<PackedForm>,
        bits: u32,
        shape: [usize; 2],
        scales: Part<'_>,
    ) -> Result<Self> {
        let [rows, cols] = shape;
        let raw = scales.floats().ok_or_else(|| {
            let found = scales.dtype();
            scales.error(format!("is stored as {found:.40}, but {label} has F16, BF16 or F32"))
        })?;
        let [groups, outputs] = scales.matrix()?;
        if outputs != rows {
            let reason = format!("has {outputs} columns, but {label} of {rows} outputs has {rows}");
            return Err(scales.error(reason));
        }
        if rows == 0 || cols == 0 || groups == 0 || !cols.is_multiple_of(groups) {
            let reason = format!("has {groups} groups, into which {cols} inputs can't be divided");
            return Err(scales.error(reason));
        }
        let group = cols / groups;
        let wanted = form.map(|form| form.group.unwrap_or(cols));
        if wanted.is_some_and(|wanted| wanted != group) {
            let reason = format!("has groups of {group}, but the configuration says {label}");
            return Err(scales.error(reason));
        }
        if narrower(group).is_none() {
            let reason = format!("has groups of {group}; multiples of 16 can be read");
            return Err(scales.error(reason));
        }
        Ok(Self { bits, group, shape, scales: raw })
    }

    /// Groups of all rows.
    pub(super) fn count(&self) -> usize {
        self.shape[1] / self.group
    }

    /// Bytes of the matrix as [`affine`](Self::affine) most likely makes it; `symmetric`: zeros are in the middle.
    pub(super) fn bytes(&self, symmetric: bool) -> u64 {
        let [rows, cols] = self.shape;
        let group = narrower(self.group).unwrap_or(self.group);
        let dtype = if symmetric { self.scales.dtype } else { DType::F32 };
        let scales = 2 * cols / group * dtype.size();
        rows as u64 * (cols * self.bits as usize / 8 + scales) as u64
    }

    /// The matrix of `q`, packed as [`Affine`] has it, and `zeros` `[groups, out]`.
    ///
    /// The biases are `−zero · scale`. They get the type of the scales if it holds them all exactly (so it is where
    /// zero is a power of two, as in symmetric quantisation); else scales and biases become f32.
    ///
    /// # Errors
    /// What [`Affine`] says.
    pub(super) fn affine(
        &self,
        q: Vec<u8>,
        zeros: &[u8],
        order: Option<Arc<[u32]>>,
    ) -> Result<Affine, String> {
        let ([rows, _], groups) = (self.shape, self.count());
        let stored = self.scales.to_f32();
        let narrow = narrower(self.group).unwrap_or(self.group);
        let times = self.group / narrow;
        let (mut scales, mut biases) = (Vec::new(), Vec::new());
        for row in 0..rows {
            for at in (0..groups).map(|group| group * rows + row) {
                let bias = -f32::from(zeros[at]) * stored[at];
                scales.extend(std::iter::repeat_n(stored[at], times));
                biases.extend(std::iter::repeat_n(bias, times));
            }
        }
        let dtype = self.scales.dtype;
        let exact = biases.iter().all(|b| rounded(dtype, *b) == *b);
        let dtype = if exact { dtype } else { DType::F32 };
        let shape = [rows, groups * times];
        let [scales, biases] = [scales, biases].map(|x| store(dtype, shape, &x));
        let affine = Affine::new(self.bits, narrow, self.shape, q.into(), scales, biases)?;
        match order {
            Some(order) => affine.in_order(order),
            None => Ok(affine),
        }
    }
}

/// The largest size of a group that [`Affine`] has and that divides `group`.
fn narrower(group: usize) -> Option<usize> {
    Affine::GROUPS.into_iter().rev().find(|narrow| group.is_multiple_of(*narrow))
}

fn rounded(dtype: DType, x: f32) -> f32 {
    match dtype {
        DType::F32 => x,
        DType::F16 => f16::from_f32(x).to_f32(),
        DType::Bf16 => bf16::from_f32(x).to_f32(),
    }
}

fn store(dtype: DType, shape: [usize; 2], numbers: &[f32]) -> RawTensor {
    let bytes: Vec<u8> = match dtype {
        DType::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
        DType::F16 => numbers.iter().flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
        DType::Bf16 => numbers.iter().flat_map(|x| bf16::from_f32(*x).to_le_bytes()).collect(),
    };
    RawTensor { dtype, shape: shape.to_vec(), bytes: bytes.into() }
}

/// 32-bit words `[rows, cols]` of a file, which need not be aligned.
#[derive(Clone, Copy)]
pub(super) struct Words<'a> {
    bytes: &'a [u8],
    cols: usize,
}

impl<'a> Words<'a> {
    /// Of a part, which must be such a matrix.
    ///
    /// # Errors
    /// It isn't.
    pub(super) fn new(label: &str, part: Part<'a>) -> Result<(Self, [usize; 2])> {
        if !matches!(part.dtype(), "I32" | "U32") {
            let found = part.dtype();
            return Err(part.error(format!("is stored as {found:.40}, but {label} has I32")));
        }
        let shape = part.matrix()?;
        Ok((Self { bytes: part.bytes(), cols: shape[1] }, shape))
    }

    pub(super) fn get(self, row: usize, col: usize) -> u32 {
        let at = (row * self.cols + col) * 4;
        let bytes = &self.bytes[at..at + 4];
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    /// Neighbours of a row, from column `col` on.
    fn load<const N: usize>(self, row: usize, col: usize, out: &mut [u32; N]) {
        let at = (row * self.cols + col) * 4;
        for (bytes, out) in self.bytes[at..at + N * 4].chunks_exact(4).zip(out) {
            *out = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }

    /// [`LANES`] neighbours, of which those beyond the last column are 0.
    pub(super) fn lanes(self, row: usize, col: usize) -> [u32; LANES] {
        let mut out = [0; LANES];
        if col + LANES <= self.cols {
            self.load(row, col, &mut out);
        } else {
            (col..self.cols).zip(&mut out).for_each(|(col, out)| *out = self.get(row, col));
        }
        out
    }
}

/// Packs a matrix on all cores: `tile(col, word, out)` gives the words `word..` of outputs `col..`, which are written
/// to as many rows and words as there are. `across`: outputs of a tile; `deep`: words of it.
pub(super) fn tiles<const ACROSS: usize, const DEEP: usize>(
    [rows, words]: [usize; 2],
    tile: impl Fn(usize, usize, &mut [[u32; DEEP]; ACROSS]) + Sync,
) -> Vec<u8> {
    let width = words * 4;
    let mut q = vec![0; rows * width];
    convert::rows(&mut q, width, ACROSS, |range, out| {
        let mut buffer = [[0; DEEP]; ACROSS];
        for (i, out) in out.chunks_mut(ACROSS * width).enumerate() {
            for word in (0..words).step_by(DEEP) {
                tile(range.start + i * ACROSS, word, &mut buffer);
                let deep = DEEP.min(words - word);
                for (from, row) in buffer.iter().zip(out.chunks_exact_mut(width)) {
                    let to = row[word * 4..][..deep * 4].chunks_exact_mut(4);
                    from.iter().zip(to).for_each(|(w, to)| to.copy_from_slice(&w.to_le_bytes()));
                }
            }
        }
    });
    q
}
