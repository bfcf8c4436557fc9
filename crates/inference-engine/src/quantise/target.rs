//! A folder that gets a whole checkpoint or none: files have other names until all are there.

use inference_core::{Error, Result};
use std::{
    ffi::OsStr,
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

/// How the names of files end that are not done.
const PARTIAL: &str = "partial";

/// Of which kinds a checkpoint's files are: those of another that was there before would be taken for parts of this one.
const KINDS: [&str; 4] = ["safetensors", "json", "jinja", PARTIAL];

/// The most telling file: without it a folder is no model, so it goes first and comes last.
const CONFIG: &str = "config.json";

/// A folder that is being written. Dropped before it is finished, it takes back what was written.
#[derive(Debug)]
pub(super) struct Target {
    dir: PathBuf,
    /// Whether the folder was not there before.
    made: bool,
    overwrite: bool,
    /// Of the files, in the order in which they were begun.
    names: Vec<String>,
    finished: bool,
}

impl Target {
    /// The folder `dir`, made if it is not there.
    ///
    /// # Errors
    /// [`Error::Io`] if it can't be made, or holds something and `overwrite` isn't set; [`Error::InvalidFile`] if it is
    /// no folder, or `from` itself.
    pub(super) fn open(dir: &Path, from: &Path, overwrite: bool) -> Result<Self> {
        let io = |e| Error::io(dir, e);
        let made = match fs::metadata(dir) {
            Ok(found) if !found.is_dir() => return Err(Error::file(dir, "not a folder")),
            Ok(_) => false,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(dir).map_err(io)?;
                true
            }
            Err(e) => return Err(io(e)),
        };
        let target =
            Self { dir: dir.to_owned(), made, overwrite, names: Vec::new(), finished: false };
        let real = |path: &Path| fs::canonicalize(path).map_err(|e| Error::io(path, e));
        if real(dir)? == real(from)? {
            return Err(Error::file(dir, "a checkpoint can't be written over itself"));
        }
        // What a run that was killed has left is nothing.
        let taken = |path: &PathBuf| path.extension() != Some(OsStr::new(PARTIAL));
        if !overwrite && target.entries()?.iter().any(taken) {
            let reason = "the folder is not empty, and `overwrite` is not set";
            return Err(io(io::Error::new(ErrorKind::AlreadyExists, reason)));
        }
        Ok(target)
    }

    /// Where to write the file that will be called `name`.
    pub(super) fn begin(&mut self, name: &str) -> PathBuf {
        self.names.push(name.to_owned());
        self.partial(name)
    }

    /// Writes the file that will be called `name`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn write(&mut self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.begin(name);
        fs::write(&path, content).map_err(|e| Error::io(path, e))
    }

    /// Gives all files their names, `config.json` last.
    ///
    /// # Errors
    /// [`Error::Io`]; what is there then is no model.
    pub(super) fn finish(mut self) -> Result<()> {
        if self.overwrite {
            self.clear()?;
        }
        let (config, others): (Vec<_>, _) = self.names.iter().partition(|n| *n == CONFIG);
        for name in others.into_iter().chain(config) {
            let to = self.dir.join(name);
            fs::rename(self.partial(name), &to).map_err(|e| Error::io(to, e))?;
        }
        self.finished = true;
        Ok(())
    }

    /// Removes the checkpoint that was there before, and what killed runs have left.
    fn clear(&self) -> Result<()> {
        let ours: Vec<_> = self.names.iter().map(|n| self.partial(n)).collect();
        let mut old = self.entries()?;
        old.retain(|path| {
            let kind = path.extension().and_then(OsStr::to_str);
            path.is_file() && kind.is_some_and(|k| KINDS.contains(&k)) && !ours.contains(path)
        });
        old.sort_by_key(|path| path.file_name() != Some(OsStr::new(CONFIG)));
        old.into_iter().try_for_each(|path| fs::remove_file(&path).map_err(|e| Error::io(path, e)))
    }

    fn entries(&self) -> Result<Vec<PathBuf>> {
        let io = |e| Error::io(&self.dir, e);
        fs::read_dir(&self.dir).map_err(io)?.map(|e| Ok(e.map_err(io)?.path())).collect()
    }

    fn partial(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.{PARTIAL}"))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // What can't be removed does no harm: nobody takes it for a model.
        for name in &self.names {
            let _ = fs::remove_file(self.partial(name));
        }
        if self.made {
            let _ = fs::remove_dir(&self.dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let name = |e: io::Result<fs::DirEntry>| e.unwrap().file_name().into_string().unwrap();
        let mut all: Vec<_> = fs::read_dir(dir).unwrap().map(name).collect();
        all.sort();
        all
    }

    #[test]
    fn a_folder_gets_everything_or_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("deep/to"));
        fs::create_dir(&from).unwrap();
        let mut target = Target::open(&to, &from, false).unwrap();
        target.write("config.json", b"{}").unwrap();
        target.write("model.safetensors", b"weights").unwrap();
        assert_eq!(names(&to), ["config.json.partial", "model.safetensors.partial"]);
        drop(target);
        assert!(!to.exists());

        let mut target = Target::open(&to, &from, false).unwrap();
        target.write("config.json", b"{}").unwrap();
        target.finish().unwrap();
        assert_eq!(names(&to), ["config.json"]);
    }

    #[test]
    fn what_is_there_stays_unless_it_is_to_be_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::create_dir(&from).unwrap();
        fs::create_dir(&to).unwrap();
        fs::write(to.join("model-2.safetensors.partial"), b"").unwrap();
        drop(Target::open(&to, &from, false).unwrap());
        for name in ["model-2.safetensors", "chat_template.jinja", "config.json", "notes.txt"] {
            fs::write(to.join(name), b"old").unwrap();
        }
        let error = Target::open(&to, &from, false).unwrap_err().to_string();
        assert!(error.contains("not empty"), "{error}");

        let mut target = Target::open(&to, &from, true).unwrap();
        target.write("config.json", b"new").unwrap();
        drop(target);
        assert_eq!(fs::read(to.join("config.json")).unwrap(), b"old");

        let mut target = Target::open(&to, &from, true).unwrap();
        target.write("config.json", b"new").unwrap();
        target.write("model.safetensors", b"new").unwrap();
        target.finish().unwrap();
        assert_eq!(names(&to), ["config.json", "model.safetensors", "notes.txt"]);
        assert_eq!(fs::read(to.join("config.json")).unwrap(), b"new");
    }

    #[test]
    fn a_file_and_the_checkpoint_itself_are_no_targets() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(matches!(Target::open(&file, dir.path(), true), Err(Error::InvalidFile { .. })));
        let itself = dir.path().join(".");
        assert!(matches!(Target::open(&itself, dir.path(), true), Err(Error::InvalidFile { .. })));
        assert_eq!(names(dir.path()), ["file"]);
    }
}
