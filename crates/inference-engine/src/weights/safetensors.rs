//! A folder of safetensors files (<https://github.com/huggingface/safetensors#format>).

use super::{DType, RawTensor, Weights, header, mapped::Mapped};
use bytes::Bytes;
use inference_core::{Error, Result};
use inference_text::files;
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    fmt, fs,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

/// Most bytes of a shard index that are read.
const MAX_INDEX: u64 = 100 << 20;

/// The tensors of a folder, mapped into memory: nothing is read before it is asked for.
#[derive(Debug)]
pub struct SafeTensors {
    dir: PathBuf,
    tensors: HashMap<String, Stored>,
    bytes: u64,
    parameters: u64,
}

/// A tensor and the file it is in.
#[derive(Debug)]
struct Stored {
    file: Arc<Path>,
    mapped: Mapped,
    tensor: header::Tensor,
}

impl SafeTensors {
    /// Maps `model.safetensors` of the folder `dir`; or else the files that `model.safetensors.index.json` lists; or
    /// else every `*.safetensors`. Reads and checks all headers, but no tensor.
    ///
    /// # Errors
    /// [`Error::NotAModel`] if there is none of these; [`Error::Io`] if one can't be read; [`Error::InvalidFile`] for a
    /// damaged header or index, a file that is missing or outside of the folder, a tensor that is in two files, or not
    /// where the index says.
    pub fn open(dir: &Path) -> Result<Self> {
        let single = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        if single.exists() {
            return Self::read(dir, [single]);
        }
        let Some(text) = files::read(&index, MAX_INDEX)? else {
            return Self::read(dir, all_in(dir)?);
        };
        let listed = listed(&index, &text)?;
        let names: BTreeSet<_> = listed.values().collect();
        for name in &names {
            if !dir.join(name).exists() {
                return Err(Error::file(&index, format!("there is no file {name:?}")));
            }
        }
        let opened = Self::read(dir, names.into_iter().map(|n| dir.join(n)))?;
        for (tensor, name) in &listed {
            let path = dir.join(name);
            if opened.tensors.get(tensor).is_none_or(|stored| *stored.file != *path) {
                return Err(Error::file(&index, format!("tensor `{tensor}` is not in {name:?}")));
            }
        }
        Ok(opened)
    }

    fn read(dir: &Path, files: impl IntoIterator<Item = PathBuf>) -> Result<Self> {
        let mut tensors: HashMap<String, Stored> = HashMap::new();
        let (mut bytes, mut parameters) = (0u64, 0u64);
        for file in files {
            let file: Arc<Path> = file.into();
            let mapped = Mapped::open(&file)?;
            for tensor in header::tensors(&file, mapped.bytes())? {
                bytes += tensor.bytes.len() as u64;
                parameters = parameters.saturating_add(tensor.numbers());
                match tensors.entry(tensor.name.clone()) {
                    Entry::Vacant(free) => {
                        let (file, mapped) = (Arc::clone(&file), mapped.clone());
                        free.insert(Stored { file, mapped, tensor });
                    }
                    Entry::Occupied(taken) => {
                        let other = taken.get().file.display();
                        let reason = format!("tensor `{}` is also in {other}", tensor.name);
                        return Err(Error::file(&*file, reason));
                    }
                }
            }
        }
        Ok(Self { dir: dir.to_owned(), tensors, bytes, parameters })
    }

    /// The names of all tensors, in no order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensor called `name`, of whatever type.
    pub(crate) fn part(&self, name: &str) -> Option<Part<'_>> {
        self.tensors.get(name).map(Part)
    }

    /// The tensor called `name`, of whatever type, that must be there.
    pub(crate) fn needed(&self, name: &str) -> Result<Part<'_>> {
        self.part(name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> Error {
        Error::MissingTensor { name: name.to_owned(), path: self.dir.clone() }
    }
}

