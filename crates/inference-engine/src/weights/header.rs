//! The header of a safetensors file, distrusted.
//!
//! The `safetensors` crate has a parser of its own. It merges tensors of one name in silence, refuses the whole file for
//! one type that it does not know, and often does not name the tensor; so only its table of types is used here.

use bytes::Bytes;
use inference_core::{Error, Result};
use safetensors::Dtype;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use std::{collections::HashSet, fmt, path::Path};

/// Bytes before the header: its length, a little-endian `u64`.
const PREFIX: usize = 8;

/// Most bytes of a header, as the format says.
const MAX_HEADER: u64 = 100_000_000;

/// How a file begins that a clone without Git LFS has in place of a large one
/// (<https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md#the-pointer>).
const GIT_LFS: &[u8] = b"version https://git-lfs";

/// A tensor as a header describes it, checked: `bytes` is as long as `shape` and `dtype` ask for, if `dtype` is known.
#[derive(Debug)]
pub(super) struct Tensor {
    pub(super) name: String,
    /// Such as `BF16`.
    pub(super) dtype: String,
    pub(super) shape: Vec<usize>,
    pub(super) bytes: Bytes,
}

impl Tensor {
    /// How many numbers it has.
    pub(super) fn numbers(&self) -> u64 {
        self.shape.iter().map(|&n| n as u64).product()
    }
}

/// The tensors of `file`, whose content is `content`, in the order of their bytes.
///
/// # Errors
/// [`Error::InvalidFile`], with the tensor where it is about one.
pub(super) fn tensors(file: &Path, content: &Bytes) -> Result<Vec<Tensor>> {
    parse(content).map_err(|reason| Error::file(file, reason))
}

fn parse(content: &Bytes) -> Result<Vec<Tensor>, String> {
    if content.starts_with(GIT_LFS) {
        return Err("only a pointer to the file: fetch it with `git lfs pull`".to_owned());
    }
    let prefix =
        content.first_chunk::<PREFIX>().ok_or("shorter than the 8 bytes before its header")?;
    let length = u64::from_le_bytes(*prefix);
    let rest = content.len() - PREFIX;
    if length > MAX_HEADER {
        return Err(format!("its header claims {length} bytes; at most {MAX_HEADER} are allowed"));
    }
    let length = length as usize;
    if length > rest {
        return Err(format!("its header claims {length} bytes, but only {rest} follow"));
    }
    let data = content.slice(PREFIX + length..);
    let mut json = serde_json::Deserializer::from_slice(&content[PREFIX..PREFIX + length]);
    let described = Header.deserialize(&mut json).and_then(|d| json.end().map(|()| d));
    let mut described = described.map_err(|e| format!("its header is invalid: {e}"))?;

    described.sort_by_key(|(_, t)| t.data_offsets);
    let mut names = HashSet::new();
    let mut end = 0;
    for (name, tensor) in &described {
        if !names.insert(name.as_str()) {
            return Err(format!("there are two tensors `{name}`"));
        }
        tensor.check(end, data.len()).map_err(|reason| format!("tensor `{name}` {reason}"))?;
        end = tensor.data_offsets.1;
    }
    if end != data.len() {
        return Err(format!("{} bytes after the last tensor", data.len() - end));
    }
    let tensor = |(name, Described { dtype, shape, data_offsets: (from, to) })| Tensor {
        name,
        dtype,
        shape,
        bytes: data.slice(from..to),
    };
    Ok(described.into_iter().map(tensor).collect())
}

/// What a header says of a tensor.
#[derive(Deserialize)]
struct Described {
    dtype: String,
    shape: Vec<usize>,
    /// From the end of the header; the second is one past the end.
    data_offsets: (usize, usize),
}

impl Described {
    /// `start` is where the tensor before ends, `len` where the file does.
    fn check(&self, start: usize, len: usize) -> Result<(), String> {
        let (from, to) = self.data_offsets;
        if to < from {
            return Err(format!("ends at byte {to}, before its begin at {from}"));
        }
        if from < start {
            return Err(format!("begins at byte {from}, within another that ends at {start}"));
        }
        if from > start {
            return Err(format!("begins at byte {from}, which leaves a hole from {start} on"));
        }
        if to > len {
            return Err(format!("ends at byte {to}, but the data at {len}: the file is cut off"));
        }
        // In bits: some types have less than a byte. Known or not, the number of numbers must be one.
        let width = bits(&self.dtype);
        let mut sizes = self.shape.iter().copied().chain([width.unwrap_or(1)]);
        let Some(all) = sizes.try_fold(1usize, usize::checked_mul) else {
            return Err(format!("has shape {:?}, which overflows", Short(&self.shape)));
        };
        if width.is_some() && (all % 8 != 0 || all / 8 != to - from) {
            return Err(format!(
                "has shape {:?} of {}, but {} bytes",
                Short(&self.shape),
                self.dtype,
                to - from
            ));
        }
        Ok(())
    }
}

/// Bits of a number of this type, if it is a known one.
pub(super) fn bits(dtype: &str) -> Option<usize> {
    let known: Result<_, serde::de::value::Error> = Dtype::deserialize(dtype.into_deserializer());
    known.ok().map(|dtype| dtype.bitsize())
}

/// The first few sizes of a shape, which may have any number.
struct Short<'a>(&'a [usize]);

impl fmt::Debug for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [a, b, c, d, _, ..] => write!(f, "[{a}, {b}, {c}, {d}, …]"),
            few => write!(f, "{few:?}"),
        }
    }
}

/// Reads a header into a list, which keeps what a map would merge.
struct Header;

impl<'de> DeserializeSeed<'de> for Header {
    type Value = Vec<(String, Described)>;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Header {
    type Value = Vec<(String, Described)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut all = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            match map.next_value() {
                Ok(described) => all.push((name, described)),
                Err(e) => return Err(M::Error::custom(format_args!("tensor `{name}`: {e}"))),
            }
        }
        Ok(all)
    }
}
