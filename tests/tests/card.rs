//! Tests of cards, on the driver that runs kernels on the CPU: they are known to pass somewhere, and to be able to.
//! The suite's goldens are left to `golden.rs`, `quantised.rs` and `gguf.rs`, which run them on more architectures.

use inference_gpu::cpu::{CpuDriver, Order};

fn driver() -> Option<CpuDriver> {
    inference_tests::gpu::driver("sm_80", Order::Forward)
}

inference_tests::card_tests! {
    driver;
    the_largest_logits_alone_give_the_same_tokens,
    sequences_that_join_and_leave_get_the_logits_of_the_reference,
    a_batch_is_classified_as_its_texts_one_by_one,
    launches_are_recorded_and_replayed_and_nothing_else_is,
    copies_of_any_size_arrive_and_none_leaves_its_buffer,
    what_does_not_fit_is_an_error_and_the_device_goes_on,
}
