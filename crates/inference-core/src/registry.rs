//! Backends by name, and which of them loads a model.

use crate::{Availability, Backend, Error, Format, LoadOptions, Result, TextModel};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

/// Names in the order of preference for the automatic choice; others follow, sorted. Our own go before a foreign one.
const PREFERENCE: [&str; 5] = ["metal", "rocm", "cuda", "cpu", "llama_cpp"];

/// Backends by name. A plain value; the facade holds one for the process.
#[derive(Default)]
pub struct Registry(RwLock<BTreeMap<String, Arc<dyn Backend>>>);

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a backend; one of the same name is replaced.
    pub fn register(&self, backend: impl Backend + 'static) {
        let name = backend.name().to_owned();
        // A poisoned lock means that another thread panicked between two map operations; the map itself is whole.
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(name, Arc::new(backend));
    }

    /// The backend called `name`.
    pub fn get(&self, name: &str) -> Option<Arc<dyn Backend>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// All names, sorted.
    pub fn list(&self) -> Vec<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// All backends, in the order of preference. A snapshot: nothing is asked of them under the lock.
    pub fn backends(&self) -> Vec<Arc<dyn Backend>> {
        let mut all: Vec<_> =
            self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        all.sort_by_key(|b| {
            PREFERENCE.iter().position(|p| *p == b.name()).unwrap_or(PREFERENCE.len())
        });
        all
    }

    /// The first backend in the order of preference that is available.
    ///
    /// # Errors
    /// [`Error::NoBackends`] for an empty registry, [`Error::NoneAvailable`] with every backend's reason.
    pub fn default_backend(&self) -> Result<Arc<dyn Backend>> {
        let mut reasons = Vec::new();
        for backend in self.backends() {
            match backend.availability() {
                Availability::Available => return Ok(backend),
                Availability::Unavailable(reason) => {
                    reasons.push((backend.name().to_owned(), reason));
                }
            }
        }
        Err(if reasons.is_empty() { Error::NoBackends } else { Error::NoneAvailable { reasons } })
    }

    /// Loads the model at `path` with the named backend, or else with the first in the order of preference that is
    /// available and reads the model's format.
    ///
    /// # Errors
    /// No such backend, none available, none that reads the format, or the backend's own error.
    pub fn load_model(
        &self,
        path: impl AsRef<Path>,
        options: &LoadOptions,
    ) -> Result<Box<dyn TextModel>> {
        let path = path.as_ref();
        options.validate()?;
        let format = Format::of(path);
        let backend = match &options.backend {
            Some(name) => self.named(name)?,
            None => self.reader_of(path, format)?,
        };
        if !backend.reads(format) {
            let reason = "it does not read this format".to_owned();
            let reasons = vec![(backend.name().to_owned(), reason)];
            let (path, format) = (path.to_owned(), format.to_string());
            return Err(Error::NoBackendReads { path, format, reasons });
        }
        backend.load(path, options)
    }

    fn named(&self, name: &str) -> Result<Arc<dyn Backend>> {
        let backend = self.get(name).ok_or_else(|| match self.list() {
            known if known.is_empty() => Error::NoBackends,
            known => Error::BackendNotRegistered { name: name.to_owned(), known },
        })?;
        match backend.availability() {
            Availability::Available => Ok(backend),
            Availability::Unavailable(reason) => {
                Err(Error::BackendNotAvailable { name: name.to_owned(), reason })
            }
        }
    }

    fn reader_of(&self, path: &Path, format: Format) -> Result<Arc<dyn Backend>> {
        let mut reasons = Vec::new();
        let mut any_available = false;
        for backend in self.backends() {
            let reason = match (backend.availability(), backend.reads(format)) {
                (Availability::Available, true) => return Ok(backend),
                (Availability::Available, false) => {
                    any_available = true;
                    "it does not read this format".to_owned()
                }
                (Availability::Unavailable(reason), _) => reason,
            };
            reasons.push((backend.name().to_owned(), reason));
        }
        if reasons.is_empty() {
            return Err(Error::NoBackends);
        }
        if !any_available {
            return Err(Error::NoneAvailable { reasons });
        }
        if format == Format::Gguf && self.get("cpu").is_none() {
            reasons.push(("cpu".to_owned(), "enable the feature cpu".to_owned()));
        }
        Err(Error::NoBackendReads { path: path.to_owned(), format: format.to_string(), reasons })
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Registry").field(&self.list()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceInfo;

    const FOLDERS: &[Format] = &[Format::Safetensors];
    const FILES: &[Format] = &[Format::Gguf];

    struct Fixed(&'static str, Option<&'static str>, &'static [Format]);
    impl Backend for Fixed {
        fn name(&self) -> &str {
            self.0
        }
        fn availability(&self) -> Availability {
            self.1.map_or(Availability::Available, |r| Availability::Unavailable(r.to_owned()))
        }
        fn reads(&self, format: Format) -> bool {
            self.2.contains(&format)
        }
        fn devices(&self) -> Vec<DeviceInfo> {
            Vec::new()
        }
        fn load(&self, _: &Path, _: &LoadOptions) -> Result<Box<dyn TextModel>> {
            Err(Error::Device { reason: format!("{} was chosen", self.0) })
        }
    }

    fn message(registry: &Registry, path: &str, options: &LoadOptions) -> String {
        registry.load_model(path, options).err().expect("these backends load nothing").to_string()
    }

    #[test]
    fn errors_keep_the_texts_that_callers_match_on() {
        let registry = Registry::new();
        let default = LoadOptions::default();
        assert!(
            message(&registry, "m", &default)
                .starts_with("no backends registered: enable a backend feature")
        );
        registry.register(Fixed("cpu", None, FOLDERS));
        registry.register(Fixed("rocm", Some("no libamdhip64.so"), FOLDERS));
        let named = |name: &str| LoadOptions::default().backend(name);
        assert!(
            message(&registry, "m", &named("tpu")).starts_with("backend \"tpu\" not registered")
        );
        assert_eq!(
            message(&registry, "m", &named("rocm")),
            "backend \"rocm\" not available on this hardware: no libamdhip64.so"
        );
    }

    #[test]
    fn the_first_available_backend_that_reads_the_format_wins() {
        let registry = Registry::new();
        registry.register(Fixed("aaa", None, FOLDERS));
        registry.register(Fixed("cpu", None, FOLDERS));
        registry.register(Fixed("metal", Some("not a Mac"), FOLDERS));
        registry.register(Fixed("llama_cpp", None, FILES));
        assert_eq!(registry.list(), ["aaa", "cpu", "llama_cpp", "metal"]);
        let default = LoadOptions::default();
        assert!(message(&registry, "folder", &default).contains("cpu was chosen"));
        assert!(message(&registry, "x.gguf", &default).contains("llama_cpp was chosen"));
        let url = message(&registry, "http://localhost/v1", &default);
        assert!(
            url.contains("no available backend reads a URL") && url.contains("not a Mac"),
            "{url}"
        );
        assert_eq!(
            registry.default_backend().map(|b| b.name().to_owned()).ok().as_deref(),
            Some("cpu")
        );
        // Our own engine reads both, and goes first.
        registry.register(Fixed("cpu", None, &[Format::Safetensors, Format::Gguf]));
        assert!(message(&registry, "x.gguf", &default).contains("cpu was chosen"));
        let named = LoadOptions::default().backend("llama_cpp");
        assert!(message(&registry, "x.gguf", &named).contains("llama_cpp was chosen"));
    }

    #[test]
    fn none_available_is_another_error_than_none_registered() {
        let registry = Registry::new();
        registry.register(Fixed("metal", Some("not a Mac"), FOLDERS));
        registry.register(Fixed("rocm", Some("no driver"), FOLDERS));
        let all = message(&registry, "m", &LoadOptions::default());
        assert_eq!(
            all,
            "no backend is available on this hardware: metal (not a Mac); rocm (no driver)"
        );
    }

    #[test]
    fn registering_again_replaces() {
        let registry = Registry::new();
        registry.register(Fixed("cpu", Some("old"), FOLDERS));
        registry.register(Fixed("cpu", None, FOLDERS));
        assert_eq!(registry.list(), ["cpu"]);
        assert!(message(&registry, "m", &LoadOptions::default()).contains("cpu was chosen"));
    }
}
