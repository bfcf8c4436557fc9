//! The tensors of a checkpoint's safetensors files (<https://github.com/huggingface/safetensors#format>).

use crate::Result;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

/// Most bytes of a header, as the format allows.
const MAX_HEADER: u64 = 100 << 20;

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(super) enum Dtype {
    /// The upper half of a 32-bit number.
    Bf16,
    /// 16-bit IEEE.
    F16,
    /// 32-bit IEEE.
    F32,
}

impl Dtype {
    /// Bytes of a number.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }
}

/// Where a tensor is.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    /// How its numbers are stored.
    pub(super) dtype: Dtype,
    /// Outermost first: `[out, in]`, or `[width]`.
    pub(super) shape: Vec<usize>,
    /// The file.
    file: PathBuf,
    /// Its first byte, from the start of the file.
    start: u64,
}

/// An entry of a header.
#[derive(Deserialize)]
struct Entry {
    dtype: String,
    shape: Vec<usize>,
    data_offsets: (u64, u64),
}

/// Every tensor of a folder, by name.
#[derive(Debug)]
pub(super) struct Checkpoint {
    tensors: BTreeMap<String, Stored>,
}

impl Checkpoint {
    /// Reads the headers of the files that the index names, or of `model.safetensors`. `wanted` says of which tensors to
    /// take notice: the others may have any type.
    pub(super) fn open(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for path in files(folder)? {
            let at = |e: String| format!("{}: {e}", path.display());
            for (name, stored) in header(&path, &wanted).map_err(at)? {
                if tensors.insert(name.clone(), stored).is_some() {
                    return Err(at(format!("tensor `{name}` is in another file as well")));
                }
            }
        }
        Ok(Self { tensors })
    }

    /// Every tensor with its name, in the order of the names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.tensors.iter().map(|(name, stored)| (name.as_str(), stored))
    }

    /// The tensor of that name, with its name.
    pub(super) fn entry(&self, name: &str) -> Option<(&str, &Stored)> {
        self.tensors.get_key_value(name).map(|(name, stored)| (name.as_str(), stored))
    }
}

impl Stored {
    /// Numbers of a row, the innermost length.
    pub(super) fn width(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// All its bytes.
    pub(super) fn read(&self) -> Result<Vec<u8>> {
        let read = || -> std::io::Result<Vec<u8>> {
            let mut file = File::open(&self.file)?;
            file.seek(SeekFrom::Start(self.start))?;
            let mut bytes = vec![0; self.len()];
            file.read_exact(&mut bytes)?;
            Ok(bytes)
        };
        read().map_err(|e| format!("{}: {e}", self.file.display()))
    }

    fn len(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bytes()
    }
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let index = folder.join("model.safetensors.index.json");
    let Ok(text) = fs::read(&index) else { return Ok(vec![folder.join("model.safetensors")]) };
    let at = |e: String| format!("{}: {e}", index.display());
    let json: Value = serde_json::from_slice(&text).map_err(|e| at(e.to_string()))?;
    let map = json["weight_map"].as_object().ok_or_else(|| at("no `weight_map`".to_owned()))?;
    let mut names: Vec<_> = map.values().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names.dedup();
    match names.iter().find(|name| Path::new(name).components().count() != 1) {
        Some(name) => Err(at(format!("shard `{name}` is not in the folder"))),
        None => Ok(names.into_iter().map(|name| folder.join(name)).collect()),
    }
}

fn header(path: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<(String, Stored)>> {
    let text = |e: std::io::Error| e.to_string();
    let mut file = File::open(path).map_err(text)?;
    let size = file.metadata().map_err(text)?.len();
    let mut len = [0; 8];
    file.read_exact(&mut len).map_err(text)?;
    let len = u64::from_le_bytes(len);
    if len > MAX_HEADER || len + 8 > size {
        return Err(format!("a header of {len} bytes in a file of {size}"));
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact(&mut bytes).map_err(text)?;
    let entries: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|e| e.to_string())?;
    entries
        .into_iter()
        .filter(|(name, _)| name != "__metadata__" && wanted(name))
        .map(|(name, entry)| {
            let stored =
                stored(path, entry, len + 8, size).map_err(|e| format!("`{name}`: {e}"))?;
            Ok((name, stored))
        })
        .collect()
}

fn stored(path: &Path, entry: Value, data: u64, size: u64) -> Result<Stored> {
    let Entry { dtype, shape, data_offsets: (start, end) } =
        serde_json::from_value(entry).map_err(|e| e.to_string())?;
    let dtype = serde_json::from_value(Value::String(dtype.clone()))
        .map_err(|_| format!("stored as {dtype}; only BF16, F16 and F32 can be converted"))?;
    let count = shape.iter().try_fold(1_usize, |n, len| n.checked_mul(*len));
    let bytes = count.and_then(|n| n.checked_mul(Dtype::bytes(dtype)));
    let fits = start <= end && end <= size - data;
    if !fits || bytes.is_none_or(|bytes| bytes as u64 != end - start) {
        return Err(format!("shape {shape:?} does not fit its place, {start}..{end}"));
    }
    Ok(Stored { dtype, shape, file: path.to_owned(), start: data + start })
}
