//! Safetensors files, written tensor by tensor, in any order
//! (<https://github.com/huggingface/safetensors#format>).

use super::header;
use inference_core::{Error, Result};
use serde_json::{Map, Value, json};
use std::{
    fs::File,
    io::{self, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// A tensor that will be written.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    /// Such as `U32`.
    pub(crate) dtype: String,
    pub(crate) shape: Vec<usize>,
    /// How many it has.
    pub(crate) bytes: u64,
}

/// A file whose header is written, and into which its tensors are.
#[derive(Debug)]
pub(crate) struct Writer {
    file: File,
    path: PathBuf,
    /// Where the tensors begin and how long they are, in the order of the entries.
    places: Vec<(u64, u64)>,
}

impl Writer {
    /// Makes the file `path`, or empties it, for these tensors, which must be fewer than a header can hold. Tensors with
    /// wider numbers come first, so that all are aligned.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn create(path: &Path, entries: &[Entry]) -> Result<Self> {
        let mut order: Vec<_> = (0..entries.len()).collect();
        let width = |i: &usize| header::bits(&entries[*i].dtype).unwrap_or(8);
        order.sort_by(|a, b| {
            width(b).cmp(&width(a)).then_with(|| entries[*a].name.cmp(&entries[*b].name))
        });
        let mut described = Map::new();
        described.insert("__metadata__".to_owned(), json!({ "format": "mlx" }));
        let mut places = vec![(0, 0); entries.len()];
        let mut end = 0;
        for i in order {
            let Entry { name, dtype, shape, bytes } = &entries[i];
            let offsets = [end, end + bytes];
            let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": offsets });
            described.insert(name.clone(), entry);
            places[i] = (end, *bytes);
            end += bytes;
        }
        let mut text = Value::Object(described).to_string();
        text.push_str(&" ".repeat(text.len().next_multiple_of(8) - text.len()));
        let start = 8 + text.len() as u64;
        places.iter_mut().for_each(|(at, _)| *at += start);
        let open = || -> io::Result<File> {
            let mut file = File::create(path)?;
            file.write_all(&(text.len() as u64).to_le_bytes())?;
            file.write_all(text.as_bytes())?;
            file.set_len(start + end)?;
            Ok(file)
        };
        let file = open().map_err(|e| Error::io(path, e))?;
        Ok(Self { file, path: path.to_owned(), places })
    }

    /// Writes the tensor of entry `i`.
    ///
    /// # Errors
    /// [`Error::Io`].
    ///
    /// # Panics
    /// If it isn't as long as the entry says.
    pub(crate) fn write(&mut self, i: usize, bytes: &[u8]) -> Result<()> {
        let (at, len) = self.places[i];
        assert_eq!(bytes.len() as u64, len, "a tensor of another length than was said");
        let moved = self.file.seek(SeekFrom::Start(at));
        moved.and_then(|_| self.file.write_all(bytes)).map_err(|e| Error::io(&self.path, e))
    }

    /// Waits until all is on the disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn finish(self) -> Result<()> {
        self.file.sync_all().map_err(|e| Error::io(&self.path, e))
    }
}
