//! GGUF files: the header with its metadata, the tokenizer and the chat template in it, and a writer.
//!
//! The format is described at <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. Every file is hostile until it
//! is parsed: nothing is allocated that the file's length does not allow, and no tensor is read.

mod header;
mod model;
mod source;
mod split;
mod template;
#[cfg(test)]
mod tests;
mod tokenizer;
mod types;
mod value;
mod write;

pub use header::Tensor;
pub use model::AttentionShape;
pub use types::GgmlType;
pub use value::{Array, Typed, Value};
pub use write::Writer;

use header::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, Header, MAGIC};
use inference_core::{Error, Result};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::BufReader,
    path::{Path, PathBuf},
};

/// The headers of a model's GGUF file, or of all its parts.
#[derive(Debug, Clone)]
pub struct Gguf {
    /// At least one.
    parts: Vec<PathBuf>,
    /// The first part's, with the tensors of all.
    header: Header,
}

impl Gguf {
    /// Reads the header of the file `path`, and those of the further parts where it is the first of several. The tensors'
    /// bytes are not read, but are certain to be within the files.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] with the key or the tensor for a header that says something impossible, for a part that is
    /// not the first, and for a part that is missing; [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let mut header = read_header(path, 0)?;
        let parts = split::parts(path, &header)?;
        split::join(&parts, &mut header)?;
        Ok(Self { parts, header })
    }

    /// The same for a file of one part whose content is `content`; `name` is for messages.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn parse(name: &Path, content: &[u8]) -> Result<Self> {
        let header = Header::read(content, content.len() as u64, 0);
        let header = header.map_err(|reason| Error::file(name, reason))?;
        let parts = split::parts(name, &header)?;
        match parts.len() {
            1 => Ok(Self { parts, header }),
            count => Err(Error::file(name, format!("the first of {count} parts"))),
        }
    }

    /// The file, or the first part.
    pub fn path(&self) -> &Path {
        &self.parts[0]
    }

    /// The files of all parts, in their order; one for a model that is not split.
    pub fn parts(&self) -> &[PathBuf] {
        &self.parts
    }

    /// The format's version, 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// The tensors of all parts.
    pub fn tensors(&self) -> &[Tensor] {
        &self.header.tensors
    }

    /// The whole metadata.
    pub fn values(&self) -> &BTreeMap<String, Value> {
        &self.header.values
    }

    /// The value of `key`; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] with the key for a value of another type.
    pub fn get<'a, T: Typed<'a>>(&'a self, key: &str) -> Result<Option<T>> {
        let Some(value) = self.header.values.get(key) else { return Ok(None) };
        match T::of(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.wrong(key, format_args!("is not {}", T::WHAT))),
        }
    }

    /// The value of `key`, which must be there.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] with the key if there is none, and for one of another type.
    pub fn require<'a, T: Typed<'a>>(&'a self, key: &str) -> Result<T> {
        self.get(key)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    /// What is wrong with the value of `key`, as an error.
    pub fn wrong(&self, key: &str, reason: impl std::fmt::Display) -> Error {
        Error::file(self.path(), format!("`{key}` {reason}"))
    }
}

/// The header of the file `path`, which is the part `part` of a model.
fn read_header(path: &Path, part: usize) -> Result<Header> {
    let io = |e| Error::io(path, e);
    // A pipe would be waited for forever.
    let metadata = fs::metadata(path).map_err(io)?;
    if !metadata.is_file() {
        return Err(Error::file(path, "not a regular file"));
    }
    let content = BufReader::new(File::open(path).map_err(io)?);
    Header::read(content, metadata.len(), part).map_err(|reason| Error::file(path, reason))
}
