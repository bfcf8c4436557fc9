//! `config.json`, read with suspicion: every field is checked where it is read, and every error names file and field.

mod quantisation;

pub use self::quantisation::{Awq, Fp8, Gptq, Mlx, MlxForm, MlxMode, PackedForm, Quantised};

use crate::families;
use inference_core::{Error, Result};
use inference_text::files;
use serde_json::{Map, Value};
use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

/// Most bytes of a configuration file that are read.
const MAX_BYTES: u64 = 16 << 20;

/// The configuration of a checkpoint.
#[derive(Debug, Clone)]
pub struct Config {
    file: PathBuf,
    root: Map<String, Value>,
}

impl Config {
    /// Reads `config.json` of the folder `dir`.
    ///
    /// # Errors
    /// [`Error::NotAModel`] if there is none; [`Error::Io`] if it can't be read; [`Error::InvalidFile`] if it is not a
    /// JSON object or above 16 MiB.
    pub fn open(dir: &Path) -> Result<Self> {
        let file = dir.join("config.json");
        let root = files::object(&file, MAX_BYTES)?.ok_or_else(|| Error::NotAModel {
            path: dir.to_owned(),
            reason: "there is no config.json".to_owned(),
        })?;
        Ok(Self { file, root })
    }

    /// The configuration that another format's metadata amounts to; `file` is for messages.
    pub(crate) fn of(file: &Path, root: Map<String, Value>) -> Self {
        Self { file: file.to_owned(), root }
    }

    /// The whole file.
    pub fn root(&self) -> Section<'_> {
        Section { file: &self.file, name: String::new(), fields: &self.root }
    }

    /// The whole file, to be changed.
    pub fn into_fields(self) -> Map<String, Value> {
        self.root
    }

    /// The part that is about text: `text_config` where a model of several media nests it, else the whole file.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if `text_config` is not an object.
    pub fn text(&self) -> Result<Section<'_>> {
        Ok(self.root().section("text_config")?.unwrap_or_else(|| self.root()))
    }

    /// Whether the text part is nested.
    pub fn is_nested(&self) -> bool {
        self.root().get("text_config").is_some()
    }

    /// The `model_type` that says of which family the text part is: the file's, unless only the nested part's is known.
    ///
    /// # Errors
    /// [`Error::InvalidFile`] if neither part has one.
    pub fn model_type(&self) -> Result<&str> {
        let (root, text) = (self.root(), self.text()?);
        let known = |name: &&str| families::find(name).is_ok();
        let (outer, inner) = (root.string("model_type")?, text.string("model_type")?);
        let found = outer.filter(known).or(inner.filter(known)).or(outer).or(inner);
        found.ok_or_else(|| root.error("model_type", "is missing"))
    }
}

