//! What is of a process: its variables, the libraries that it opens, and compiling in another one. It has its own `main`,
//! which takes part in that, and starts itself again with other variables.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod common;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() {
    inference_rocm::compile_if_asked();
    if let Ok(how) = std::env::var("FAKE_HIP_COMPILE") {
        return tests::with_compiler_that(&how);
    }
    if let Some(folder) = std::env::var_os(tests::COMPILES_IN) {
        return tests::it_compiles_in(folder.as_ref());
    }
    if let Ok(what) = std::env::var(tests::EXPECTED) {
        return tests::the_backend_is(&what);
    }
    tests::in_another_process_it_compiles();
    tests::again_with("abort");
    tests::again_with("fail");
    tests::again_with("hang");
    tests::options_that_hiprtc_adds_make_other_kernels();
    tests::a_real_compiler_that_dies_is_told();
    tests::the_backend_says_what_is_there();
    println!("ok");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::common::{ADD, Fake};
    use inference_core::{
        Availability, Backend as _, DeviceChoice, Error, GenerateOptions, LoadOptions,
    };
    use inference_rocm::{
        RocmBackend,
        compile::{CompileError, Compiler},
        hip::{DeviceInfo, Hip, HipModule, Places},
    };
    use inference_tests::fixtures;
    use std::{
        env, fs,
        path::Path,
        process::Command,
        time::{Duration, Instant},
    };

    /// A card that no release is known to know.
    fn unknown() -> Option<Fake> {
        let fake = Fake::new()?;
        fake.arch("gfx1310");
        Some(fake)
    }

    fn compile(fake: &Fake, source: &str) -> Result<Vec<u8>, CompileError> {
        let device = fake.device();
        let compiler = Compiler::with_cache_in(device.hip(), device.info(), None);
        // Those that end do so within a second.
        let hangs = env::var("FAKE_HIP_COMPILE").is_ok_and(|how| how == "hang");
        let compiler =
            if hangs { compiler.with_patience(Duration::from_millis(200)) } else { compiler };
        compiler.compile(source, &["-DX=1".to_owned()], |_| true)
    }

    pub(super) fn in_another_process_it_compiles() {
        let Some(fake) = unknown() else { return };
        let code = compile(&fake, ADD).expect("it compiles");
        assert_eq!(fake.compiled(), 0, "not in this one");
        let module = HipModule::load(&fake.device(), code).expect("it is for this card");
        module.function("add").expect("it is in there");
    }

    /// Runs this test again, with a compiler that fails in some way in every process.
    pub(super) fn again_with(how: &str) {
        let itself = env::current_exe().expect("it has a file");
        let status = Command::new(itself).env("FAKE_HIP_COMPILE", how).status();
        assert!(status.expect("it starts").success(), "with a compiler that {how}s");
    }

    pub(super) fn with_compiler_that(how: &str) {
        let Some(fake) = unknown() else { return };
        let start = Instant::now();
        let error = compile(&fake, "nonsense").expect_err("it fails");
        match (how, &error) {
            ("abort", CompileError::Died { arch, how, .. }) => {
                assert!(arch == "gfx1310" && how.contains("LLVM ERROR"), "{error}");
                assert!(how.contains("signal: 6"), "{error}");
            }
            ("hang", CompileError::Died { arch, how, .. }) => {
                assert!(arch == "gfx1310" && how == "no result in 200ms", "{error}");
                assert!(start.elapsed() < Duration::from_secs(60), "it was waited for");
            }
            ("fail", CompileError::Process(words)) => {
                assert!(words.contains("nonsense"), "{error}")
            }
            _ => panic!("{how}: {error}"),
        }
    }

    /// Names the folder of a stand-in to compile with.
    pub(super) const COMPILES_IN: &str = "COMPILES_IN";

    pub(super) fn options_that_hiprtc_adds_make_other_kernels() {
        let Some(fake) = Fake::new() else { return };
        let names = ["HIPRTC_COMPILE_OPTIONS_APPEND", "HIPRTC_LINK_OPTIONS_APPEND"];
        for (entries, set) in [(1, None), (1, None), (2, Some(names[0])), (3, Some(names[1]))] {
            let mut command = Command::new(env::current_exe().expect("it has a file"));
            for name in names {
                command.env_remove(name);
            }
            command.env(COMPILES_IN, fake.folder()).envs(set.map(|name| (name, "-O1")));
            assert!(command.status().expect("it starts").success());
            let kept = fake.cache().read_dir().expect("it was made").count();
            assert_eq!(kept, entries, "{set:?}");
        }
    }

    pub(super) fn it_compiles_in(folder: &Path) {
        let hip = Hip::open(&Places::only(folder)).expect("it is whole");
        let device = DeviceInfo::read(hip, 0).expect("it has a device");
        let cache = folder.join("cache");
        let compiler = Compiler::with_cache_in(hip, &device, Some(&cache));
        compiler.compile(ADD, &[], |_| true).expect("it compiles");
    }

    /// What the backend is expected to say: a part of its sentence, or that it runs.
    pub(super) const EXPECTED: &str = "EXPECTED";
    const RUNS: &str = "it runs";

    pub(super) fn the_backend_says_what_is_there() {
        let itself = || {
            let mut command = Command::new(env::current_exe().expect("it has a file"));
            for name in ["INFERENCE_ROCM_LIB_DIR", "HIP_VISIBLE_DEVICES"] {
                command.env_remove(name);
            }
            command
        };
        let check = |expected: &str, variables: &[(&str, &Path)]| {
            let mut command = itself();
            command.env(EXPECTED, expected).envs(variables.iter().copied());
            assert!(command.status().expect("it starts").success(), "{expected}");
        };
        let nothing = tempfile::tempdir().expect("a temporary folder");
        let place = ("INFERENCE_ROCM_LIB_DIR", nothing.path());
        check("(libamdhip64.so) is not installed", &[place]);
        if !Path::new("/sys/class/kfd").exists() && !Path::new("/dev/dxg").exists() {
            check("AMD GPU", &[]);
        }
        if let Ok(hip) = Hip::open(&Places::new(&|_| None, Path::new("/")))
            && !Path::new("/dev/kfd").exists()
        {
            let place =
                ("INFERENCE_ROCM_LIB_DIR", hip.path.parent().expect("a file is in a folder"));
            let version = hip.version.to_string();
            check(&format!("HIP {version} does not see the GPU"), &[place]);
            let hidden = ("HIP_VISIBLE_DEVICES", Path::new("7"));
            check("HIP_VISIBLE_DEVICES=7 is set: unset it", &[place, hidden]);
        }
        let Some(fake) = Fake::new() else { return };
        let (place, cache) = (("INFERENCE_ROCM_LIB_DIR", fake.folder()), fake.cache());
        check(RUNS, &[place, ("INFERENCE_ROCM_CACHE_DIR", &cache)]);
        assert!(cache.read_dir().is_ok_and(|entries| entries.count() > 2), "kernels are kept");
    }

    pub(super) fn the_backend_is(expected: &str) {
        let backend = RocmBackend;
        if expected != RUNS {
            let Availability::Unavailable(reason) = backend.availability() else {
                panic!("it should not run: {expected}");
            };
            assert!(reason.contains(expected), "{reason}");
            assert!(RocmBackend.report().contains(expected));
            assert!(backend.devices().is_empty());
            let loaded = backend.load(&fixtures::path("llama"), &LoadOptions::default());
            assert!(
                matches!(loaded, Err(Error::BackendNotAvailable { reason: r, .. }) if r == reason)
            );
            if env::var_os("INFERENCE_ROCM_LIB_DIR").is_none() {
                let maps = fs::read_to_string("/proc/self/maps").expect("Linux has it");
                assert!(!maps.contains("libamdhip64"), "no library is opened in vain");
            }
            return;
        }
        assert_eq!(backend.availability(), Availability::Available);
        let devices = backend.devices();
        assert_eq!((devices.len(), devices[0].id.as_str()), (1, "0000:03:00.0"));
        assert_eq!((devices[0].memory, devices[0].available), (1 << 30, 1 << 30));
        assert!(RocmBackend.report().contains("rocm:0 Stand-in, gfx1100"));
        let options = LoadOptions::default().context_len(64).memory_limit(1 << 29);
        for id in [None, Some("rocm:0"), Some("0000:03:00.0"), Some("rocm:1")] {
            let mut options = options.clone();
            options.device = id.map(|id| DeviceChoice::Id(id.to_owned()));
            let model = backend.load(&fixtures::path("llama"), &options);
            if id == Some("rocm:1") {
                assert!(matches!(model, Err(Error::InvalidOption { option: "device", .. })));
                continue;
            }
            let model = model.expect("it is there");
            assert_eq!(
                (model.info().backend.as_str(), model.info().device.as_str()),
                ("rocm", "Stand-in")
            );
            let options = GenerateOptions::default().max_tokens(2);
            let text = model.generate("one", &options).and_then(|stream| stream.finish());
            text.expect("it generates");
        }
    }

    /// Debian 12's hiprtc ends its process when asked for MI300's architecture.
    pub(super) fn a_real_compiler_that_dies_is_told() {
        let hip = match Hip::open(&Places::new(&|_| None, Path::new("/"))) {
            Ok(hip) if hip.version.major == 5 && hip.compiler.is_ok() => hip,
            other => return println!("skipped: no HIP 5, but {other:?}"),
        };
        let device = DeviceInfo {
            ordinal: 0,
            name: String::new(),
            target: "gfx942".to_owned(),
            pci: String::new(),
            uuid: None,
            wave: 64,
            multiprocessors: 304,
            shared_bytes: 65_536,
            max_block: 1024,
            integrated: false,
            memory: 0,
        };
        let compiler = Compiler::with_cache_in(hip, &device, None);
        match compiler.compile(ADD, &[], |_| true).expect_err("it does not know this card") {
            error @ CompileError::Died { .. } => println!("as it should: {error}"),
            other => panic!("{other}"),
        }
    }
}
