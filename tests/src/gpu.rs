//! The GPU device without a GPU: its kernels compiled for this machine, and run lane by lane.

use inference_gpu::{
    Gpu,
    cpu::{CpuDriver, NEEDS, Order},
};

/// An architecture of each kind of waves and matrix instructions, and an order of its lanes.
pub const KINDS: [(&str, Order); 6] = [
    ("gfx1030", Order::Random),
    ("gfx906", Order::Random),
    ("gfx1100", Order::Forward),
    ("gfx1201", Order::Reverse),
    ("gfx90a", Order::Random),
    ("sm_80", Order::Random),
];

/// One of [`KINDS`], another for each `what`: so that many cases meet all of them, each case one.
pub fn kind_for(what: &str) -> (&'static str, Order) {
    let sum: usize = what.bytes().map(usize::from).sum();
    KINDS[sum % KINDS.len()]
}

/// Most tokens of a step of the tests.
const STEP_TOKENS: usize = 256;

/// A device that plays `arch`, its lanes in this order. `None`, and a line that says so, where there can be none.
///
/// # Panics
/// Where a kernel can't be compiled.
pub fn playing(arch: &str, order: Order) -> Option<Gpu<CpuDriver>> {
    let driver = CpuDriver::new(arch, order);
    if driver.is_none() {
        println!("skipped: {NEEDS}");
    }
    driver.map(|driver| Gpu::new(driver, STEP_TOKENS).expect("compiles"))
}
