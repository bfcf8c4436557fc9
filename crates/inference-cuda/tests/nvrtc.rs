//! NVRTC compiles every kernel, with no card. Skipped, with a line that says so, where it is not installed.
#![cfg(any(target_os = "linux", target_os = "windows"))]

use inference_cuda::nvrtc::{Compiler, Nvrtc, NvrtcError, options};
use inference_gpu::Module;
use std::{fs, path::PathBuf, time::Instant};

/// Any driver's: the newest NVRTC that is there.
const NEWEST: u32 = 13;

fn nvrtc() -> Option<&'static Nvrtc> {
    Nvrtc::open(NEWEST, 80).map_err(|error| println!("skipped: {error}")).ok()
}

/// Compiles every module for compute capability `arch`, and gives what the assembler says of spilled registers.
fn compile_all(nvrtc: &Nvrtc, arch: u32) -> Vec<String> {
    let name = nvrtc.arch_for(arch).expect("it is asked for what it knows");
    let (mut spilled, start) = (Vec::new(), Instant::now());
    for module in Module::all() {
        let mut options = options(&name, &module.defines());
        options.push("--ptxas-options=-v".to_owned());
        let compiled = nvrtc.compile_and_log(&module.source(), &options);
        let (code, log) = compiled.unwrap_or_else(|e| panic!("{module} for {name}: {e}"));
        match name.starts_with("sm_") {
            true => assert!(code.starts_with(b"\x7fELF"), "{module} for {name}"),
            false => assert!(code.ends_with(b"\0") && !code.starts_with(b"\x7fELF")),
        }
        let spills =
            |line: &&str| line.contains("spill stores") && !line.contains(" 0 bytes spill stores");
        spilled.extend(log.lines().filter(spills).map(|line| format!("{module}: {}", line.trim())));
    }
    println!("{name}: {:.0?}, spilled {spilled:?}", start.elapsed());
    spilled
}

#[test]
fn all_kernels_compile_for_cards_that_are_not_there_and_spill_nothing() {
    let Some(nvrtc) = nvrtc() else { return };
    println!("NVRTC {:?} at {}, {:?}", nvrtc.version, nvrtc.path.display(), nvrtc.archs);
    for arch in [80, 90] {
        assert_eq!(compile_all(nvrtc, arch), [""; 0]);
    }
}

#[test]
#[ignore = "takes minutes"]
fn all_kernels_compile_for_every_architecture() {
    let Some(nvrtc) = nvrtc() else { return };
    for arch in nvrtc.archs.iter().copied().filter(|arch| *arch >= 50) {
        compile_all(nvrtc, arch);
    }
}

#[test]
fn a_card_that_the_compiler_does_not_know_gets_ptx() {
    let Some(nvrtc) = nvrtc() else { return };
    let newest = nvrtc.archs.last().copied().expect("it knows some");
    let name = nvrtc.arch_for(newest + 1).expect("the one before it");
    assert_eq!(name, format!("compute_{newest}"));
    let module = Module::Elementwise;
    let code = nvrtc.compile(&module.source(), &options(&name, &[])).expect("it compiles");
    let text = String::from_utf8_lossy(&code);
    assert!(text.contains(&format!(".target sm_{newest}")) && text.ends_with('\0'));
    assert!(matches!(nvrtc.arch_for(10), Err(NvrtcError::DeviceTooOld { arch: 10, .. })));
}

#[test]
fn kernels_are_compiled_once_for_each_kind_of_card() {
    let Some(nvrtc) = nvrtc() else { return };
    let folder = tempfile::tempdir().expect("a temporary folder");
    let entries = || -> Vec<PathBuf> {
        fs::read_dir(folder.path()).expect("it is there").flatten().map(|e| e.path()).collect()
    };
    let compile = |arch, defines: &[String], fits: bool| {
        let compiler = Compiler::with_cache_in(nvrtc, arch, Some(folder.path())).expect("known");
        let asked = std::cell::Cell::new(0);
        let ask = |_: &[u8]| {
            asked.set(asked.get() + 1);
            fits
        };
        let source = Module::Elementwise.source();
        let code = compiler.compile(&source, defines, ask).expect("it compiles");
        (code, asked.get())
    };
    let (first, asked) = compile(80, &[], true);
    assert_eq!((asked, entries().len()), (0, 1), "nothing was there");
    assert!(compile(80, &[], true) == (first.clone(), 1), "from the disk");
    assert!(compile(80, &[], false).0.len() == first.len(), "what does not fit is made again");
    assert!(compile(90, &[], true).0 != first);
    compile(80, &["-DX=1".to_owned()], true);
    assert_eq!(entries().len(), 3, "another card, other defines");
    for entry in entries() {
        fs::write(entry, b"damaged").expect("it can be written");
    }
    assert!(compile(80, &[], true) == (first, 0));
}

#[test]
fn the_compiler_s_words_are_told() {
    let Some(nvrtc) = nvrtc() else { return };
    let option = ["--gpu-architecture=sm_80".to_owned()];
    let error = nvrtc.compile("void f() { nonsense; }", &option).expect_err("it is wrong");
    assert!(error.to_string().contains("nonsense"), "{error}");
    let error = nvrtc.compile("", &["--no-such-option".to_owned()]).expect_err("it is wrong");
    assert!(matches!(error, NvrtcError::Failed { .. }), "{error}");
    assert!(matches!(nvrtc.compile("\0", &option), Err(NvrtcError::Zero)));
}

#[test]
fn threads_that_compile_at_once_get_the_code_of_their_own() {
    let Some(nvrtc) = nvrtc() else { return };
    let compile = &|arch: &str| {
        let module = Module::Elementwise;
        nvrtc.compile(&module.source(), &options(arch, &[])).expect("it compiles")
    };
    let archs = ["sm_75", "sm_80", "sm_90"];
    let alone = archs.map(compile);
    std::thread::scope(|scope| {
        for (arch, alone) in archs.iter().zip(&alone) {
            scope.spawn(move || assert!(compile(arch) == *alone, "{arch}"));
        }
    });
}
