//! Numbers of tensors on candle's CPU device.

use candle_core::{CpuStorage, InplaceOp1, Layout, Result, Storage, StorageRef, Tensor, bail};
use half::slice::HalfFloatSliceExt;
use std::ops::Range;

/// The numbers of a tensor that has no gaps.
pub(crate) struct Operand<'a> {
    storage: StorageRef<'a>,
    range: Range<usize>,
}

/// Reads `x`. It must not share memory with what is written meanwhile.
pub(crate) fn operand(x: &Tensor) -> Result<Operand<'_>> {
    let (storage, layout) = x.storage_and_layout();
    Ok(Operand { range: range(layout)?, storage })
}

fn range(layout: &Layout) -> Result<Range<usize>> {
    match layout.contiguous_offsets() {
        Some((start, end)) => Ok(start..end),
        None => bail!("numbers with gaps between them: {layout:?}"),
    }
}

impl Operand<'_> {
    fn storage(&self) -> Result<&CpuStorage> {
        match &*self.storage {
            Storage::Cpu(storage) => Ok(storage),
            _ => bail!("a tensor that is not on the CPU"),
        }
    }

    /// All, as f32.
    pub(crate) fn floats(&self) -> Result<&[f32]> {
        Ok(&self.storage()?.as_slice()?[self.range.clone()])
    }

    /// All, as u32.
    pub(crate) fn words(&self) -> Result<&[u32]> {
        Ok(&self.storage()?.as_slice()?[self.range.clone()])
    }

    /// Those from `at` on, widened; as many as `out` has.
    pub(crate) fn widen(&self, at: usize, out: &mut [f32]) -> Result<()> {
        let range = self.range.start + at..self.range.start + at + out.len();
        match self.storage()? {
            CpuStorage::F32(all) => out.copy_from_slice(&all[range]),
            CpuStorage::F16(all) => all[range].convert_to_f32_slice(out),
            CpuStorage::BF16(all) => all[range].convert_to_f32_slice(out),
            other => bail!("{other:?} are no weights"),
        }
        Ok(())
    }
}

/// Memory of candle's that is written to, from a place on.
struct Write<F>(F);

impl<F: Fn(&mut CpuStorage, Range<usize>) -> Result<()>> InplaceOp1 for Write<F> {
    fn name(&self) -> &'static str {
        "write"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        (self.0)(storage, range(layout)?)
    }
}

/// Changes the numbers of `y` by `f`.
pub(crate) fn write(y: &Tensor, f: impl Fn(&mut [f32]) -> Result<()>) -> Result<()> {
    y.inplace_op1(&Write(|storage: &mut CpuStorage, range: Range<usize>| match storage {
        CpuStorage::F32(all) => f(&mut all[range]),
        other => bail!("{other:?} are no activations"),
    }))
}

/// Writes numbers to a cache: `f` is given what writes some of them from a place on.
pub(crate) fn narrow(
    cache: &Tensor,
    f: impl Fn(&mut dyn FnMut(usize, &[f32])) -> Result<()>,
) -> Result<()> {
    cache.inplace_op1(&Write(|storage: &mut CpuStorage, range: Range<usize>| {
        let start = range.start;
        match storage {
            CpuStorage::F32(all) => {
                f(&mut |at, from| all[start + at..][..from.len()].copy_from_slice(from))
            }
            CpuStorage::F16(all) => {
                f(&mut |at, from| all[start + at..][..from.len()].convert_from_f32_slice(from))
            }
            CpuStorage::BF16(all) => {
                f(&mut |at, from| all[start + at..][..from.len()].convert_from_f32_slice(from))
            }
            other => bail!("{other:?} are no cache"),
        }
    }))
}

/// Copies numbers of a cache: from where, to where, and how many.
pub(crate) fn copy_within(cache: &Tensor, pieces: &[(usize, usize, usize)]) -> Result<()> {
    cache.inplace_op1(&Write(|storage: &mut CpuStorage, range: Range<usize>| {
        for &(from, to, len) in pieces {
            let (from, to) = (range.start + from, range.start + to);
            match storage {
                CpuStorage::F32(all) => all.copy_within(from..from + len, to),
                CpuStorage::F16(all) => all.copy_within(from..from + len, to),
                CpuStorage::BF16(all) => all.copy_within(from..from + len, to),
                other => bail!("{other:?} are no cache"),
            }
        }
        Ok(())
    }))
}
