//! The header of one GGUF file, distrusted.
//!
//! Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#file-structure>. Versions 2 and 3 differ only in
//! that 3 may be big-endian, which no known file is and llama.cpp does not read on a little-endian machine.

use super::{GgmlType, Value, source::Source};
use std::{
    collections::{BTreeMap, HashSet},
    io::Read,
};

/// How a file begins.
pub(super) const MAGIC: [u8; 4] = *b"GGUF";

/// The key of the number of bytes to whose multiples tensors are aligned.
pub(super) const ALIGNMENT_KEY: &str = "general.alignment";

/// The alignment of a file that does not say.
pub(super) const DEFAULT_ALIGNMENT: u64 = 32;

/// How a file begins that a clone without Git LFS has in place of a large one
/// (<https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md#the-pointer>).
const GIT_LFS: [u8; 4] = *b"vers";

/// Most bytes of a key.
const MOST_KEY: u64 = 65_535;

/// Most bytes of a tensor's name.
const MOST_NAME: u64 = 64;

/// Fewest bytes of a key with its value: a length, a letter, a type, a byte.
const LEAST_PAIR: u64 = 8 + 1 + 4 + 1;

/// Fewest bytes of a tensor's description: a length, a letter, a dimension, a type, an offset.
const LEAST_TENSOR: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// A tensor as the header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name, such as `blk.0.attn_q.weight`.
    pub name: String,
    /// Its dimensions, the innermost first: a matrix of `out` rows of `in` numbers is `[in, out]`.
    pub dims: Vec<u64>,
    /// How its numbers are stored.
    pub ty: GgmlType,
    /// Which of [`Gguf::parts`](super::Gguf::parts) it is in.
    pub part: usize,
    /// Its first byte, counted from the beginning of that file.
    pub begin: u64,
    /// Its bytes.
    pub bytes: u64,
}

impl Tensor {
    /// How many numbers it has.
    pub fn numbers(&self) -> u64 {
        self.dims.iter().product()
    }
}

/// What stands before the tensors' bytes.
#[derive(Debug, Clone)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) values: BTreeMap<String, Value>,
    /// In the order of the file.
    pub(super) tensors: Vec<Tensor>,
}

impl Header {
    /// Reads the header of a file of `len` bytes, and no more. Its tensors are those of part `part`.
    pub(super) fn read(content: impl Read, len: u64, part: usize) -> Result<Self, String> {
        let mut source = Source::new(content, len);
        let version = version(&mut source)?;
        let (tensors, pairs) = (source.u64()?, source.u64()?);
        source.expect("metadata values", pairs, LEAST_PAIR)?;
        source.expect("tensors", tensors, LEAST_TENSOR)?;

        let mut values = BTreeMap::new();
        for index in 0..pairs {
            let (key, value) = pair(&mut source, index)?;
            if values.contains_key(&key) {
                return Err(format!("there are two values of `{key}`"));
            }
            values.insert(key, value);
        }
        let alignment = alignment(&values)?;

        let mut names = HashSet::new();
        let mut described = Vec::with_capacity(tensors.min(1024) as usize);
        for index in 0..tensors {
            let tensor = tensor(&mut source, index, part)?;
            if !names.insert(tensor.name.clone()) {
                return Err(format!("there are two tensors `{}`", tensor.name));
            }
            described.push(tensor);
        }
        let data = source.position().next_multiple_of(alignment);
        place(&mut described, data, alignment, source.len())?;
        Ok(Self { version, values, tensors: described })
    }
}

/// Magic number and version.
fn version(source: &mut Source<impl Read>) -> Result<u32, String> {
    match source.array()? {
        MAGIC => {}
        GIT_LFS => {
            return Err("only a pointer to the file: fetch it with `git lfs pull`".to_owned());
        }
        other => {
            return Err(format!(
                "not a GGUF file: it begins with `{}` instead of `GGUF`",
                other.escape_ascii()
            ));
        }
    }
    match source.u32()? {
        version @ (2 | 3) => Ok(version),
        1 => Err("GGUF version 1 is not read any more: convert the model anew".to_owned()),
        version if version.swap_bytes() <= 0xffff => {
            Err("big-endian; only little-endian files are read".to_owned())
        }
        version => Err(format!("GGUF version {version} is unknown; 2 and 3 are read")),
    }
}

