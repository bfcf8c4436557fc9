//! Compiled kernels on disk, so that they are compiled once.
//!
//! An entry is a file of its own: a mark, the hash of what follows, the code. It is written under another name and then
//! renamed, so it is whole or not there; what a crash, a full disk or a bad one makes of it is noticed by its hash.

use sha2::{Digest as _, Sha256};
use std::{
    cell::RefCell,
    env, fs, io,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

const MARK: &[u8; 8] = b"kernels1";
const HASH: usize = 32;

/// Bytes of all entries; the oldest go.
const MOST_BYTES: u64 = 256 << 20;

/// After this a file that was never renamed is of a process that died.
const ABANDONED: Duration = Duration::from_secs(3600);

/// A folder of compiled kernels.
#[derive(Debug)]
pub struct CodeCache {
    folder: PathBuf,
    most_bytes: u64,
}

impl CodeCache {
    /// What is in `folder`, which need not be there.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), most_bytes: MOST_BYTES }
    }

    /// The folder that the environment's `variable` names (empty: none), else that of `backend` where this user keeps what
    /// can be made again; `None` where there is no such place.
    pub fn of_this_user(variable: &str, backend: &str) -> Option<Self> {
        if let Some(folder) = env::var_os(variable) {
            return (!folder.is_empty()).then(|| Self::new(Path::new(&folder)));
        }
        let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let base = match cfg!(windows) {
            true => absolute("LOCALAPPDATA")?,
            false => {
                absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?
            }
        };
        Some(Self::new(&base.join("inference").join(backend)))
    }

    /// The entry `key` if it is there, whole, and `fits`; else what `make` gives, which is kept. That it can't be is
    /// logged. Without a cache it is made.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get<E>(
        cache: Option<&Self>,
        key: &CodeKey,
        fits: impl Fn(&[u8]) -> bool,
        make: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let Some(cache) = cache else { return make() };
        let name = key.name();
        if let Some(code) = cache.read(&name).filter(|code| fits(code)) {
            return Ok(code);
        }
        let code = make()?;
        if let Err(error) = cache.write(&name, &code) {
            tracing::warn!("compiled kernels can't be kept: {error}");
        }
        Ok(code)
    }

    /// The entry `key`, if it is there and whole. One that is damaged is removed.
    fn read(&self, key: &str) -> Option<Vec<u8>> {
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
    fn write(&self, key: &str, code: &[u8]) -> io::Result<()> {
        create_private(&self.folder)?;
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

/// What `load` makes of the code that `compile` gives, which is told what fits: code from the disk that is `unfit` for the
/// device is compiled again, and any other error of loading is the device's.
///
/// # Errors
/// Those of both.
pub fn loaded<M, L, C>(
    load: impl Fn(&[u8]) -> Result<M, L>,
    unfit: impl Fn(&L) -> bool,
    compile: impl FnOnce(&dyn Fn(&[u8]) -> bool) -> Result<Vec<u8>, C>,
) -> inference_core::Result<M>
where
    inference_core::Error: From<L> + From<C>,
{
    let loaded = RefCell::new(None);
    let fits = |code: &[u8]| {
        let module = load(code);
        let fits = !module.as_ref().is_err_and(&unfit);
        *loaded.borrow_mut() = fits.then_some(module);
        fits
    };
    let code = compile(&fits)?;
    Ok(loaded.take().unwrap_or_else(|| load(&code))?)
}

/// What an entry is of: all that code depends on.
#[derive(Debug, Clone, Default)]
pub struct CodeKey(Sha256);

impl CodeKey {
    /// Adds a text, and its end, so that no two lists of texts make one key.
    pub fn add(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
    }

    fn name(&self) -> String {
        self.0.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Which file it is: a compiler that was replaced is another one, though it says the same version.
pub fn identity(path: &Path) -> String {
    let metadata = || -> io::Result<(u64, u64)> {
        let metadata = fs::metadata(path)?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok((metadata.len(), modified.as_secs()))
    };
    format!("{} {:?}", path.display(), metadata().unwrap_or_default())
}

/// The files that this process has open as libraries whose names begin with `start`; none where the system does not say.
pub fn open_libraries(start: &str) -> Vec<PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let open = maps.lines().filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])));
    let is_one = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start))
    };
    let mut files: Vec<PathBuf> = open.filter(is_one).collect();
    files.sort();
    files.dedup();
    files
}

/// Makes a folder that is this user's alone: what is in it is run.
fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
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

    fn cache(most_bytes: u64) -> (tempfile::TempDir, CodeCache) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let inside = folder.path().join("a/b");
        (folder, CodeCache { folder: inside, most_bytes })
    }

    fn names(cache: &CodeCache) -> Vec<String> {
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

    #[test]
    fn what_is_made_once_is_not_made_again_unless_it_does_not_fit() {
        let (_folder, cache) = cache(MOST_BYTES);
        let mut key = CodeKey::default();
        key.add("source");
        let made = std::cell::Cell::new(0);
        let get = |cache: Option<&CodeCache>, key: &CodeKey, fits: bool| {
            let make = || {
                made.set(made.get() + 1);
                Ok::<_, io::Error>(b"code".to_vec())
            };
            CodeCache::get(cache, key, |_| fits, make).expect("it is made")
        };
        for (cache, fits, times) in [
            (Some(&cache), true, 1),
            (Some(&cache), true, 1),
            (Some(&cache), false, 2),
            (None, true, 3),
        ] {
            assert_eq!((get(cache, &key, fits), made.get()), (b"code".to_vec(), times));
        }
        key.add("");
        get(Some(&cache), &key, true);
        assert_eq!((made.get(), names(&cache).len()), (4, 2), "another key");
        let failed = CodeCache::get(Some(&cache), &CodeKey::default(), |_| true, || Err("no"));
        assert_eq!((failed, names(&cache).len()), (Err("no"), 2));
    }
}
