//! MLX's quantised matrices: `weight`, `scales` and, in the mode `affine`, `biases`
//! (<https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.quantize.html>).

use super::{
    Affine, Matrix, RawTensor, SafeTensors,
    folder::{Form, Packed, Scheme},
    microscaling,
    safetensors::Part,
};
use crate::config::{Mlx, MlxForm, MlxMode};
use inference_core::Result;

impl Scheme for Mlx {
    fn holds(&self, tensors: &SafeTensors, module: &str) -> bool {
        tensors.part(&format!("{module}.scales")).is_some()
            || tensors.part(&format!("{module}.weight")).is_some_and(|w| w.dtype() == "U32")
    }

    fn find<'a>(&self, tensors: &'a SafeTensors, module: &str) -> Result<Box<dyn Packed + 'a>> {
        let weight = tensors.needed(&format!("{module}.weight"))?;
        let scales = tensors.needed(&format!("{module}.scales"))?;
        let Some(form) = *self.modules.get(module).unwrap_or(&Some(self.default)) else {
            let reason = "is there, but the configuration says that its module is not quantised";
            return Err(scales.error(reason));
        };
        let shape = shape(form, weight, scales)?;
        if form.mode != MlxMode::Affine {
            let global = tensors.part(&format!("{module}.global_scale"));
            return Ok(Box::new(microscaling::Blocks::new(form, shape, weight, scales, global)?));
        }
        let biases = tensors.needed(&format!("{module}.biases"))?;
        let [scales, biases] = [floats(form, scales)?, floats(form, biases)?];
        Ok(Box::new(Stored { form, shape, weight, scales, biases }))
    }
}

/// Such as `mlx affine of 4 bits in groups of 64`, for messages.
pub(super) fn label(form: MlxForm) -> String {
    format!("mlx {} of {} bits in groups of {}", form.mode.name(), form.bits, form.group)
}

/// `[out, in]` of a matrix, of which `scales` says how many groups, and `weight` how many bits.
fn shape(form: MlxForm, weight: Part<'_>, scales: Part<'_>) -> Result<[usize; 2]> {
    let label = label(form);
    if weight.dtype() != "U32" {
        let found = weight.dtype();
        return Err(weight.error(format!("is stored as {found:.40}, but {label} is U32")));
    }
    let ([rows, words], [scale_rows, groups]) = (weight.matrix()?, scales.matrix()?);
    if rows != scale_rows {
        let reason = format!("has {scale_rows} rows, but its weight has {rows}");
        return Err(scales.error(reason));
    }
    let (cols, bits) = (groups.checked_mul(form.group), words.checked_mul(32));
    let wanted = cols.and_then(|cols| cols.checked_mul(form.bits as usize));
    match (cols, bits) {
        (Some(cols), Some(bits)) if cols > 0 && wanted == Some(bits) => Ok([rows, cols]),
        _ => {
            let found = cols.zip(bits).filter(|(c, b)| *c > 0 && b % c == 0).map(|(c, b)| b / c);
            let found = found.map(|b| format!(", which would be {b} bits")).unwrap_or_default();
            Err(weight.error(format!(
                "has {words} words a row for {groups} scales{found}; the configuration says {label}"
            )))
        }
    }
}

/// Scales or biases.
fn floats(form: MlxForm, part: Part<'_>) -> Result<RawTensor> {
    part.floats().ok_or_else(|| {
        let (found, label) = (part.dtype(), label(form));
        part.error(format!("is stored as {found:.40}, but {label} has F32, F16 or BF16"))
    })
}

/// A matrix of the mode `affine`, which is the form that devices know.
struct Stored<'a> {
    form: MlxForm,
    shape: [usize; 2],
    weight: Part<'a>,
    scales: RawTensor,
    biases: RawTensor,
}

impl Packed for Stored<'_> {
    fn form(&self) -> Form {
        let all = [self.weight.bytes(), &self.scales.bytes, &self.biases.bytes];
        Form {
            shape: self.shape,
            bits: self.form.bits,
            group: Some(self.form.group),
            bytes: all.iter().map(|b| b.len() as u64).sum(),
        }
    }

    fn matrix(&self) -> Result<Matrix> {
        let Self { form, shape, weight, scales, biases } = self;
        let q = weight.bytes().clone();
        Affine::new(form.bits, form.group, *shape, q, scales.clone(), biases.clone())
            .map(Matrix::Affine)
            .map_err(|reason| weight.error(format!("is no {}: {reason}", label(*form))))
    }
}
