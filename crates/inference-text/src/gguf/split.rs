//! A model in several files.
//!
//! Keys and names are those of llama.cpp's `gguf-split`
//! (<https://github.com/ggml-org/llama.cpp/blob/master/tools/gguf-split/gguf-split.cpp>): every part counts itself from
//! 0 in `split.no`, but from 1 in its name, `name-00001-of-00003.gguf`.

use super::{header::Header, read_header};
use crate::gguf::value::Typed;
use inference_core::{Error, Result};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

/// Most parts: their number has five digits in a name, and 16 bits in a file.
const MOST_PARTS: u32 = 65_535;

/// The paths of all parts of the model whose first part is `path`, with the header `first`.
pub(super) fn parts(path: &Path, first: &Header) -> Result<Vec<PathBuf>> {
    let (count, number) = numbers(first).map_err(|reason| Error::file(path, reason))?;
    if count <= 1 {
        return Ok(vec![path.to_owned()]);
    }
    let part = |number| part(path, number, count);
    let own = part(number).ok_or_else(|| {
        let ending = ending(number, count);
        Error::file(
            path,
            format!("part {} of {count}, so its name must end with `{ending}`", number + 1),
        )
    })?;
    let first = part(0).unwrap_or(own);
    if number != 0 {
        let reason = format!("part {} of {count}: open the first, {}", number + 1, first.display());
        return Err(Error::file(path, reason));
    }
    let parts: Vec<_> = (0..count).filter_map(part).collect();
    match parts.iter().enumerate().find(|(_, part)| !part.is_file()) {
        Some((number, missing)) => {
            let reason =
                format!("part {} of {count} is missing: {}", number + 1, missing.display());
            Err(Error::file(path, reason))
        }
        None => Ok(parts),
    }
}

/// Adds the tensors of the other `parts` to those of the `first`.
pub(super) fn join(parts: &[PathBuf], first: &mut Header) -> Result<()> {
    let count = parts.len() as u32;
    for (number, path) in parts.iter().enumerate().skip(1) {
        let header = read_header(path, number)?;
        let found = numbers(&header).map_err(|reason| Error::file(path, reason))?;
        if found != (count, number as u32) {
            let reason = format!(
                "`split.no` is {} and `split.count` {}, not {number} and {count}",
                found.1, found.0
            );
            return Err(Error::file(path, reason));
        }
        first.tensors.extend(header.tensors);
    }
    let mut names = HashSet::new();
    if let Some(twice) = first.tensors.iter().find(|t| !names.insert(t.name.as_str())) {
        let reason = format!("tensor `{}` is in another part as well", twice.name);
        return Err(Error::file(&parts[twice.part], reason));
    }
    let claimed = number(first, "split.tensors.count").map_err(|e| Error::file(&parts[0], e))?;
    match claimed {
        Some(claimed) if count > 1 && claimed as usize != first.tensors.len() => {
            let reason = format!(
                "`split.tensors.count` is {claimed}, but the {count} parts have {}",
                first.tensors.len()
            );
            Err(Error::file(&parts[0], reason))
        }
        _ => Ok(()),
    }
}

/// How many parts there are, and which this is.
fn numbers(header: &Header) -> Result<(u32, u32), String> {
    let count = number(header, "split.count")?.unwrap_or(0);
    let own = number(header, "split.no")?.unwrap_or(0);
    if count > MOST_PARTS {
        return Err(format!("`split.count` is {count}; at most {MOST_PARTS} are possible"));
    }
    if own >= count.max(1) {
        return Err(format!("`split.no` is {own}, but `split.count` is {count}"));
    }
    Ok((count, own))
}

fn number(header: &Header, key: &str) -> Result<Option<u32>, String> {
    let value = header.values.get(key);
    value.map(|v| u32::of(v).ok_or_else(|| format!("`{key}` is not {}", u32::WHAT))).transpose()
}

/// The path of the part `number` beside `path`, if that is called like a part.
fn part(path: &Path, number: u32, count: u32) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    // `-00001-of-00003.gguf`
    let (prefix, old) = name.split_at_checked(name.len().checked_sub(ending(0, count).len())?)?;
    let digits = |text: Option<&str>| text.is_some_and(|t| t.bytes().all(|b| b.is_ascii_digit()));
    let is_part =
        old.get(6..) == ending(0, count).get(6..) && digits(old.get(1..6)) && old.starts_with('-');
    is_part.then(|| path.with_file_name(format!("{prefix}{}", ending(number, count))))
}

/// How the name of the part `number` ends.
fn ending(number: u32, count: u32) -> String {
    format!("-{:05}-of-{count:05}.gguf", number + 1)
}
