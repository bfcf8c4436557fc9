//! The GPU device without a GPU: its kernels compiled for this machine, and run lane by lane.

use inference_gpu::{
    Gpu,
    cpu::{CpuDriver, NEEDS, Order},
};

/// An architecture of each kind of waves and matrix instructions.
const ARCHS: [&str; 6] = ["gfx1030", "gfx906", "gfx1100", "gfx1201", "gfx90a", "sm_80"];

const ORDERS: [Order; 3] = [Order::Forward, Order::Reverse, Order::Random];

/// An architecture and an order of its lanes, another for each `case`: eighteen that follow each other are all pairs, six
/// are all architectures, in all orders.
pub fn kind(case: usize) -> (&'static str, Order) {
    let round = case / ARCHS.len();
    (ARCHS[case % ARCHS.len()], ORDERS[(case + round) % ORDERS.len()])
}

/// Every architecture; in three `rounds` that follow each other each one in every order.
pub fn kinds(round: usize) -> impl Iterator<Item = (&'static str, Order)> {
    (round * ARCHS.len()..(round + 1) * ARCHS.len()).map(kind)
}

/// The [`kind`] of a case that has a name.
pub fn kind_for(what: &str) -> (&'static str, Order) {
    kind(what.bytes().map(usize::from).sum())
}

/// Most tokens of a step of the tests.
const STEP_TOKENS: usize = 256;

/// A device that plays `arch`, its lanes in this order. `None`, and a line that says so, where there can be none.
///
/// # Panics
/// Where a kernel can't be compiled.
pub fn playing(arch: &str, order: Order) -> Option<Gpu<CpuDriver>> {
    driver(arch, order).map(|driver| Gpu::new(driver, STEP_TOKENS).expect("compiles"))
}

/// The same without a device over it.
pub fn driver(arch: &str, order: Order) -> Option<CpuDriver> {
    let driver = CpuDriver::new(arch, order);
    if driver.is_none() {
        println!("skipped: {NEEDS}");
    }
    driver
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_architecture_meets_every_order() {
        let all: Vec<_> = (0..3).flat_map(kinds).collect();
        for arch in ARCHS {
            for order in ORDERS {
                assert!(all.contains(&(arch, order)), "{arch} {order:?}");
            }
        }
        for round in 0..3 {
            for order in ORDERS {
                assert_eq!(kinds(round).filter(|kind| kind.1 == order).count(), 2, "{round}");
            }
        }
    }
}
