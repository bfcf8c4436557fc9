//! A checkpoint in any format that can be read: what describes it, and its weights.

use crate::{
    arch::Architecture,
    config::{self, Config},
    decoder::Source,
    families::{self, Family, Names},
    gguf,
    weights::{Folder, GgufWeights, Weights},
};
use inference_core::{Format, Result};
use inference_text::{ChatTemplate, Texts, Tokenizer, gguf::Gguf};
use std::path::{Path, PathBuf};

/// A checkpoint, described; of its weights nothing has been read yet.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    family: &'static Family,
    architecture: Architecture,
    names: Names,
    norm_offset: f32,
    form: Form,
}

/// What describes a checkpoint.
#[derive(Debug)]
enum Form {
    Folder(Config),
    Gguf(Box<Gguf>),
}

impl Checkpoint {
    /// Reads what describes the checkpoint `path`: a folder, a GGUF file, or the first of the files of one that is split.
    ///
    /// # Errors
    /// Anything wrong with the configuration or the metadata, and a family that isn't known.
    pub fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        if Format::of(&path) != Format::Gguf {
            let config = Config::open(&path)?;
            let family = families::find(config.model_type()?)?;
            let architecture = (family.describe)(&config)?;
            let (names, norm_offset) = (family.names, family.norm_offset);
            let form = Form::Folder(config);
            return Ok(Self { path, family, architecture, names, norm_offset, form });
        }
        let gguf = Gguf::open(&path)?;
        let (family, architecture) = gguf::describe(&gguf)?;
        let names = gguf::names(&gguf, family);
        // Converters write what a norm multiplies by.
        let norm_offset = 0.0;
        let form = Form::Gguf(Box::new(gguf));
        Ok(Self { path, family, architecture, names, norm_offset, form })
    }

    /// Its family.
    pub fn family(&self) -> &'static Family {
        self.family
    }

    /// What it is.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// Its tokenizer, its chat templates, and the tokens that end a text.
    ///
    /// # Errors
    /// Anything wrong with them.
    pub fn texts(&self) -> Result<Texts> {
        if let Form::Gguf(gguf) = &self.form {
            let tokenizer = Tokenizer::from_gguf(gguf)?;
            let template = ChatTemplate::from_gguf(gguf, &tokenizer)?;
            let end_tokens = tokenizer.end_tokens();
            return Ok(Texts { tokenizer, template, end_tokens });
        }
        let tokenizer = Tokenizer::open(&self.path)?;
        let template = ChatTemplate::open(&self.path, &tokenizer)?;
        let mut end_tokens = config::end_tokens(&self.path)?;
        end_tokens.extend(tokenizer.end_tokens());
        Ok(Texts { tokenizer, template, end_tokens })
    }

    /// Its tensors.
    ///
    /// # Errors
    /// Anything wrong with the files' headers.
    pub fn weights(&self) -> Result<Box<dyn Weights>> {
        Ok(match &self.form {
            Form::Gguf(gguf) => Box::new(GgufWeights::open(gguf)?),
            Form::Folder(config) => Box::new(Folder::open(&self.path, config)?),
        })
    }

    /// Its `weights`, under their names; `progress` is told how many bytes of each map have been placed.
    pub fn source<'a>(&'a self, weights: &'a dyn Weights, progress: &'a dyn Fn(u64)) -> Source<'a> {
        let Self { names, norm_offset, path, .. } = self;
        Source { weights, names, norm_offset: *norm_offset, path, progress }
    }
}
