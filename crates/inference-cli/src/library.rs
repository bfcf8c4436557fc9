//! Where backends come from.

use inference::Registry;

/// The backends of this build.
pub(crate) fn registry() -> &'static Registry {
    static EMPTY: std::sync::LazyLock<Registry> = std::sync::LazyLock::new(Registry::new);
    &EMPTY
}