/// The tokens after which the model in the folder `dir` has nothing more to say: all that `config.json` (outside and
/// nested) and `generation_config.json` declare as `eos_token_id`, each an id or a list; sorted. None is fine.
///
/// # Errors
/// As [`Config::open`], for both files; [`Error::InvalidFile`] for an id that is none.
pub fn end_tokens(dir: &Path) -> Result<Vec<u32>> {
    let config = Config::open(dir)?;
    let file = dir.join("generation_config.json");
    let generation = files::object(&file, MAX_BYTES)?.unwrap_or_default();
    let generation = Section { file: &file, name: String::new(), fields: &generation };
    let mut all = Vec::new();
    for part in [config.root(), config.text()?, generation] {
        all.extend(part.ids("eos_token_id")?);
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}

/// An object of a configuration file. A field that is `null` counts as missing, but see [`is_null`](Self::is_null).
#[derive(Debug, Clone)]
pub struct Section<'a> {
    file: &'a Path,
    /// Where it is in the file, such as `text_config.`; empty for the whole.
    name: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Section<'a> {
    /// The value of `field`, unless it is missing or `null`.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.fields.get(field).filter(|v| !v.is_null())
    }

    /// Whether `field` is there and `null`: several families mean "none" by it, and something else by its absence.
    pub fn is_null(&self, field: &str) -> bool {
        self.fields.get(field).is_some_and(Value::is_null)
    }

    /// Whether it has no fields.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// Whether the value of some field is an object.
    pub fn has_sections(&self) -> bool {
        self.fields.values().any(Value::is_object)
    }

    /// An error about `field`, with its place in the file.
    pub fn error(&self, field: &str, reason: impl std::fmt::Display) -> Error {
        Error::file(self.file, format!("`{}{field}` {reason}", self.name))
    }

    fn unlike(&self, field: &str, expected: &str, value: &Value) -> Error {
        let mut shown = value.to_string();
        if let Some((end, _)) = shown.char_indices().nth(40) {
            shown.truncate(end);
            shown.push('…');
        }
        self.error(field, format!("must be {expected}, is {shown}"))
    }

    /// The object in `field`.
    ///
    /// # Errors
    /// Something else is there.
    pub fn section(&self, field: &str) -> Result<Option<Section<'a>>> {
        let name = format!("{}{field}.", self.name);
        match self.get(field) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Section { file: self.file, name, fields })),
            Some(other) => Err(self.unlike(field, "an object", other)),
        }
    }

    /// The number of things in `field`, from 1 to `most`.
    ///
    /// # Errors
    /// Something else is there.
    pub fn count(&self, field: &str, most: usize) -> Result<Option<usize>> {
        self.whole(field, 1..=most)
    }

    /// The whole number in `field`, within `range`.
    ///
    /// # Errors
    /// Something else is there.
    pub fn whole(&self, field: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        number.filter(|n| range.contains(n)).map(Some).ok_or_else(|| {
            let expected = format!("a whole number from {} to {}", range.start(), range.end());
            self.unlike(field, &expected, value)
        })
    }

    /// The number of things in `field`; `missing` if it isn't there.
    ///
    /// # Errors
    /// Something else is there, or nothing and `missing` is `None`.
    pub fn count_or(&self, field: &str, most: usize, missing: Option<usize>) -> Result<usize> {
        self.count(field, most)?.or(missing).ok_or_else(|| self.error(field, "is missing"))
    }

    /// The finite number in `field`, 0 or above.
    ///
    /// # Errors
    /// Something else is there.
    pub fn number(&self, field: &str) -> Result<Option<f64>> {
        self.number_that(field, "a number, 0 or above", |x| x >= 0.0)
    }

    /// The finite number in `field`, above 0.
    ///
    /// # Errors
    /// Something else is there.
    pub fn positive(&self, field: &str) -> Result<Option<f64>> {
        self.number_that(field, "a number above 0", |x| x > 0.0)
    }

    fn number_that(
        &self,
        field: &str,
        expected: &str,
        holds: fn(f64) -> bool,
    ) -> Result<Option<f64>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        // A number of the right kind may still be too large or too small for the f32 in which it ends.
        let number = value.as_f64().filter(|&x| (x as f32).is_finite() && holds(x));
        number.map(Some).ok_or_else(|| self.unlike(field, expected, value))
    }

    /// The list of `len` numbers above 0 in `field`.
    ///
    /// # Errors
    /// Nothing or something else is there.
    pub fn positives(&self, field: &str, len: usize) -> Result<Vec<f64>> {
        let value = self.get(field).ok_or_else(|| self.error(field, "is missing"))?;
        let positive = |v: &Value| v.as_f64().filter(|&x| x > 0.0 && (x as f32).is_finite());
        let numbers = value.as_array().and_then(|l| l.iter().map(positive).collect::<Option<_>>());
        match numbers {
            None => Err(self.unlike(field, "a list of numbers above 0", value)),
            Some(numbers) => self.of_length(field, len, numbers),
        }
    }

    /// The list of `len` strings in `field`.
    ///
    /// # Errors
    /// Something else is there.
    pub fn strings(&self, field: &str, len: usize) -> Result<Option<Vec<&'a str>>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        match value.as_array().and_then(|l| l.iter().map(Value::as_str).collect::<Option<_>>()) {
            None => Err(self.unlike(field, "a list of strings", value)),
            Some(strings) => self.of_length(field, len, strings).map(Some),
        }
    }

    fn of_length<T>(&self, field: &str, len: usize, list: Vec<T>) -> Result<Vec<T>> {
        if list.len() == len {
            return Ok(list);
        }
        Err(self.error(field, format!("must have {len} entries, has {}", list.len())))
    }

    /// The string in `field`.
    ///
    /// # Errors
    /// Something else is there.
    pub fn string(&self, field: &str) -> Result<Option<&'a str>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.unlike(field, "a string", value))
    }

    /// The truth value in `field`.
    ///
    /// # Errors
    /// Something else is there.
    pub fn flag(&self, field: &str) -> Result<Option<bool>> {
        let Some(value) = self.get(field) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.unlike(field, "true or false", value))
    }

    /// The token ids in `field`: one, a list, or none.
    fn ids(&self, field: &str) -> Result<Vec<u32>> {
        let Some(value) = self.get(field) else { return Ok(Vec::new()) };
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        let ids = match value {
            Value::Array(list) => list.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.unlike(field, "a token id or a list of them", value))
    }
}

#[cfg(test)]
mod tests;
