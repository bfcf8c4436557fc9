use super::*;

fn tree(files: &[&str]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("a temporary folder");
    for file in files {
        let path = root.path().join(file);
        fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("it can be made");
        fs::write(path, "").expect("it can be written");
    }
    root
}

fn found(root: &Path, variables: &[(&str, &str)]) -> Vec<String> {
    let variable = |name: &str| {
        variables
            .iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| root.join(value).into_os_string())
    };
    let candidates = Places::new(&variable, root).candidates();
    let relative = |path: &PathBuf| path.strip_prefix(root).unwrap_or(path).display().to_string();
    candidates.iter().map(relative).collect()
}

#[test]
fn folders_are_searched_in_order_and_versioned_names_first() {
    let root = tree(&[
        "opt/rocm-6.4.1/lib/libamdhip64.so.6",
        "opt/rocm-7.10.0/lib/libamdhip64.so.7",
        "opt/rocm-7.9.0/lib/libamdhip64.so.7",
        "opt/rocm/lib/libamdhip64.so",
        "opt/rocm/lib/libamdhip64.so.5",
        "usr/lib64/libamdhip64.so.6",
        "env/lib/python3.12/site-packages/_rocm_sdk_core/lib/libamdhip64.so.7",
        "mine/lib/libamdhip64.so.6",
        "other/libamdhip64.so.7",
    ]);
    let all = found(root.path(), &[("ROCM_PATH", "mine"), ("VIRTUAL_ENV", "env")]);
    let names: Vec<String> = names("libamdhip64").collect();
    assert_eq!(all[0], "mine/lib/libamdhip64.so.6");
    assert_eq!(all[1..=names.len()], names);
    assert_eq!(
        all[1 + names.len()..],
        [
            "opt/rocm/lib/libamdhip64.so.5",
            "opt/rocm/lib/libamdhip64.so",
            "opt/rocm-7.10.0/lib/libamdhip64.so.7",
            "opt/rocm-7.9.0/lib/libamdhip64.so.7",
            "opt/rocm-6.4.1/lib/libamdhip64.so.6",
            "usr/lib64/libamdhip64.so.6",
            "env/lib/python3.12/site-packages/_rocm_sdk_core/lib/libamdhip64.so.7",
        ]
    );
    let only = found(root.path(), &[("ROCM_PATH", "mine"), (LIB_DIR, "other")]);
    assert_eq!(only, ["other/libamdhip64.so.7"]);
}

#[test]
fn what_is_missing_and_what_is_broken_are_two_errors() {
    let root = tree(&["broken/libamdhip64.so.7"]);
    let missing = Hip::open(&Places::only(root.path().join("none"))).expect_err("nothing is there");
    assert!(matches!(&missing, LoadError::NotFound { tried } if tried.len() == 1), "{missing}");
    assert!(missing.to_string().contains("libamdhip64-7"), "{missing}");
    let broken = Hip::open(&Places::only(root.path().join("broken"))).expect_err("an empty file");
    assert!(matches!(&broken, LoadError::Refused { reason, .. } if !reason.is_empty()), "{broken}");
}

#[test]
fn a_version_is_read_from_its_number() {
    let version = Version::from_number(70_253_211);
    assert_eq!(version, Version { major: 7, minor: 2, patch: 53211 });
    assert_eq!(version.to_string(), "7.2.53211");
    assert!(
        Version::from_number(50_221_153) >= OLDEST && Version::from_number(50_100_000) < OLDEST
    );
    assert_eq!(Version::from_number(-1).major, 0);
}
