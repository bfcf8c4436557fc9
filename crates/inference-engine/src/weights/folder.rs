//! A folder of safetensors files whose matrices may be quantised, in whichever way its configuration says.

use super::{Matrix, RawTensor, SafeTensors, Weights, safetensors::Part};
use crate::config::{Config, Quantised};
use inference_core::{Quantisation, Result};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

/// How the names of a module's tensors end, all schemes together.
const ENDS: [&str; 9] = [
    "weight",
    "scales",
    "biases",
    "global_scale",
    "qweight",
    "qzeros",
    "g_idx",
    "weight_scale_inv",
    "weight_scale",
];

/// A way in which matrices are quantised. What the configuration says is checked against what the tensors are.
pub(super) trait Scheme: fmt::Debug {
    /// Whether `module` is stored in this way, and not plainly.
    fn holds(&self, tensors: &SafeTensors, module: &str) -> bool;

    /// The parts of `module`, which fit together. Nothing is read yet.
    ///
    /// # Errors
    /// A part that is missing or of another shape or type, by its name and the scheme's.
    fn find<'a>(&self, tensors: &'a SafeTensors, module: &str) -> Result<Box<dyn Packed + 'a>>;
}

/// A quantised matrix as it lies in the files.
pub(super) trait Packed {
    /// What it is.
    fn form(&self) -> Form;

    /// It, in a form that devices know: converted, if it must be.
    ///
    /// # Errors
    /// What only its numbers can tell.
    fn matrix(&self) -> Result<Matrix>;
}

/// What a quantised matrix is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Form {
    /// Outputs and inputs.
    pub(super) shape: [usize; 2],
    /// Bits of a number in the file.
    pub(super) bits: u32,
    /// Columns that share a scale; `None`: there are no such groups.
    pub(super) group: Option<usize>,
    /// Bytes of it once it is read.
    pub(super) bytes: u64,
}

impl Form {
    fn numbers(&self) -> u64 {
        (self.shape[0] as u64).saturating_mul(self.shape[1] as u64)
    }
}

/// A folder of safetensors files, read as its configuration says.
#[derive(Debug)]
pub struct Folder {
    tensors: SafeTensors,
    scheme: Option<Box<dyn Scheme>>,
    bytes: u64,
    parameters: u64,
    most: Option<Quantisation>,
}

impl Folder {
    /// Maps the files of the folder `dir`, whose configuration is `config`.
    ///
    /// # Errors
    /// As [`SafeTensors::open`] and [`Config::quantisation`].
    pub fn open(dir: &Path, config: &Config) -> Result<Self> {
        let tensors = SafeTensors::open(dir)?;
        let scheme = config.quantisation()?.map(scheme);
        let (mut bytes, mut parameters) = (tensors.bytes(), tensors.parameters());
        let mut kinds = BTreeMap::<_, u64>::new();
        for module in modules(&tensors) {
            let Some(scheme) = scheme.as_ref().filter(|s| s.holds(&tensors, module)) else {
                continue;
            };
            // What does not fit is an error for those who ask for it.
            let Ok(packed) = scheme.find(&tensors, module) else { continue };
            let form = packed.form();
            for part in parts(&tensors, module) {
                bytes = bytes.saturating_sub(part.bytes().len() as u64);
                parameters = parameters.saturating_sub(part.numbers());
            }
            bytes = bytes.saturating_add(form.bytes);
            parameters = parameters.saturating_add(form.numbers());
            let count = kinds.entry((form.bits, form.group)).or_default();
            *count = count.saturating_add(form.numbers());
        }
        let most = kinds.into_iter().max_by_key(|(_, numbers)| *numbers);
        let most =
            most.map(|((bits, group_size), _)| Quantisation { bits: bits as u8, group_size });
        Ok(Self { tensors, scheme, bytes, parameters, most })
    }

    /// The scheme, if `module` is stored in it.
    fn scheme_of(&self, module: &str) -> Option<&dyn Scheme> {
        self.scheme.as_deref().filter(|s| s.holds(&self.tensors, module))
    }
}

/// What reads matrices that are quantised so.
fn scheme(quantised: Quantised) -> Box<dyn Scheme> {
    match quantised {
        Quantised::Mlx(mlx) => Box::new(mlx),
        Quantised::Gptq(gptq) => Box::new(gptq),
        Quantised::Awq(awq) => Box::new(awq),
        Quantised::Fp8(fp8) => Box::new(fp8),
    }
}

/// The names of all modules, which is to say of tensors up to their last dot.
fn modules(tensors: &SafeTensors) -> BTreeSet<&str> {
    tensors.names().filter_map(|name| Some(name.rsplit_once('.')?.0)).collect()
}

/// The tensors that make up a module's matrix.
fn parts<'a>(tensors: &'a SafeTensors, module: &str) -> impl Iterator<Item = Part<'a>> {
    ENDS.iter().filter_map(move |end| tensors.part(&format!("{module}.{end}")))
}

impl Weights for Folder {
    fn get(&self, name: &str) -> Result<RawTensor> {
        self.tensors.get(name)
    }

    fn matrix(&self, module: &str) -> Result<Matrix> {
        match self.scheme_of(module) {
            Some(scheme) => scheme.find(&self.tensors, module)?.matrix(),
            None => self.tensors.matrix(module),
        }
    }

    fn has(&self, name: &str) -> bool {
        let module = || name.strip_suffix(".weight");
        self.tensors.has(name) || module().is_some_and(|m| self.scheme_of(m).is_some())
    }

    fn release(&self, module: &str) {
        parts(&self.tensors, module).for_each(Part::release);
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn parameters(&self) -> u64 {
        self.parameters
    }

    fn quantisation(&self) -> Option<Quantisation> {
        self.most
    }
}

#[cfg(test)]
mod tests;
