//! The real HIP, on a machine without a card: Debian's `libamdhip64-5` and `libhiprtc-builtins5`, or any other that is
//! installed. Skipped, with a line that says so, where none is, and where there is a card.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use inference_rocm::{
    compile::{CompileError, Compiler},
    hip::{DeviceInfo, Hip, HipError, Kind, Places, rtc},
};
use std::path::Path;

/// All that the backend compiles begins like this.
const KERNEL: &str = concat!(
    include_str!("../../inference-gpu/kernels/portable.h"),
    "
KERNEL(64) add(float *y, const float *x, float a, u32 n) {
    u32 i = BID_X * 64 + TID;
    if (i < n) y[i] += a * x[i];
}
"
);

fn hip() -> Option<&'static Hip> {
    let none = |_: &str| None;
    match Hip::open(&Places::new(&none, Path::new("/"))) {
        Ok(hip) => Some(hip),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn device(target: &str) -> DeviceInfo {
    DeviceInfo {
        ordinal: 0,
        name: "made up".to_owned(),
        target: target.to_owned(),
        pci: String::new(),
        uuid: None,
        wave: if target.starts_with("gfx9") { 64 } else { 32 },
        multiprocessors: 1,
        shared_bytes: 65_536,
        max_block: 1024,
        integrated: false,
        memory: 0,
    }
}

#[test]
fn all_functions_are_found_and_no_card_is_an_error_of_its_kind() {
    let Some(hip) = hip() else { return };
    assert!(hip.version.major >= 5 && hip.path.is_absolute(), "{hip:?}");
    match DeviceInfo::all(hip) {
        Err(error) => {
            assert_eq!(error.kind(), Kind::NoDevice, "{error}");
            assert!(matches!(&error, HipError::Call { name, .. } if name.starts_with("hipError")));
        }
        Ok(all) => println!("skipped: there are {} cards", all.len()),
    }
}

#[test]
fn the_compiler_compiles_for_cards_that_are_not_there() {
    let Some(hip) = hip() else { return };
    if let Err(reason) = &hip.compiler {
        println!("skipped: {reason}");
        return;
    }
    for target in ["gfx906", "gfx90a:sramecc+:xnack-", "gfx1030"] {
        let compiler = Compiler::with_cache_in(hip, &device(target), None);
        let code = compiler.compile(KERNEL, &["-DX=1".to_owned()], |_| true);
        let code = code.unwrap_or_else(|error| panic!("{target}: {error}"));
        assert!(code.starts_with(b"\x7fELF"), "{target}");
        let text = String::from_utf8_lossy(&code).into_owned();
        let arch = target.split(':').next().expect("a split has a first part");
        assert!(text.contains(&format!("amdgcn-amd-amdhsa--{arch}")), "{target}");
    }
}

#[test]
fn all_kernels_compile_for_cards_that_are_not_there() {
    let Some(hip) = hip().filter(|hip| hip.compiler.is_ok()) else { return };
    for target in ["gfx906", "gfx90a", "gfx1030"] {
        let compiler = Compiler::with_cache_in(hip, &device(target), None);
        for module in inference_gpu::Module::all() {
            let code = compiler.compile(&module.source(), &module.defines(), |_| true);
            code.unwrap_or_else(|error| panic!("{module} for {target}: {error}"));
        }
    }
}

#[test]
fn threads_that_compile_at_once_get_the_code_of_their_own() {
    let Some(hip) = hip().filter(|hip| hip.compiler.is_ok()) else { return };
    let compile = &|target: &str| {
        let compiler = Compiler::with_cache_in(hip, &device(target), None);
        compiler.compile(KERNEL, &[], |_| true).expect("it compiles")
    };
    let targets = ["gfx906", "gfx90a", "gfx1030"];
    let alone = targets.map(compile);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            for (target, alone) in targets.iter().zip(&alone) {
                scope.spawn(move || assert!(compile(target) == *alone, "{target}"));
            }
        }
    });
}

#[test]
fn the_compiler_s_words_are_told() {
    let Some(hip) = hip().filter(|hip| hip.compiler.is_ok()) else { return };
    let compiler = Compiler::with_cache_in(hip, &device("gfx906"), None);
    let error = compiler.compile("void f() { nonsense; }", &[], |_| true).expect_err("it is wrong");
    assert!(matches!(error, CompileError::Refused(rtc::CompileError::Failed { .. })), "{error}");
    assert!(error.to_string().contains("nonsense"), "{error}");
}