/// The key with the number `index`, and its value.
fn pair(source: &mut Source<impl Read>, index: u64) -> Result<(String, Value), String> {
    let key = source.text(MOST_KEY).map_err(|reason| format!("key {index} {reason}"))?;
    if key.is_empty() {
        return Err(format!("key {index} is empty"));
    }
    let value = source.u32().and_then(|code| Value::read(code, source));
    match value {
        Ok(value) => Ok((key, value)),
        Err(reason) => Err(format!("`{key}` {reason}")),
    }
}

fn alignment(values: &BTreeMap<String, Value>) -> Result<u64, String> {
    match values.get(ALIGNMENT_KEY) {
        None => Ok(DEFAULT_ALIGNMENT),
        Some(Value::U32(n)) if n.is_power_of_two() && *n >= 8 => Ok(u64::from(*n)),
        Some(Value::U32(n)) => {
            Err(format!("`{ALIGNMENT_KEY}` is {n}, not a power of two from 8 on"))
        }
        Some(_) => Err(format!("`{ALIGNMENT_KEY}` is not an unsigned number of 32 bits")),
    }
}

/// The tensor with the number `index`; its beginning is still counted from that of the first tensor.
fn tensor(source: &mut Source<impl Read>, index: u64, part: usize) -> Result<Tensor, String> {
    let name = source.text(MOST_NAME).map_err(|e| format!("the name of tensor {index} {e}"))?;
    if name.is_empty() {
        return Err(format!("the name of tensor {index} is empty"));
    }
    let mut described = || {
        let count = source.u32()?;
        if !(1..=4).contains(&count) {
            return Err(format!("has {count} dimensions; 1 to 4 are possible"));
        }
        let dims = (0..count).map(|_| source.u64()).collect::<Result<Vec<_>, _>>()?;
        let code = source.u32()?;
        let ty = GgmlType::from_code(code).ok_or_else(|| format!("has the unknown type {code}"))?;
        let bytes = ty.bytes(&dims)?;
        Ok((dims, ty, bytes, source.u64()?))
    };
    match described() {
        Ok((dims, ty, bytes, begin)) => Ok(Tensor { name, dims, ty, part, begin, bytes }),
        Err(reason) => Err(format!("tensor `{name}` {reason}")),
    }
}

/// Checks where the tensors' bytes are, and counts their beginnings from that of the file, whose `data` begins there.
fn place(tensors: &mut [Tensor], data: u64, alignment: u64, len: u64) -> Result<(), String> {
    for tensor in &mut *tensors {
        let name = &tensor.name;
        if !tensor.begin.is_multiple_of(alignment) {
            return Err(format!(
                "tensor `{name}` begins at {}, not at a multiple of {alignment}",
                tensor.begin
            ));
        }
        let begin = data.checked_add(tensor.begin);
        let end = begin.and_then(|begin| begin.checked_add(tensor.bytes));
        match (begin, end) {
            (Some(begin), Some(end)) if end <= len => tensor.begin = begin,
            _ => {
                return Err(format!(
                    "tensor `{name}` ends behind the end of the file: {} bytes from {} on in {} bytes",
                    tensor.bytes,
                    u128::from(data) + u128::from(tensor.begin),
                    len
                ));
            }
        }
    }
    let mut order: Vec<&Tensor> = tensors.iter().collect();
    order.sort_by_key(|t| t.begin);
    match order.array_windows().find(|[a, b]| b.begin < a.begin + a.bytes) {
        Some([a, b]) => Err(format!("tensors `{}` and `{}` overlap", a.name, b.name)),
        None => Ok(()),
    }
}
