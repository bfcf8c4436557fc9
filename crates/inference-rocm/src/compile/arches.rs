//! Which version of HIP came with a compiler that knows which architecture.

use crate::hip::Version;

/// Architectures, and the first HIP (major, minor) whose compiler is known to compile for them: the releases of ROCm in
/// which AMD lists the cards. An older one may know them too; it is asked in a process of its own.
const SINCE: [(&str, u32, u32); 27] = [
    ("gfx900", 5, 2),
    ("gfx906", 5, 2),
    ("gfx908", 5, 2),
    ("gfx90a", 5, 2),
    ("gfx90c", 5, 2),
    ("gfx942", 6, 0),
    ("gfx950", 7, 0),
    ("gfx1010", 5, 2),
    ("gfx1011", 5, 2),
    ("gfx1012", 5, 2),
    ("gfx1030", 5, 2),
    ("gfx1031", 5, 2),
    ("gfx1032", 5, 2),
    ("gfx1033", 5, 2),
    ("gfx1034", 5, 2),
    ("gfx1035", 5, 2),
    ("gfx1036", 5, 5),
    ("gfx1100", 5, 5),
    ("gfx1101", 5, 5),
    ("gfx1102", 5, 5),
    ("gfx1103", 5, 7),
    ("gfx1150", 6, 4),
    ("gfx1151", 6, 4),
    ("gfx1152", 7, 0),
    ("gfx1153", 7, 0),
    ("gfx1200", 6, 4),
    ("gfx1201", 6, 4),
];

/// The first version that is known to know `arch`.
pub(super) fn oldest(arch: &str) -> Option<(u32, u32)> {
    SINCE.iter().find(|(name, ..)| *name == arch).map(|(_, major, minor)| (*major, *minor))
}

/// Whether the compiler of `version` is known to know `arch`.
pub(super) fn is_known(arch: &str, version: Version) -> bool {
    oldest(arch).is_some_and(|oldest| (version.major, version.minor) >= oldest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_compiler_knows_is_asked_of_it() {
        let debian = Version { major: 5, minor: 2, patch: 21153 };
        let newest = Version { major: 7, minor: 14, patch: 0 };
        for (arch, by_debian, by_newest) in [
            ("gfx906", true, true),
            ("gfx90a", true, true),
            ("gfx1030", true, true),
            ("gfx1100", false, true),
            ("gfx942", false, true),
            ("gfx950", false, true),
            ("gfx1250", false, false),
            ("", false, false),
        ] {
            assert_eq!(is_known(arch, debian), by_debian, "{arch}");
            assert_eq!(is_known(arch, newest), by_newest, "{arch}");
        }
    }
}
