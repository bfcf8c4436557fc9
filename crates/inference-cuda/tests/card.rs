//! The whole device on a real card: every operation, whole models, recordings, and the limits of memory. Skipped, with a
//! line that says why, where there is none.
#![cfg(any(target_os = "linux", target_os = "windows"))]

use inference_core::{
    Availability, Backend as _, DeviceChoice, Error, GenerateOptions, LoadOptions,
};
use inference_cuda::{Cuda, CudaBackend, CudaDriver, Device, nvrtc::Nvrtc};
use inference_engine::{
    check::{Tolerance, check_attention, check_operations, check_products},
    weights::DType,
};
use inference_gpu::{Driver as _, Gpu, Launch, args};
use inference_tests::{
    fixtures,
    golden::{self, LONG, SHORT},
};

/// Most tokens of a step.
const STEP_TOKENS: usize = 256;

/// Adds `a` × `x` to `y`.
const ADD: &str = concat!(
    include_str!("../../inference-gpu/kernels/portable.h"),
    "
KERNEL(64) add(float *y, const float *x, float a, u32 n) {
    u32 i = BID_X * 64 + TID;
    if (i < n) y[i] += a * x[i];
}
"
);

fn driver() -> Option<CudaDriver> {
    if let Availability::Unavailable(reason) = CudaBackend.availability() {
        println!("skipped: {reason}");
        return None;
    }
    let cuda = Cuda::open().expect("it is available");
    let devices = Device::all(cuda).expect("it is available");
    let device = devices.iter().find(|d| d.capability >= (6, 1)).expect("it is available");
    let nvrtc = Nvrtc::open(cuda.version.0, device.arch()).expect("it is available");
    Some(CudaDriver::open(cuda, device, nvrtc).expect("it is available"))
}

fn gpu() -> Option<Gpu<CudaDriver>> {
    driver().map(|driver| Gpu::new(driver, STEP_TOKENS).expect("its kernels compile"))
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
fn every_operation_agrees_with_the_reference() {
    let Some(gpu) = gpu() else { return };
    check_operations(&gpu, Tolerance::default()).expect("is right");
    check_attention(&gpu, Tolerance::default()).expect("is right");
    check_products(&gpu, Tolerance::default()).expect("is right");
}

#[test]
fn models_meet_their_golden_values() {
    let Some(gpu) = gpu() else { return };
    for name in fixtures::families() {
        for lengths in [SHORT, LONG] {
            golden::check(&gpu, "the card", &name, DType::Bf16, 29, lengths);
        }
    }
}

#[test]
fn the_backend_generates_on_the_device_that_is_named() {
    let Some(driver) = driver() else { return };
    drop(driver);
    let device = CudaBackend.devices().remove(0);
    let options = LoadOptions::default().device(DeviceChoice::Id(device.id)).context_len(64);
    let model = CudaBackend.load(&fixtures::path("llama"), &options).expect("it fits");
    let options = GenerateOptions::default().max_tokens(4).temperature(0.0);
    let run =
        || model.generate("one two three", &options).expect("it runs").finish().expect("it runs");
    assert_eq!(run().text(), run().text());
}

#[test]
fn launches_are_recorded_and_replayed_and_nothing_else_is() {
    let Some(driver) = driver() else { return };
    let add = driver.compile(ADD, &[], &["add"]).expect("it compiles");
    let (x, y) = (driver.alloc(4).expect("it fits"), driver.alloc(4).expect("it fits"));
    driver.upload(&x, 0, &2f32.to_le_bytes()).expect("it runs");
    driver.upload(&y, 0, &1f32.to_le_bytes()).expect("it runs");
    let mut f = || {
        let (to, from) = (driver.address(&y), driver.address(&x));
        // SAFETY: the kernel's parameters; both buffers live until the end.
        unsafe { driver.launch(&add[0], Launch::new(1, 64), args![to, from, 3f32, 1u32]) }
    };
    let graph = driver.capture(&mut f).expect("it runs").expect("graphs are not switched off");
    for _ in 0..2 {
        // SAFETY: both buffers live.
        unsafe { driver.replay(&graph) }.expect("it runs");
    }
    let mut sum = [0; 4];
    driver.download(&y, 0, &mut sum).expect("it runs");
    assert_eq!(f32::from_le_bytes(sum), 13.0);

    let error = driver.capture(&mut || driver.upload(&x, 0, &[0; 4])).expect_err("it copies");
    assert!(error.to_string().contains("an upload while launches are recorded"), "{error}");
    driver.upload(&x, 0, &[0; 4]).expect("the recording has ended");
    driver.synchronize().expect("it runs");
}

#[test]
fn copies_of_any_size_arrive_and_none_leaves_its_buffer() {
    let Some(driver) = driver() else { return };
    // More than goes through pinned memory at once, and an odd rest.
    let bytes: Vec<u8> = (0..40_000_003_u32).map(|i| (i * 7 + i / 251) as u8).collect();
    let buffer = driver.alloc(bytes.len() + 1).expect("it fits");
    assert_eq!(driver.address(&buffer) % 256, 0);
    driver.upload(&buffer, 1, &bytes).expect("it fits");
    let mut back = vec![0; bytes.len()];
    driver.download(&buffer, 1, &mut back).expect("it fits");
    assert!(back == bytes);
    for (at, len) in [(2, bytes.len()), (usize::MAX, 2), (bytes.len() + 2, 0)] {
        assert!(driver.upload(&buffer, at, &bytes[..len]).is_err(), "{len} at {at}");
        assert!(driver.download(&buffer, at, &mut back[..len]).is_err(), "{len} at {at}");
    }
}

#[test]
fn what_does_not_fit_is_an_error_and_the_device_goes_on() {
    let Some(driver) = driver() else { return };
    let memory = driver.memory().expect("it runs");
    assert!(memory.free > 0 && memory.free <= memory.total, "{memory:?}");
    let error = driver.alloc(memory.total as usize * 2).expect_err("it is too much");
    assert!(matches!(error, Error::OutOfMemory { available, .. } if available > 0), "{error}");
    assert!(driver.compile(ADD, &[], &["sub"]).is_err());
    assert!(driver.compile("nonsense", &[], &[]).is_err());
    let buffer = driver.alloc(0).expect("one byte fits");
    driver.upload(&buffer, 0, &[]).expect("nothing fits");
    driver.synchronize().expect("it runs");
}
