//! How a checkpoint is quantised into another.

use crate::{
    CancelToken, Error, Progress, ProgressFn, Result,
    options::{at_most_threads, possible_bits, setters},
};
use std::{fmt, sync::Arc};

/// How to quantise a checkpoint. Setters may be chained.
#[derive(Clone)]
#[non_exhaustive]
pub struct QuantiseOptions {
    /// Bits of a weight: 2, 3, 4, 5, 6 or 8. Default 4.
    pub bits: u8,
    /// Columns that share a scale and a bias: 32, 64 or 128. Default 64.
    ///
    /// A matrix whose columns it does not divide has the largest smaller groups that do, or stays as it is.
    pub group_size: usize,
    /// Bits of embedding and head. `None`: as all others.
    pub embedding_bits: Option<u8>,
    /// Replace a checkpoint that is already there. Default false.
    pub overwrite: bool,
    /// Threads to quantise on. `None`: as many as the machine runs at once.
    pub threads: Option<usize>,
    /// Called with the bytes of weights that are written.
    pub progress: Option<ProgressFn>,
    /// Cancels from elsewhere; between two matrices.
    pub cancel: Option<CancelToken>,
}

impl Default for QuantiseOptions {
    fn default() -> Self {
        Self {
            bits: 4,
            group_size: 64,
            embedding_bits: None,
            overwrite: false,
            threads: None,
            progress: None,
            cancel: None,
        }
    }
}

impl QuantiseOptions {
    setters! {
        bits: u8 => bits,
        group_size: usize => group_size,
        embedding_bits: u8 => Some(embedding_bits),
        overwrite: bool => overwrite,
        threads: usize => Some(threads),
        cancel: CancelToken => Some(cancel),
    }

    /// Sets [`progress`](Self::progress).
    #[must_use]
    pub fn progress(mut self, progress: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(Arc::new(progress));
        self
    }

    /// Checks every value.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] that names the first option whose value means nothing.
    pub fn validate(&self) -> Result<()> {
        possible_bits("bits", self.bits)?;
        if let Some(bits) = self.embedding_bits {
            possible_bits("embedding_bits", bits)?;
        }
        if ![32, 64, 128].contains(&self.group_size) {
            let reason = format!("{}; it must be 32, 64 or 128", self.group_size);
            return Err(Error::option("group_size", reason));
        }
        at_most_threads(self.threads)
    }
}

impl fmt::Debug for QuantiseOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuantiseOptions")
            .field("bits", &self.bits)
            .field("group_size", &self.group_size)
            .field("embedding_bits", &self.embedding_bits)
            .field("overwrite", &self.overwrite)
            .field("threads", &self.threads)
            .field("progress", &self.progress.is_some())
            .field("cancel", &self.cancel)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_exist_is_an_error_that_names_the_option() {
        let new = QuantiseOptions::default;
        assert!(new().validate().is_ok());
        for (options, wrong) in [
            (new().bits(7), "bits"),
            (new().bits(0), "bits"),
            (new().bits(16), "bits"),
            (new().embedding_bits(1), "embedding_bits"),
            (new().group_size(16), "group_size"),
            (new().group_size(0), "group_size"),
            (new().threads(0), "threads"),
        ] {
            let error = options.validate().unwrap_err();
            assert!(matches!(error, Error::InvalidOption { option, .. } if option == wrong));
        }
    }
}
