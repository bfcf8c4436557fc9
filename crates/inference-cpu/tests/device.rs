//! Law 10: the device agrees with the reference on every operation and every fusion, on every level of instructions that
//! the machine has.

use inference_cpu::{Cpu, Level};
use inference_engine::{
    check::{
        Tolerance, check_attention, check_attention_is_independent, check_operations,
        check_products, check_rows_are_independent,
    },
    naive::Naive,
};

/// Whether the machine is emulated, and slow: `.ci/arm` says so.
fn emulated() -> bool {
    std::env::var_os("INFERENCE_TEST_EMULATED").is_some()
}

/// Every level of instructions that this machine has; in emulation the best alone, from which the others differ in
/// products with quantised weights only, and plain Rust, which is the same everywhere.
fn levels() -> Vec<Level> {
    if emulated() { vec![Level::best()] } else { Level::available() }
}

/// Each on one thread and on several; in emulation on several alone.
fn cpus() -> impl Iterator<Item = Cpu> {
    let threads: &[usize] = if emulated() { &[3] } else { &[1, 3] };
    levels().into_iter().flat_map(|level| {
        threads.iter().map(move |n| Cpu::with_level(*n, level).expect("it is available"))
    })
}

#[test]
fn the_cpu_agrees_on_every_operation() {
    for cpu in cpus() {
        check_operations(&cpu, Tolerance::default()).expect("is right");
    }
}

#[test]
fn products_on_the_cpu_are_right_and_have_the_same_bits_in_any_company() {
    let own = |level: &Level| !emulated() || *level != Level::Scalar;
    for level in Level::available().into_iter().filter(own) {
        // What rounding to 8 bits costs is told beside the kernels.
        let cpu = Cpu::with_level(2, level).expect("it is available").exact_activations(true);
        check_products(&cpu, Tolerance::default()).expect("is right");
    }
}

#[test]
fn the_cpu_agrees_on_attention() {
    for cpu in cpus() {
        check_attention(&cpu, Tolerance::default()).expect("is right");
    }
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_a_batch_and_on_any_number_of_threads() {
    for level in levels() {
        let bits = |threads: usize| {
            let cpu = Cpu::with_level(threads, level).expect("it is available");
            check_rows_are_independent(&cpu).expect("is right")
        };
        let alone = bits(1);
        assert!(bits(3) == alone, "{level:?}");
    }
    check_rows_are_independent(&Naive::default()).expect("is right");
}

#[test]
fn a_tokens_attention_has_the_same_bits_however_it_comes_and_on_any_number_of_threads() {
    for level in levels() {
        let bits = |threads: usize| {
            let cpu = Cpu::with_level(threads, level).expect("it is available");
            check_attention_is_independent(&cpu).expect("is right")
        };
        let alone = bits(1);
        assert!(bits(3) == alone, "{level:?}");
    }
    check_attention_is_independent(&Naive::default()).expect("is right");
}
