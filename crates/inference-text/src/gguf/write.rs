//! Writes a GGUF file, version 3, little-endian.
//!
//! Layout: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#file-structure>.

use super::{ALIGNMENT_KEY, DEFAULT_ALIGNMENT, GgmlType, MAGIC, Value, value::Item};
use std::io::{self, Write};

/// A file to be: metadata, and what tensors there will be.
///
/// The tensors' bytes are asked for one after another while the file is written, so none of them is held here.
#[derive(Debug, Clone, Default)]
pub struct Writer {
    /// In the order in which they were set.
    values: Vec<(String, Value)>,
    tensors: Vec<Tensor>,
}

#[derive(Debug, Clone)]
struct Tensor {
    name: String,
    /// The innermost first.
    dims: Vec<u64>,
    ty: GgmlType,
}

impl Writer {
    /// A file without metadata and tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the value of `key`, instead of what it had. `general.alignment` is honoured; without it, 32 holds.
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) -> &mut Self {
        let (key, value) = (key.into(), value.into());
        match self.values.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.values.push((key, value)),
        }
        self
    }

    /// Adds a tensor with the dimensions `dims`, the innermost first: a matrix of `out` rows of `in` numbers is
    /// `[in, out]`.
    pub fn tensor(&mut self, name: impl Into<String>, dims: &[u64], ty: GgmlType) -> &mut Self {
        self.tensors.push(Tensor { name: name.into(), dims: dims.to_vec(), ty });
        self
    }

    /// Writes the file to `out`. `data` writes the bytes of the tensor with the index that it is given, in the order in
    /// which they were added; `out` is best buffered.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidInput`] for an alignment or dimensions that can't be; [`io::ErrorKind::InvalidData`] where
    /// `data` writes more or fewer bytes than the tensor has; what `out` and `data` fail with.
    pub fn write(
        &self,
        out: &mut impl Write,
        mut data: impl FnMut(usize, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let alignment = self.alignment()?;
        let sizes: Vec<u64> = self.tensors.iter().map(Tensor::bytes).collect::<io::Result<_>>()?;

        let mut out = Counted { inner: out, written: 0 };
        out.write_all(&MAGIC)?;
        3_u32.write(&mut out)?;
        (self.tensors.len() as u64).write(&mut out)?;
        (self.values.len() as u64).write(&mut out)?;
        for (key, value) in &self.values {
            Item::write(key, &mut out)?;
            value.write(&mut out)?;
        }
        let mut offset = 0_u64;
        for (tensor, bytes) in self.tensors.iter().zip(&sizes) {
            tensor.write(offset, &mut out)?;
            offset = (offset + bytes).next_multiple_of(alignment);
        }

        out.pad(alignment)?;
        for (index, (tensor, bytes)) in self.tensors.iter().zip(&sizes).enumerate() {
            let begin = out.written;
            data(index, &mut out)?;
            let written = out.written - begin;
            if written != *bytes {
                return Err(tensor.wrong(
                    io::ErrorKind::InvalidData,
                    &format!("has {bytes} bytes, but {written} were written"),
                ));
            }
            out.pad(alignment)?;
        }
        out.flush()
    }

    fn alignment(&self) -> io::Result<u64> {
        let set = self.values.iter().find(|(key, _)| key == ALIGNMENT_KEY);
        match set.map(|(_, value)| value) {
            None => Ok(DEFAULT_ALIGNMENT),
            Some(Value::U32(n)) if n.is_power_of_two() && *n >= 8 => Ok(u64::from(*n)),
            Some(other) => Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("`{ALIGNMENT_KEY}` can't be {other:?}"),
            )),
        }
    }
}

impl Tensor {
    fn bytes(&self) -> io::Result<u64> {
        let bytes = self.ty.bytes(&self.dims);
        bytes.map_err(|reason| self.wrong(io::ErrorKind::InvalidInput, &reason))
    }

    fn write(&self, offset: u64, out: &mut dyn Write) -> io::Result<()> {
        Item::write(&self.name, out)?;
        (self.dims.len() as u32).write(out)?;
        self.dims.iter().try_for_each(|dim| dim.write(out))?;
        self.ty.code().write(out)?;
        offset.write(out)
    }

    fn wrong(&self, kind: io::ErrorKind, reason: &str) -> io::Error {
        io::Error::new(kind, format!("tensor `{}` {reason}", self.name))
    }
}

/// Counts what goes through it.
struct Counted<'a, W> {
    inner: &'a mut W,
    written: u64,
}

impl<W: Write> Counted<'_, W> {
    /// Writes zeros up to a multiple of `alignment`.
    fn pad(&mut self, alignment: u64) -> io::Result<()> {
        let missing = self.written.next_multiple_of(alignment) - self.written;
        io::copy(&mut io::Read::take(io::repeat(0), missing), self).map(drop)
    }
}

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
