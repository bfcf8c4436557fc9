//! Copies of fixtures to break, and what a case must end with.

use inference::{Completion, GenerateOptions, LoadOptions, Result, TextModel, load_model};
use inference_tests::fixtures;
use serde_json::Value;
use std::{fs, path::Path, sync::mpsc, thread, time::Duration};
use tempfile::TempDir;

/// What a case must end with: the error's variant, and what its message says.
pub(crate) type Expected<'a> = (&'a str, &'a [&'a str]);

/// A case that breaks a checkpoint: its name, what it does to the files, and what loading then ends with.
pub(crate) type Breakage<'a> = (&'a str, fn(&Checkpoint), Expected<'a>);

/// No case takes longer: each is a matter of milliseconds.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// Most bytes that this process may ever hold: fixtures are small, and so must be what a damaged one asks for.
const MEMORY_LIMIT: u64 = 1 << 30;

/// Runs a case on a thread of its own and gives what it returns.
///
/// # Panics
/// Where the case panics or hangs, or the process has grown too large.
pub(crate) fn within_limits<T: Send + 'static>(
    name: &str,
    case: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || sender.send(case()));
    match receiver.recv_timeout(TIME_LIMIT) {
        Ok(result) => {
            let peak = peak_memory();
            assert!(peak <= MEMORY_LIMIT, "{name}: {peak} bytes of memory");
            result
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{name}: hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panic = thread.join().expect_err("it sent nothing");
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            panic!("{name}: panics: {}", text.unwrap_or_default())
        }
    }
}

/// The most bytes that this process ever held; 0 where the system does not say.
fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    let kib = line.and_then(|l| l.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// Checks an error's variant, and that its message names the thing.
///
/// # Panics
/// Where there is no error, or another.
pub(crate) fn check<T>(name: &str, result: Result<T>, (variant, says): Expected<'_>) {
    let Err(error) = result else { panic!("{name}: no error, expected {variant} with {says:?}") };
    let shown = format!("{error:?}");
    let found = shown.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    let message = error.to_string();
    assert_eq!(found, variant, "{name}: {message}");
    for part in says {
        assert!(message.contains(part), "{name}: {message:?} does not say {part:?}");
    }
    assert!(message.len() < 1000, "{name}: a message of {} bytes", message.len());
}

/// Loads a copy of `fixture` for each case, broken as the case says.
///
/// # Panics
/// Where one does not end with its error.
pub(crate) fn check_loading(fixture: &str, cases: &[Breakage<'_>]) {
    for &(name, break_it, expected) in cases {
        let checkpoint = Checkpoint::of(fixture);
        break_it(&checkpoint);
        let path = checkpoint.path().to_owned();
        let result = within_limits(name, move || {
            load_model(path, &LoadOptions::default()).map(|model| model.info().layers)
        });
        check(name, result, expected);
    }
}

/// A copy of a fixture.
pub(crate) struct Checkpoint(TempDir);

impl Checkpoint {
    /// A whole one.
    pub(crate) fn of(fixture: &str) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        for entry in fs::read_dir(fixtures::path(fixture)).expect("is readable") {
            let file = entry.expect("is readable").path();
            let name = file.file_name().expect("has a name");
            if name != "golden.json" {
                fs::copy(&file, dir.path().join(name)).expect("can be copied");
            }
        }
        Self(dir)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(file), content).expect("is writable");
    }

    pub(crate) fn remove(&self, file: &str) {
        fs::remove_file(self.path().join(file)).expect("is there");
    }

    /// Cuts a file off.
    pub(crate) fn truncate(&self, file: &str, bytes: usize) {
        let content = fs::read(self.path().join(file)).expect("is readable");
        self.write(file, &content[..bytes]);
    }

    /// Changes a JSON file.
    pub(crate) fn edit(&self, file: &str, change: impl FnOnce(&mut Value)) {
        let text = fs::read(self.path().join(file)).expect("is readable");
        let mut value = serde_json::from_slice(&text).expect("is JSON");
        change(&mut value);
        self.write(file, value.to_string());
    }

    /// Sets fields of `config.json`.
    pub(crate) fn config(&self, fields: Value) {
        self.edit("config.json", |config| merge(config, fields));
    }

    /// Removes a field of `config.json`.
    pub(crate) fn without(&self, field: &str) {
        self.edit("config.json", |config| {
            config.as_object_mut().expect("is an object").shift_remove(field).expect("is there");
        });
    }

    /// Changes the header of `model.safetensors`, as text; the data stays.
    pub(crate) fn header_text(&self, change: impl FnOnce(String) -> String) {
        let (header, data) = self.parts();
        self.write("model.safetensors", safetensors(&change(header), &data));
    }

    /// The same as JSON.
    pub(crate) fn header(&self, change: impl FnOnce(&mut Value)) {
        self.header_text(|text| {
            let mut header = serde_json::from_str(&text).expect("is JSON");
            change(&mut header);
            header.to_string()
        });
    }

    /// Overwrites the bytes of some tensors of `model.safetensors`: those whose names `chosen` takes.
    pub(crate) fn overwrite(&self, chosen: impl Fn(&str) -> bool, write: impl Fn(&mut [u8])) {
        let (header, mut data) = self.parts();
        let all: Value = serde_json::from_str(&header).expect("is JSON");
        for (name, tensor) in all.as_object().expect("is an object") {
            if name != "__metadata__" && chosen(name) {
                let offset = |i: usize| tensor["data_offsets"][i].as_u64().expect("is") as usize;
                write(&mut data[offset(0)..offset(1)]);
            }
        }
        self.write("model.safetensors", safetensors(&header, &data));
    }

    /// Header and data of `model.safetensors`.
    pub(crate) fn parts(&self) -> (String, Vec<u8>) {
        let content = fs::read(self.path().join("model.safetensors")).expect("is readable");
        let (length, rest) = content.split_first_chunk().expect("has a header");
        let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
        (String::from_utf8(header.to_vec()).expect("is text"), data.to_vec())
    }

    pub(crate) fn load(&self) -> Box<dyn TextModel> {
        load_model(self.path(), &LoadOptions::default().threads(1)).expect("loads")
    }
}

/// A file of this header and data.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

/// Overwrites the fields of `into` with those of `from`, objects within likewise.
fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (field, value) in from {
                merge(into.entry(field).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

/// Generates greedily to the end.
pub(crate) fn complete(
    model: &dyn TextModel,
    prompt: &str,
    options: &GenerateOptions,
) -> Result<Completion> {
    model.generate(prompt, options)?.finish()
}

/// Checks that a model answers as it did before whatever failed in between.
///
/// # Panics
/// Where it doesn't.
pub(crate) fn check_alive(name: &str, model: &dyn TextModel, text: &str) {
    let options = GenerateOptions::default().max_tokens(4);
    match complete(model, PROMPT, &options) {
        Ok(completion) => {
            assert_eq!(completion.text(), text, "{name}: it answers differently after")
        }
        Err(error) => panic!("{name}: the model does not answer any more: {error}"),
    }
}

/// What the model is asked by [`check_alive`].
pub(crate) const PROMPT: &str = "The rain in the";

/// What a sound model answers to [`PROMPT`].
pub(crate) fn answer(model: &dyn TextModel) -> String {
    complete(model, PROMPT, &GenerateOptions::default().max_tokens(4)).expect("it answers").text()
}
