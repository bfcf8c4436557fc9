//! The whole device on a real card: every operation, whole models, recordings, and the limits of memory. Skipped, with a
//! line that says why, where there is none.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

use inference_core::{Availability, Backend as _, DeviceChoice, GenerateOptions, LoadOptions};
use inference_rocm::{HipDriver, RocmBackend};
use inference_tests::fixtures;

inference_tests::card_tests!(driver);

fn driver() -> Option<HipDriver> {
    if let Availability::Unavailable(reason) = RocmBackend.availability() {
        println!("skipped: {reason}");
        return None;
    }
    Some(inference_rocm::open(None).expect("it is available"))
}

#[test]
fn a_machine_without_a_card_says_so_in_one_sentence() {
    match RocmBackend.availability() {
        Availability::Available => assert!(!RocmBackend.devices().is_empty()),
        Availability::Unavailable(reason) => {
            assert!(!reason.contains('\n'), "{reason}");
            let error = RocmBackend.load(&fixtures::path("llama"), &LoadOptions::default());
            let Err(error) = error else { panic!("it loads without a card or a compiler") };
            // A card may be there, and only be none to choose unasked.
            if RocmBackend.devices().is_empty() {
                assert!(reason.contains("AMD GPU") || reason.contains("HIP"), "{reason}");
                assert!(error.to_string().contains(&reason), "{error}");
            }
        }
    }
}

#[test]
fn the_backend_generates_on_the_device_that_is_named() {
    if driver().is_none() {
        return;
    }
    let device = RocmBackend.devices().remove(0);
    let options = LoadOptions::default().device(DeviceChoice::Id(device.id)).context_len(64);
    let model = RocmBackend.load(&fixtures::path("llama"), &options).expect("it fits");
    let options = GenerateOptions::default().max_tokens(4).temperature(0.0);
    let run =
        || model.generate("one two three", &options).expect("it runs").finish().expect("it runs");
    assert_eq!(run().text(), run().text());
}
