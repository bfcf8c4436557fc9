use super::*;
use std::fs;

#[test]
fn a_device_is_compiled_for_or_else_the_one_before_it() {
    let known = [50, 61, 75, 80, 90];
    for (arch, expected) in [
        (90, Some("sm_90")),
        (61, Some("sm_61")),
        (89, Some("compute_80")),
        (120, Some("compute_90")),
        (37, None),
    ] {
        assert_eq!(arch_for(&known, arch).as_deref(), expected, "{arch}");
    }
    assert_eq!(arch_for(&[], 90), None);
}

#[cfg(target_os = "linux")]
#[test]
fn the_driver_s_version_is_tried_first_and_a_later_one_never() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let packages = dir.path().join("lib/python3.11/site-packages/nvidia/cuda_nvrtc/lib");
    fs::create_dir_all(&packages).expect("it can be made");
    for name in ["libnvrtc.so.11.2", "libnvrtc.so.12", "libnvrtc.so.13"] {
        fs::write(packages.join(name), "").expect("it can be written");
    }
    let environment = |name: &str| (name == "VIRTUAL_ENV").then(|| dir.path().to_owned());
    let found = candidates(12, &environment);
    let expected = [
        PathBuf::from("libnvrtc.so.12"),
        packages.join("libnvrtc.so.12"),
        PathBuf::from("libnvrtc.so.11.2"),
        packages.join("libnvrtc.so.11.2"),
    ];
    let found: Vec<_> = found.into_iter().filter(|p| !p.starts_with("/usr/local/cuda")).collect();
    assert_eq!(found, expected);

    let folder = |name: &str| (name == PLACE).then(|| packages.clone());
    assert_eq!(candidates(11, &folder), [packages.join("libnvrtc.so.11.2")]);
    let file = packages.join("libnvrtc.so.13");
    let file_alone = |name: &str| (name == PLACE).then(|| packages.join("libnvrtc.so.13"));
    assert_eq!(candidates(12, &file_alone), [file], "whoever names a file gets it");
}

#[test]
fn a_compiler_that_knows_the_device_is_taken_and_else_the_first_says_why() {
    let paths = ["13", "none", "12", "11"].map(PathBuf::from);
    let open = |path: &Path| path.to_string_lossy().parse::<u32>().map_err(|e| e.to_string());
    let pick = |arch| {
        let fits = |major: &u32| {
            let known = if *major == 13 { [75, 120] } else { [50, 90] };
            let unfit = NvrtcError::DeviceTooOld { arch, version: (*major, 0) };
            arch_for(&known, arch).map(drop).ok_or(unfit)
        };
        first(&paths, open, fits, |_| panic!("some open"))
    };
    assert_eq!(pick(90).ok(), Some(13));
    assert_eq!(pick(70).ok(), Some(12), "13 no longer knows it");
    let none = pick(35).expect_err("none knows it");
    assert!(matches!(none, NvrtcError::DeviceTooOld { version: (13, 0), .. }), "{none}");

    let junk = tempfile::NamedTempFile::new().expect("a temporary file");
    let missing = |reason| NvrtcError::Missing { place: None, cuda: 12, reason };
    let paths = [junk.path().to_owned(), PathBuf::from("nowhere")];
    let refuse = |path: &Path| Err::<u32, _>(path.display().to_string());
    let error = first(&paths, refuse, |_| Ok(()), missing).expect_err("none opens");
    assert!(error.to_string().contains(&*junk.path().to_string_lossy()), "{error}");
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_compiler_needs_is_found_beside_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let at = |name| dir.path().join(name);
    for name in
        ["libnvrtc.so.12", "libnvrtc-builtins.so.12.9", "libnvrtc-builtins.alt.so.12.9", "x"]
    {
        fs::write(at(name), "").expect("it can be written");
    }
    assert_eq!(builtins(&at("libnvrtc.so.12")), [at("libnvrtc-builtins.so.12.9")]);
    assert_eq!(builtins(Path::new("libnvrtc.so.12")), [""; 0].map(PathBuf::from));
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_missing_is_said_with_what_to_install() {
    let missing_of = |place: Option<&str>, cuda| {
        NvrtcError::Missing { place: place.map(PathBuf::from), cuda, reason: None }.to_string()
    };
    let missing = |place| missing_of(place, 13);
    assert!(missing_of(None, 11).contains("`libnvrtc11.2`"), "{}", missing_of(None, 11));
    for word in ["`pip install nvidia-cuda-nvrtc-cu12`", "LD_LIBRARY_PATH", PLACE, "`libnvrtc12`"] {
        assert!(missing(None).contains(word), "{word}");
    }
    let there = missing(Some("/there"));
    assert!(there.contains("no NVRTC for this driver at INFERENCE_CUDA_NVRTC=/there"), "{there}");
}

#[test]
fn a_file_that_is_no_library_is_refused() {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    assert!(Nvrtc::open_at(file.path()).is_err());
}
