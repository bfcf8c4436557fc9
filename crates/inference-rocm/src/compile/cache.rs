//! Code objects on disk, so that kernels are compiled once.
//!
//! An entry is a file of its own: a mark, the hash of what follows, the code. It is written under another name and then
//! renamed, so it is whole or not there; what a crash, a full disk or a bad one makes of it is noticed by its hash.

use sha2::{Digest as _, Sha256};
use std::{
    env, fs, io,
    io::Write as _,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

/// Where compiled kernels are kept; empty: nowhere.
pub(crate) const CACHE_DIR: &str = "INFERENCE_ROCM_CACHE_DIR";

const MARK: &[u8; 8] = b"kernels1";
const HASH: usize = 32;

/// Bytes of all entries; the oldest go.
const MOST_BYTES: u64 = 256 << 20;

/// After this a file that was never renamed is of a process that died.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder of code objects.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    most_bytes: u64,
}

impl Cache {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), most_bytes: MOST_BYTES }
    }

    /// As [`CACHE_DIR`] says, else where this user keeps what can be made again; `None` where there is no such place.
    pub(super) fn of_this_user() -> Option<Self> {
        if let Some(folder) = env::var_os(CACHE_DIR) {
            return (!folder.is_empty()).then(|| Self::new(Path::new(&folder)));
        }
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(Self::new(&base.join("inference/rocm")))
    }

    /// The entry `key`, if it is there and whole. One that is damaged is removed.
    pub(super) fn read(&self, key: &str) -> Option<Vec<u8>> {
        let path = self.path(key);
        let bytes = fs::read(&path).ok()?;
        let code = bytes
            .strip_prefix(MARK)
            .and_then(|rest| rest.split_at_checked(HASH))
            .filter(|(hash, code)| !code.is_empty() && **hash == *Sha256::digest(code).as_slice());
        let Some((_, code)) = code else {
            tracing::warn!("{} is damaged; its kernels are compiled again", path.display());
            fs::remove_file(&path).ok();
            return None;
        };
        // It is in use: the oldest by this time go first.
        fs::File::options()
            .append(true)
            .open(&path)
            .and_then(|f| f.set_modified(SystemTime::now()))
            .ok();
        Some(code.to_owned())
    }

    /// Keeps `code` as the entry `key`.
    pub(super) fn write(&self, key: &str, code: &[u8]) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
        for part in [MARK.as_slice(), Sha256::digest(code).as_slice(), code] {
            file.write_all(part)?;
        }
        file.as_file().sync_all()?;
        file.persist(self.path(key)).map_err(|error| error.error)?;
        self.tidy()
    }

    fn path(&self, key: &str) -> PathBuf {
        self.folder.join(key).with_extension("co")
    }

    /// Removes the oldest entries beyond the bound, and what dead processes left.
    fn tidy(&self) -> io::Result<()> {
        let now = SystemTime::now();
        let mut entries = Vec::new();
        for entry in fs::read_dir(&self.folder)?.flatten() {
            let (path, Ok(metadata)) = (entry.path(), entry.metadata()) else { continue };
            let Ok(modified) = metadata.modified() else { continue };
            if path.extension().is_some_and(|e| e == "co") {
                entries.push((modified, metadata.len(), path));
            } else if entry.file_name().to_string_lossy().starts_with(".new-")
                && now.duration_since(modified).is_ok_and(|age| age > ABANDONED)
            {
                fs::remove_file(path).ok();
            }
        }
        entries.sort();
        let mut bytes: u64 = entries.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in entries {
            if bytes <= self.most_bytes {
                break;
            }
            remove(&path)?;
            bytes -= len;
        }
        Ok(())
    }
}

/// Removes a file; another process that tidies may have been faster.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(most_bytes: u64) -> (tempfile::TempDir, Cache) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inside = folder.path().join("a/b");
        (folder, Cache { folder: inside, most_bytes })
    }

    fn names(cache: &Cache) -> Vec<String> {
        let name = |e: fs::DirEntry| e.file_name().to_string_lossy().into_owned();
        let mut all: Vec<_> =
            fs::read_dir(&cache.folder).expect("it is there").flatten().map(name).collect();
        all.sort();
        all
    }

    #[test]
    fn what_was_kept_is_found() {
        let (_folder, cache) = cache(MOST_BYTES);
        assert_eq!(cache.read("one"), None);
        cache.write("one", b"code").expect("it can be written");
        cache.write("two", b"other").expect("it can be written");
        assert_eq!(cache.read("one").as_deref(), Some(b"code".as_slice()));
        cache.write("one", b"newer").expect("it can be written");
        assert_eq!(cache.read("one").as_deref(), Some(b"newer".as_slice()));
        assert_eq!(names(&cache), ["one.co", "two.co"]);
    }

    #[test]
    fn damage_is_noticed_at_every_byte() {
        let (_folder, cache) = cache(MOST_BYTES);
        cache.write("k", b"code").expect("it can be written");
        let whole = fs::read(cache.path("k")).expect("it is there");
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(cache.path("k"), &damaged).expect("it can be written");
            assert_eq!(cache.read("k"), None, "byte {at}");
            assert!(names(&cache).is_empty(), "byte {at}");
            fs::write(cache.path("k"), &whole[..at]).expect("it can be written");
            assert_eq!(cache.read("k"), None, "{at} bytes");
        }
    }

    #[test]
    fn the_oldest_go_and_so_does_what_a_crash_left() {
        let (_folder, cache) = cache(3 * (40 + 100));
        let age = |name: &str, seconds| {
            let file = fs::File::options().append(true).open(cache.folder.join(name));
            let time = SystemTime::now() - Duration::from_secs(seconds);
            file.expect("it is there").set_modified(time).expect("it can be set");
        };
        for (key, seconds) in [("a", 40), ("b", 30), ("c", 20)] {
            cache.write(key, &[7; 100]).expect("it can be written");
            age(&format!("{key}.co"), seconds);
        }
        for (name, seconds) in [(".new-dead", 4000), (".new-alive", 4)] {
            fs::write(cache.folder.join(name), b"ker").expect("it can be written");
            age(name, seconds);
        }
        cache.read("a").expect("it is there, and in use now");
        cache.write("d", &[7; 100]).expect("it can be written");
        assert_eq!(names(&cache), [".new-alive", "a.co", "c.co", "d.co"]);
    }

    #[test]
    fn another_process_may_tidy_at_once() {
        let (folder, cache) = cache(0);
        cache.write("k", b"code").expect("it is removed at once");
        remove(&cache.path("k")).expect("it is gone, as it should be");
        assert!(remove(folder.path()).is_err(), "a folder is not");
    }
}
