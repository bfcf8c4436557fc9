//! The whole device on a real card: every operation, whole models, recordings, and the limits of memory. Skipped, with a
//! line that says why, where there is none.
#![cfg(any(target_os = "linux", target_os = "windows"))]

use inference_core::{Availability, Backend as _, DeviceChoice, GenerateOptions, LoadOptions};
use inference_cuda::{CudaBackend, CudaDriver};
use inference_tests::fixtures;

inference_tests::card_tests!(driver);

fn driver() -> Option<CudaDriver> {
    if let Availability::Unavailable(reason) = CudaBackend.availability() {
        println!("skipped: {reason}");
        return None;
    }
    Some(inference_cuda::open(None).expect("it is available"))
}

#[test]
fn a_machine_without_a_card_says_so_in_one_sentence() {
    match CudaBackend.availability() {
        Availability::Available => assert!(!CudaBackend.devices().is_empty()),
        Availability::Unavailable(reason) => {
            let at_all = std::path::Path::new("/proc/driver/nvidia").exists();
            let is_told = reason.contains("NVIDIA GPU");
            assert!(
                at_all
                    || !cfg!(target_os = "linux")
                    || is_told
                    || !CudaBackend.devices().is_empty(),
                "{reason}"
            );
            assert!(!reason.contains('\n'), "{reason}");
            assert!(CudaBackend.report().contains(&reason) || !CudaBackend.devices().is_empty());
            let error = CudaBackend.load(&fixtures::path("llama"), &LoadOptions::default());
            let Err(error) = error else { panic!("it loads without a card or a compiler") };
            // A card may be there, and its compiler missing or too new for it.
            if CudaBackend.devices().is_empty() {
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
    let device = CudaBackend.devices().remove(0);
    let options = LoadOptions::default().device(DeviceChoice::Id(device.id)).context_len(64);
    let model = CudaBackend.load(&fixtures::path("llama"), &options).expect("it fits");
    let options = GenerateOptions::default().max_tokens(4).temperature(0.0);
    let run =
        || model.generate("one two three", &options).expect("it runs").finish().expect("it runs");
    assert_eq!(run().text(), run().text());
}
