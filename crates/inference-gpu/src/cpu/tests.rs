//! What the CPU driver notices in kernels that are wrong.

use super::{CpuDriver, Kernel, NEEDS, Order};
use crate::{
    args,
    driver::{Driver, Launch},
};
use inference_core::Result;
use std::ffi::c_void;

fn driver(arch: &str, order: Order) -> Option<CpuDriver> {
    let driver = CpuDriver::new(arch, order);
    if driver.is_none() {
        println!("skipped: {NEEDS}");
    }
    driver
}

fn run(
    driver: &CpuDriver,
    kernel: &Kernel,
    launch: Launch,
    args: &mut [*mut c_void],
) -> Result<()> {
    // SAFETY: the callers pass the one argument that each of these kernels has; buffers have a number for each thread.
    unsafe { driver.launch(kernel, launch, args) }
}

#[test]
fn what_goes_wrong_in_a_kernel_is_an_error_and_not_the_end() {
    let Some(driver) = driver("gfx1100", Order::Random) else { return };
    let source = "
        KERNEL(64) half_a_barrier(int n) { if (TID < (unsigned)n) sync_block(); }
        KERNEL(64) two_barriers(int n) {
          if (TID < (unsigned)n) sync_block();
          else
            sync_block();
        }
        KERNEL(64) half_an_exchange(float *y) { if (TID % 2) y[TID] = shfl_xor(y[TID], 1); else y[TID] = wave_sum(1); }
        KERNEL(64) unwritten(float *y) { SHARED float s[64]; y[TID] = s[TID]; }
        KERNEL(64) no_barrier(float *y) { SHARED float s[64]; s[TID] = 1; y[TID] = s[63 - TID]; }
    ";
    let names = ["half_a_barrier", "two_barriers", "half_an_exchange", "unwritten", "no_barrier"];
    let portable = include_str!("../../kernels/portable.h");
    let kernels = driver.compile(&format!("{portable}\n{source}"), &[], &names).expect("compiles");
    let launch = Launch::new(1, 64);
    for (kernel, n, fails) in
        [(0, 7_i32, true), (0, 64, false), (1, 32, true), (1, 64, false), (1, 7, true)]
    {
        let done = run(&driver, &kernels[kernel], launch, args![n]);
        assert_eq!(done.is_err(), fails, "{} of {n}", names[kernel]);
    }
    let buffer = driver.alloc(64 * 4).expect("fits");
    let address = driver.address(&buffer);
    assert!(run(&driver, &kernels[2], launch, args![address]).is_err());
    for kernel in [3, 4] {
        run(&driver, &kernels[kernel], launch, args![address]).expect("runs");
        let mut bytes = [0; 256];
        driver.download(&buffer, 0, &mut bytes).expect("reads");
        let numbers = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        assert!(numbers.into_iter().any(f32::is_nan), "{}", names[kernel]);
    }
    assert!(run(&driver, &kernels[0], Launch::new(1, 2048), args![1_i32]).is_err());
    assert!(driver.upload(&buffer, 250, &[0; 7]).is_err());
    assert!(driver.compile("KERNEL(1) a() { nonsense }", &[], &["a"]).is_err());
}

#[test]
fn what_is_recorded_runs_when_it_is_replayed_with_the_arguments_of_then() {
    let Some(driver) = driver("gfx906", Order::Reverse) else { return };
    let portable = include_str!("../../kernels/portable.h");
    let source = "KERNEL(64) add(float *y, float x) { y[TID] += x; }";
    let kernels =
        driver.compile(&format!("{portable}\n{source}"), &[], &["add"]).expect("compiles");
    let buffer = driver.alloc(64 * 4).expect("fits");
    driver.upload(&buffer, 0, &[0; 256]).expect("fits");
    let address = driver.address(&buffer);
    let mut twice = || -> Result<()> {
        for x in [1.0_f32, 2.0] {
            // SAFETY: the kernel's two parameters, and a number for each thread.
            unsafe { driver.launch(&kernels[0], Launch::new(1, 64), args![address, x]) }?;
        }
        Ok(())
    };
    let graph = driver.capture(&mut twice).expect("records").expect("can record");
    for times in 1..3 {
        // SAFETY: the buffer is still there.
        unsafe { driver.replay(&graph) }.expect("runs");
        let mut bytes = [0; 256];
        driver.download(&buffer, 0, &mut bytes).expect("reads");
        assert_eq!(bytes[252..], (3.0 * times as f32).to_le_bytes());
    }
}
