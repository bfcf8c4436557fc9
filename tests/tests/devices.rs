//! Law 10: every device agrees with the reference on every operation and every fusion.

use inference_cpu::Cpu;
use inference_engine::{
    check::{
        Tolerance, check_answers, check_attention, check_attention_is_independent,
        check_each_way_of_attention_is_independent, check_operations, check_products,
        check_rows_are_independent,
    },
    naive::Naive,
};
use inference_gpu::cpu::Order;
use inference_metal::{Candle, OnCpu};
use inference_tests::{gpu, metal};

#[test]
fn the_reference_agrees_with_itself_whatever_its_block_length() {
    for block_len in [1, 7, 64] {
        check_attention(
            &Naive { block_len },
            Tolerance { exact: 0.0, rounded: 0.0, ..Tolerance::default() },
        )
        .expect("is right");
    }
    check_operations(
        &Naive::default(),
        Tolerance { exact: 0.0, rounded: 0.0, ..Tolerance::default() },
    )
    .expect("is right");
    check_products(
        &Naive::default(),
        Tolerance { exact: 0.0, rounded: 0.0, ..Tolerance::default() },
    )
    .expect("is right");
}

#[test]
fn the_gpu_agrees_on_every_operation() {
    for (arch, order) in gpu::kinds(0) {
        let Some(gpu) = gpu::playing(arch, order) else { return };
        check_operations(&gpu, Tolerance::default()).expect("is right");
    }
}

#[test]
fn products_on_the_gpu_are_right_and_have_the_same_bits_in_any_company_of_few_and_of_many() {
    for (arch, order) in gpu::kinds(1) {
        let Some(gpu) = gpu::playing(arch, order) else { return };
        check_products(&gpu, Tolerance::default()).expect("is right");
    }
}

#[test]
fn of_logits_every_device_brings_what_it_is_asked_for() {
    check_answers(&Naive::default()).expect("is right");
    check_answers(&Cpu::new(2).expect("starts")).expect("is right");
    assert!(check_answers(&candle()).expect("is right") > 50, "all logits were brought");
    if let Some(candle) = metal::kernels(Order::Random) {
        assert!(check_answers(&candle).expect("is right") > 50, "all logits were brought");
    }
    for (arch, order) in gpu::kinds(1) {
        let Some(gpu) = gpu::playing(arch, order) else { return };
        assert!(check_answers(&gpu).expect("is right") > 50, "all logits were brought");
    }
}

#[test]
fn the_gpu_agrees_on_attention() {
    for (arch, order) in gpu::kinds(2) {
        let Some(gpu) = gpu::playing(arch, order) else { return };
        check_attention(&gpu, Tolerance::default()).expect("is right");
    }
}

#[test]
fn a_tokens_attention_on_the_gpu_has_the_same_bits_in_any_company() {
    for (arch, order) in gpu::kinds(0).skip(2).step_by(2) {
        let Some(gpu) = gpu::playing(arch, order) else { return };
        check_each_way_of_attention_is_independent(&gpu).expect("is right");
    }
}

fn candle() -> Candle<OnCpu> {
    Candle::new(OnCpu::default())
}

#[test]
fn candles_tensors_agree_on_every_operation() {
    check_operations(&candle(), Tolerance::default()).expect("is right");
    // Nothing is rounded here, which a wrong order of bits or rows would not change by so little.
    check_products(&candle(), Tolerance { exact: 2e-6, rounded: 2e-6, ..Tolerance::default() })
        .expect("is right");
}

#[test]
fn candles_tensors_agree_on_attention() {
    check_attention(&candle(), Tolerance::default()).expect("is right");
}

#[test]
fn rows_and_tokens_have_the_same_bits_in_any_company_on_candles_tensors() {
    check_rows_are_independent(&candle()).expect("is right");
    check_attention_is_independent(&candle()).expect("is right");
}

#[test]
fn the_metal_kernels_agree_on_every_operation() {
    for order in [Order::Forward, Order::Reverse, Order::Random] {
        let Some(candle) = metal::kernels(order) else { return };
        check_operations(&candle, Tolerance::default()).expect("is right");
        // Nothing is rounded: products are f32.
        check_products(&candle, Tolerance { exact: 2e-6, rounded: 2e-6, ..Tolerance::default() })
            .expect("is right");
    }
}

#[test]
fn the_metal_kernels_agree_on_attention() {
    let Some(candle) = metal::kernels(Order::Random) else { return };
    check_attention(&candle, Tolerance::default()).expect("is right");
}

#[test]
fn a_tokens_attention_by_the_metal_kernels_has_the_same_bits_in_any_company() {
    let Some(candle) = metal::kernels(Order::Random) else { return };
    check_each_way_of_attention_is_independent(&candle).expect("is right");
}