/// A tensor as it is stored, for those who know what its bytes mean.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a>(&'a Stored);

impl<'a> Part<'a> {
    /// Such as `U32`.
    pub(crate) fn dtype(self) -> &'a str {
        &self.0.tensor.dtype
    }

    pub(crate) fn shape(self) -> &'a [usize] {
        &self.0.tensor.shape
    }

    /// `[rows, columns]`
    ///
    /// # Errors
    /// It is not a matrix.
    pub(super) fn matrix(self) -> Result<[usize; 2]> {
        <[usize; 2]>::try_from(self.shape()).map_err(|_| {
            let dimensions = self.shape().len();
            self.error(format!("has {dimensions} dimensions, but must be a matrix"))
        })
    }

    pub(crate) fn bytes(self) -> &'a Bytes {
        &self.0.tensor.bytes
    }

    pub(super) fn numbers(self) -> u64 {
        self.0.tensor.numbers()
    }

    /// Lets its memory go; who reads it again, reads the file again.
    pub(crate) fn release(self) {
        self.0.mapped.release(&self.0.tensor.bytes);
    }

    /// An error about it.
    pub(super) fn error(self, reason: impl fmt::Display) -> Error {
        let name = &self.0.tensor.name;
        Error::file(&*self.0.file, format!("tensor `{name}` {reason}"))
    }

    /// It, if it is of a type that we compute with.
    pub(super) fn floats(self) -> Option<RawTensor> {
        let dtype = match self.dtype() {
            "F32" => DType::F32,
            "F16" => DType::F16,
            "BF16" => DType::Bf16,
            _ => return None,
        };
        Some(RawTensor { dtype, shape: self.shape().to_vec(), bytes: self.bytes().clone() })
    }
}

impl Weights for SafeTensors {
    fn get(&self, name: &str) -> Result<RawTensor> {
        let part = self.needed(name)?;
        part.floats().ok_or_else(|| {
            let dtype = part.dtype();
            part.error(format!(
                "is stored as {dtype:.40}, which can't be computed with; F32, F16 and BF16 can"
            ))
        })
    }

    fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    fn release(&self, module: &str) {
        if let Some(part) = self.part(&format!("{module}.weight")) {
            part.release();
        }
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn parameters(&self) -> u64 {
        self.parameters
    }
}

/// Every `*.safetensors` in `dir`, sorted.
fn all_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let io = |e| Error::io(dir, e);
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "safetensors") {
            files.push(path);
        }
    }
    if files.is_empty() {
        let reason = "there is no *.safetensors file".to_owned();
        return Err(Error::NotAModel { path: dir.to_owned(), reason });
    }
    files.sort();
    Ok(files)
}

/// The `weight_map` of a shard index with this `text`: the file of each tensor, relative to the index.
fn listed(index: &Path, text: &[u8]) -> Result<HashMap<String, String>> {
    let wrong = |reason: String| Error::file(index, reason);
    let whole: Value = serde_json::from_slice(text).map_err(|e| wrong(format!("not JSON: {e}")))?;
    let map = whole.get("weight_map").and_then(Value::as_object);
    let map = map.filter(|m| !m.is_empty());
    let map =
        map.ok_or_else(|| wrong("`weight_map` must be an object that is not empty".to_owned()))?;
    let inside = |name: &str| {
        let mut parts = Path::new(name).components().peekable();
        parts.peek().is_some() && parts.all(|c| matches!(c, Component::Normal(_)))
    };
    let entry = |(tensor, file): (&String, &Value)| match file.as_str() {
        Some(file) if inside(file) => Ok((tensor.clone(), file.to_owned())),
        Some(file) => {
            Err(wrong(format!("tensor `{tensor}`: {file:?} is not a file of this folder")))
        }
        None => Err(wrong(format!("`weight_map.{tensor}` must be a file name"))),
    };
    map.iter().map(entry).collect()
}

#[cfg(test)]
mod tests;
