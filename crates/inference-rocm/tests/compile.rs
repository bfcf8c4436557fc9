//! Compiling with the stand-in's compiler, and keeping what it made.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;

use common::{ADD, Fake};
use inference_rocm::{
    compile::{CompileError, Compiler},
    hip::{HipModule, sys},
};
use std::{fs, path::PathBuf};

fn compiler(fake: &Fake) -> Compiler {
    let device = fake.device();
    Compiler::with_cache_in(device.hip(), device.info(), Some(&fake.cache()))
}

fn entries(fake: &Fake) -> Vec<PathBuf> {
    fs::read_dir(fake.cache()).into_iter().flatten().flatten().map(|e| e.path()).collect()
}

#[test]
fn kernels_are_compiled_once() {
    let Some(fake) = Fake::new() else { return };
    let compile = |source: &str, defines: &[&str]| {
        let defines: Vec<_> = defines.iter().map(|d| (*d).to_owned()).collect();
        compiler(&fake).compile(source, &defines, |_| true).expect("it compiles")
    };
    let first = compile(ADD, &[]);
    assert_eq!((fake.compiled(), entries(&fake).len()), (1, 1));
    assert_eq!(compile(ADD, &[]), first);
    assert_eq!(fake.compiled(), 1, "from the disk");
    compile(ADD, &["-DONE=1"]);
    compile(ADD, &["-DONE=1", "-DTWO=1"]);
    compile(&format!("{ADD}\n"), &[]);
    assert_eq!(fake.compiled(), 4, "other defines, another source");
    fake.arch("gfx1101");
    compile(ADD, &[]);
    assert_eq!((fake.compiled(), entries(&fake).len()), (5, 5), "another card");
}

#[test]
fn kernels_are_compiled_again_when_the_library_below_the_compiler_is_another() {
    let Some(fake) = Fake::new() else { return };
    for (times, text) in [(1, "an LLVM"), (1, "an LLVM"), (2, "a newer LLVM")] {
        fs::write(fake.folder().join("libamd_comgr.so.3"), text).expect("it can be written");
        let library =
            fs::File::options().append(true).open(fake.folder().join("libamd_comgr.so.3"));
        let library = library.expect("it is there");
        library.set_modified(std::time::UNIX_EPOCH).expect("it can be set");
        compiler(&fake).compile(ADD, &[], |_| true).expect("it compiles");
        assert_eq!(fake.compiled(), times, "{text}");
    }
}

#[test]
fn a_damaged_or_unfit_entry_is_made_again() {
    let Some(fake) = Fake::new() else { return };
    let compile = |fits: bool| compiler(&fake).compile(ADD, &[], |_| fits).expect("it compiles");
    let first = compile(true);
    let entry = entries(&fake).pop().expect("it was kept");
    let mut bytes = fs::read(&entry).expect("it is there");
    *bytes.last_mut().expect("it has some") ^= 1;
    fs::write(&entry, bytes).expect("it can be written");
    assert_eq!(compile(true).len(), first.len());
    assert_eq!(fake.compiled(), 2, "a damaged one");
    compile(false);
    assert_eq!(fake.compiled(), 3, "one that the card does not take");
    compile(true);
    assert_eq!(fake.compiled(), 3);
}

#[test]
fn a_cache_that_cannot_be_written_costs_time_alone() {
    let Some(fake) = Fake::new() else { return };
    fs::write(fake.cache(), "a file, no folder").expect("it can be written");
    for times in 1..3 {
        compiler(&fake).compile(ADD, &[], |_| true).expect("it compiles");
        assert_eq!(fake.compiled(), times);
    }
}

#[test]
fn what_the_compiler_says_is_told() {
    let Some(fake) = Fake::new() else { return };
    let error = compiler(&fake).compile("void f() { nonsense; }", &[], |_| true);
    let error = error.expect_err("it is wrong").to_string();
    assert!(error.contains("nonsense") && error.contains("kernels.hip"), "{error}");
    let error = compiler(&fake).compile("a\0b", &[], |_| true).expect_err("it is wrong");
    assert!(error.to_string().contains("zero byte"), "{error}");
    assert!(entries(&fake).is_empty() && fake.alive() == 0);
}

#[test]
fn every_call_of_the_compiler_may_fail() {
    let Some(fake) = Fake::new() else { return };
    let compiler = compiler(&fake);
    for name in sys::Compiler::REQUIRED {
        fake.fail(name, 0, 3);
        let source = format!("{ADD}// {name}");
        let result = compiler.compile(&source, &[], |_| true);
        if fake.is_pending(name) {
            // Not called where all goes well.
            let unused = ["hiprtcVersion", "hiprtcGetErrorString"].contains(name);
            assert!(unused || name.contains("Log"), "{name} is never called");
        } else if *name == "hiprtcDestroyProgram" {
            result.expect("the code is there");
        } else {
            let error = result.expect_err("a fault was set");
            assert!(matches!(error, CompileError::Refused(_)), "{name}: {error}");
        }
        assert_eq!(fake.alive(), 0, "after {name}");
    }
    for name in ["hiprtcGetProgramLogSize", "hiprtcGetProgramLog"] {
        fake.fail(name, 0, 3);
        let error = compiler.compile("wrong", &[], |_| true).expect_err("it is wrong");
        assert!(!fake.is_pending(name) && error.to_string().contains("(6)"), "{error}");
        assert_eq!(fake.alive(), 0, "after {name}");
    }
}

#[test]
fn a_card_that_the_compiler_may_not_know_is_refused() {
    let Some(fake) = Fake::new() else { return };
    for (version, arch, sentence) in [
        (50_221_153, "gfx1100", "HIP 5.2.21153 may not know gfx1100, which came with 5.5"),
        (70_253_211, "gfx1310", "HIP 7.2.53211 may not know gfx1310, and asking"),
    ] {
        fake.set("version", version);
        fake.arch(arch);
        let error = compiler(&fake).compile(ADD, &[], |_| true).expect_err("it may not be asked");
        assert!(error.to_string().contains(sentence), "{error}");
        assert_eq!(fake.compiled(), 0);
    }
}

#[test]
fn what_is_no_code_object_is_not_loaded() {
    let Some(fake) = Fake::new() else { return };
    let device = fake.device();
    let code = compiler(&fake).compile(ADD, &[], |_| true).expect("it compiles");
    for wrong in [Vec::new(), b"no code".to_vec(), code[..code.len() - 1].to_vec()] {
        assert!(HipModule::load(&device, wrong).is_err());
    }
    assert_eq!(fake.alive(), 0);
}
