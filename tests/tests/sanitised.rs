//! The GPU kernels under the sanitizers of addresses and of undefined behaviour, every piece of memory apart from all others.
//!
//! These need their library to be there before anything else, and end the process: so each test runs another one, in a
//! process of its own.

use inference_engine::check::{
    Tolerance, check_answers, check_attention, check_operations, check_products,
};
use inference_gpu::{
    Driver, Gpu, Launch, args,
    cpu::{CpuDriver, Order, sanitizer},
};
use inference_tests::gpu;
use std::{env, process::Command, thread};

/// Which driver the other process makes.
const ARCH: &str = "INFERENCE_TEST_SANITISED";

/// Where products of all forms of weights are sanitised in every run: compiling them takes longest.
const PRODUCTS: &str = "gfx1100";

/// Runs the test `name` of this file; gives whether it succeeded, and its last words. `None`, and a line that says so, where
/// there are no sanitizers.
fn elsewhere(name: &str, arch: &str) -> Option<(bool, String)> {
    let Some(library) = sanitizer() else {
        println!("skipped: no GCC ($CXX, c++) with sanitizers to compile the GPU kernels with");
        return None;
    };
    let output = Command::new(env::current_exe().expect("this is a program"))
        .args(["--exact", name, "--ignored", "--nocapture", "--test-threads=1"])
        .env("LD_PRELOAD", library)
        .env("ASAN_OPTIONS", "detect_leaks=0:detect_stack_use_after_return=0")
        .env("UBSAN_OPTIONS", "print_stacktrace=1")
        .env(ARCH, arch)
        .output()
        .expect("it can be started");
    let words = String::from_utf8_lossy(&output.stderr).chars().take(6000).collect();
    let ran = String::from_utf8_lossy(&output.stdout).contains("1 passed");
    Some((output.status.success() && ran, words))
}

/// The driver of a test that another one started; `None` where that is not so.
fn driver() -> Option<CpuDriver> {
    let arch = env::var(ARCH).ok()?;
    Some(CpuDriver::sanitising(&arch, Order::Random).expect("there are sanitizers"))
}

#[test]
fn kernels_stay_in_their_memory_and_do_what_is_defined() {
    thread::scope(|scope| {
        for arch in ["gfx1100", "gfx90a", "sm_80"] {
            scope.spawn(move || {
                let fine = elsewhere("every_operation", arch);
                assert!(fine.as_ref().is_none_or(|fine| fine.0), "{arch}: {fine:?}");
            });
        }
    });
}

#[test]
#[ignore = "another test runs it"]
fn every_operation() {
    let driver = driver().expect("another test has started this one");
    let gpu = Gpu::new(driver, 256).expect("compiles");
    check_operations(&gpu, Tolerance::default()).expect("is right");
    if gpu.driver().target().arch == PRODUCTS {
        check_products(&gpu, Tolerance::default()).expect("is right");
    }
    check_attention(&gpu, Tolerance::default()).expect("is right");
    check_answers(&gpu).expect("is right");
}

/// The kinds that are not in every run, and all products.
#[test]
#[ignore = "takes some minutes"]
fn kernels_of_all_kinds_stay_in_their_memory_and_do_what_is_defined() {
    let others = gpu::kinds(0).map(|(arch, _)| arch).filter(|arch| *arch != PRODUCTS);
    thread::scope(|scope| {
        for arch in others {
            scope.spawn(move || {
                for name in ["every_operation", "every_product"] {
                    let fine = elsewhere(name, arch);
                    assert!(fine.as_ref().is_none_or(|fine| fine.0), "{name}, {arch}: {fine:?}");
                    println!("{name}, {arch}: {}", if fine.is_some() { "fine" } else { "skipped" });
                }
            });
        }
    });
}

#[test]
#[ignore = "another test runs it"]
fn every_product() {
    let driver = driver().expect("another test has started this one");
    let gpu = Gpu::new(driver, 256).expect("compiles");
    check_products(&gpu, Tolerance::default()).expect("is right");
}

#[test]
fn what_reaches_beyond_its_memory_is_seen() {
    for (name, word) in [
        ("beyond_global_memory", "heap-buffer-overflow"),
        ("beyond_a_piece", "heap-buffer-overflow"),
        ("beyond_shared_memory", "global-buffer-overflow"),
        ("beyond_a_shift", "shift exponent"),
        ("misaligned", "misaligned address"),
    ] {
        let Some((fine, words)) = elsewhere(name, "gfx1100") else { return };
        assert!(!fine && words.contains(word), "{name}: {words}");
    }
}

/// Runs a kernel on 64 numbers.
fn run(body: &str) {
    let Some(driver) = driver() else { return };
    let portable = include_str!("../../crates/inference-gpu/kernels/portable.h");
    let source = format!("{portable}\nKERNEL(64) wrong(float *y, u32 n) {{ {body} }}");
    let kernels = driver.compile(&source, &[], &["wrong"]).expect("compiles");
    let buffer = driver.alloc(64 * 4).expect("fits");
    let address = driver.address(&buffer);
    // SAFETY: not so, which the sanitizer is to see.
    unsafe { driver.launch(&kernels[0], Launch::new(1, 64), args![address, 64_u32]) }
        .expect("ends before");
}

#[test]
#[ignore = "another test runs it"]
fn beyond_global_memory() {
    run("y[TID + 1] = 0;");
}

#[test]
#[ignore = "another test runs it"]
fn beyond_shared_memory() {
    run(
        "SHARED float s[64]; SHARED float t[64]; float *volatile q = s; float *p = q; p[TID + n / 63] = 1; sync_block(); y[TID] = p[TID] + t[TID];",
    );
}

#[test]
#[ignore = "another test runs it"]
fn beyond_a_shift() {
    run("y[TID] = (float)(1u << (n - TID));");
}

#[test]
#[ignore = "another test runs it"]
fn misaligned() {
    run("f32x4 v = *(f32x4 *)(y + 1 + TID / n); y[TID] = v.x;");
}

/// In memory that goes round, pieces would be neighbours.
#[test]
#[ignore = "another test runs it"]
fn beyond_a_piece() {
    use inference_engine::{device::Device, step::Step};
    let Some(driver) = driver() else { return };
    let gpu = Gpu::new(driver, 256).expect("compiles");
    let vector = gpu.vector(&[1.0; 3]).expect("fits");
    let table =
        inference_engine::check::raw(inference_engine::weights::DType::F32, &[2, 4], &[0.5; 8]);
    let table = gpu.load_linear(&[table.into()], None).expect("fits");
    let mut step = Step::default();
    step.push(&[0, 1], 0, 2, &[], 0);
    let step = gpu.begin(&step, &[]).expect("fits");
    let x = gpu.embed(&table, 1.0, &step).expect("runs");
    // Four numbers of the second operand are read, of which there are three.
    gpu.add(x, &vector).expect("ends before");
}
