//! Bytes of a header, of which never more are taken than there are.

use std::io::{ErrorKind, Read};

/// Most bytes of a header; those of published files have some ten millions, which are the tokenizer's.
pub(super) const MOST_HEADER: u64 = 256 << 20;

/// A little-endian file that is read from its beginning.
#[derive(Debug)]
pub(super) struct Source<R> {
    inner: R,
    /// Bytes of the whole file.
    len: u64,
    /// Bytes that were read.
    read: u64,
}

impl<R: Read> Source<R> {
    /// A file of `len` bytes.
    pub(super) fn new(inner: R, len: u64) -> Self {
        Self { inner, len, read: 0 }
    }

    /// Bytes that were read.
    pub(super) fn position(&self) -> u64 {
        self.read
    }

    /// Bytes of the whole file.
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Refuses `count` things of at least `least` bytes each where so many bytes do not follow.
    pub(super) fn expect(&self, what: &str, count: u64, least: u64) -> Result<(), String> {
        let needed = u128::from(count) * u128::from(least);
        let left = self.len - self.read;
        if needed > u128::from(left) {
            return Err(format!(
                "claims {count} {what}, at least {needed} bytes, but only {left} follow"
            ));
        }
        if needed > u128::from(MOST_HEADER.saturating_sub(self.read)) {
            return Err(format!("makes the header larger than {MOST_HEADER} bytes"));
        }
        Ok(())
    }

    /// The next `N` bytes.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.expect("bytes", N as u64, 1)?;
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    /// A number of 32 bits.
    pub(super) fn u32(&mut self) -> Result<u32, String> {
        self.array().map(u32::from_le_bytes)
    }

    /// A number of 64 bits.
    pub(super) fn u64(&mut self) -> Result<u64, String> {
        self.array().map(u64::from_le_bytes)
    }

    /// A text, at most `most` bytes long: its length, then its bytes.
    pub(super) fn text(&mut self, most: u64) -> Result<String, String> {
        let len = self.u64()?;
        if len > most {
            return Err(format!("has {len} bytes; at most {most} are allowed"));
        }
        self.expect("bytes of a text", len, 1)?;
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        String::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        self.inner.read_exact(bytes).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => "became shorter while it was read".to_owned(),
            _ => format!("can't be read: {e}"),
        })?;
        self.read += bytes.len() as u64;
        Ok(())
    }
}
