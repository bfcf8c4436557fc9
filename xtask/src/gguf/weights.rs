//! The bytes of tensors, one tensor at a time.

use super::{
    checkpoint::{Checkpoint, Dtype},
    mixture,
    names::{Change, Source, Target},
    quantise::{decode, encode},
};
use crate::Result;
use indicatif::ProgressBar;
use inference_text::gguf::{GgmlType, Writer};
use std::io::{self, Write};

/// Bytes that are converted before they are written.
const CHUNK: usize = 1 << 20;

/// Adds the targets to `writer` and writes the file to `out`.
pub(super) fn write(
    writer: &mut Writer,
    checkpoint: &Checkpoint,
    targets: &[Target],
    ty: GgmlType,
    out: &mut impl Write,
    bar: &ProgressBar,
) -> Result {
    let types: Vec<_> = targets
        .iter()
        .map(|target| stored_as(target, mixture::ty(&target.name, ty, targets)))
        .collect();
    let mut total = 0;
    for (target, ty) in targets.iter().zip(&types) {
        let dims: Vec<_> = target.shape.iter().rev().map(|len| *len as u64).collect();
        total += ty.bytes(&dims).map_err(|e| format!("tensor `{}` {e}", target.name))?;
        writer.tensor(&target.name, &dims, *ty);
    }
    bar.set_length(total);
    let data = |index: usize, out: &mut dyn Write| {
        let (target, ty) = (&targets[index], types[index]);
        bar.set_message(target.name.clone());
        let mut rows = Rows { ty, out, bar };
        rows.write(target, checkpoint).map_err(|e| match e {
            Failure::Io(e) => e,
            Failure::Text(e) => io::Error::other(format!("tensor `{}`: {e}", target.name)),
        })
    };
    writer.write(out, data).map_err(|e| e.to_string())
}

/// Norms, biases and tables are always f32, and so are matrices that 16 bits would round because of a factor; rows that
/// can't be cut into blocks of 256 have those of 32, or are f16.
fn stored_as(target: &Target, ty: GgmlType) -> GgmlType {
    let Source::Stored { change, .. } = &target.source else { return GgmlType::F32 };
    let width = target.shape.last().copied().unwrap_or(1) as u64;
    let is_exact = change.factor.log2().fract() == 0.0;
    match ty {
        _ if target.shape.len() == 1 => GgmlType::F32,
        GgmlType::BF16 | GgmlType::F16 if !is_exact => GgmlType::F32,
        ty if width.is_multiple_of(ty.block_len()) => ty,
        _ if width.is_multiple_of(GgmlType::Q8_0.block_len()) => GgmlType::Q8_0,
        _ => GgmlType::F16,
    }
}

enum Failure {
    /// Of the file that is written.
    Io(io::Error),
    Text(String),
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// Writes rows as one type.
struct Rows<'a> {
    ty: GgmlType,
    out: &'a mut dyn Write,
    bar: &'a ProgressBar,
}

impl Rows<'_> {
    fn write(
        &mut self,
        target: &Target,
        checkpoint: &Checkpoint,
    ) -> std::result::Result<(), Failure> {
        let (name, change) = match &target.source {
            Source::Stored { name, change } => (name, *change),
            Source::Made(numbers) => {
                let mut bytes = Vec::new();
                encode(self.ty, numbers, &mut bytes)?;
                return self.put(&bytes);
            }
        };
        let (_, stored) =
            checkpoint.entry(name).expect("the targets were made from the checkpoint");
        let all = stored.read()?;
        // A vector is one row, but what is interleaved in it are its numbers.
        let width = if target.shape.len() == 1 { 1 } else { stored.width() };
        let len = width * stored.dtype.bytes();
        let same = is_same(stored.dtype, self.ty) && change.add == 0.0 && change.factor == 1.0;
        let (mut numbers, mut bytes) = (Vec::new(), Vec::new());
        for row in 0..all.len() / len {
            let row = &all[change.row(row) * len..][..len];
            if same {
                bytes.extend_from_slice(row);
            } else {
                numbers.clear();
                decode(stored.dtype, row, &mut numbers);
                apply(change, &mut numbers);
                encode(self.ty, &numbers, &mut bytes)?;
            }
            if bytes.len() >= CHUNK {
                self.put(&bytes)?;
                bytes.clear();
            }
        }
        self.put(&bytes)
    }

    fn put(&mut self, bytes: &[u8]) -> std::result::Result<(), Failure> {
        self.bar.inc(bytes.len() as u64);
        self.out.write_all(bytes).map_err(Failure::Io)
    }
}

fn apply(change: Change, numbers: &mut [f32]) {
    if change.add != 0.0 || change.factor != 1.0 {
        numbers.iter_mut().for_each(|x| *x = (*x + change.add) * change.factor);
    }
}

/// Whether both store a number in the same bytes.
fn is_same(dtype: Dtype, ty: GgmlType) -> bool {
    matches!(
        (dtype, ty),
        (Dtype::Bf16, GgmlType::BF16) | (Dtype::F16, GgmlType::F16) | (Dtype::F32, GgmlType::F32)
    )
}
