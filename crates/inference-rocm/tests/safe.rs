//! The safe layer over the stand-in: what works, what fails, and that nothing is left behind.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;

use common::{Fake, add, code};
use inference_rocm::hip::{
    DeviceInfo, HipDevice, HipError, HipEvent, HipGraph, HipModule, HipSlice, HipStream, Kind,
    LaunchConfig, LoadError,
    sys::{self, Runtime},
};
use std::{ffi::c_void, ptr, sync::Arc};

fn one_block(lanes: u32) -> LaunchConfig {
    LaunchConfig { grid: [1, 1, 1], block: [lanes, 1, 1], shared_bytes: 0 }
}

/// All that the backend does, once: the result of 1 + 2 × (0, 1, 2, …) by three launches.
fn everything(device: &Arc<HipDevice>, code: &[u8]) -> Result<Vec<f32>, HipError> {
    let stream = HipStream::new(device)?;
    let module = HipModule::load(device, code.to_vec())?;
    let function = module.function("add")?;
    drop(module);
    let n = 100;
    let (x, y) = (HipSlice::<f32>::new(device, n)?, HipSlice::<f32>::new(device, n)?);
    let values: Vec<f32> = (0..n).map(|i| i as f32).collect();
    stream.upload(&x, 0, &values)?;
    stream.zero(&y)?;
    stream.upload(&y, 0, &vec![1.0; n])?;
    add(&stream, &function, &y, &x, 1.0)?;
    let (start, end) = (HipEvent::timed(device)?, HipEvent::timed(device)?);
    start.record(&stream)?;
    let graph = HipGraph::record(&stream, || {
        add(&stream, &function, &y, &x, 0.25)?;
        add(&stream, &function, &y, &x, 0.75)
    })?;
    // SAFETY: the slices are alive.
    unsafe { graph.replay() }?;
    end.record(&stream)?;
    end.wait()?;
    end.milliseconds_since(&start)?;
    assert!(end.is_reached()?);
    let mut result = vec![0.0; n];
    stream.download(&y, 0, &mut result)?;
    device.memory()?;
    device.synchronize()?;
    Ok(result)
}

#[test]
fn everything_works_and_nothing_is_left() {
    let Some(fake) = Fake::new() else { return };
    let device = fake.device();
    let result = everything(&device, &code(&device)).expect("no fault was set");
    assert_eq!(result, (0..100).map(|i| 1.0 + 2.0 * i as f32).collect::<Vec<_>>());
    assert_eq!(fake.alive(), 0);
}

#[test]
fn any_call_may_fail_at_any_time() {
    let Some(fake) = Fake::new() else { return };
    let device = fake.device();
    let code = code(&device);
    let releases = [
        "hipFree",
        "hipHostFree",
        "hipModuleUnload",
        "hipEventDestroy",
        "hipStreamDestroy",
        "hipGraphDestroy",
        "hipGraphExecDestroy",
        // Before some of them.
        "hipStreamSynchronize",
        "hipGetDevice",
    ];
    let mut faults = 0;
    for name in Runtime::REQUIRED.iter().chain(Runtime::OPTIONAL) {
        for nth in 0.. {
            fake.fail(name, nth, 1);
            let result = everything(&device, &code);
            if fake.is_pending(name) {
                assert!(result.is_ok(), "without a fault");
                break;
            }
            faults += 1;
            // A failed release shows at the next call, if there is one.
            let next = device.synchronize();
            let shown = result.as_ref().err().or(next.as_ref().err());
            let shown = shown.unwrap_or_else(|| panic!("call {nth} of {name} failed unseen"));
            assert!(releases.contains(name) || result.is_err(), "call {nth} of {name}: {shown}");
            assert!(shown.to_string().contains("injected"), "call {nth} of {name}: {shown}");
            assert_eq!(fake.alive(), 0, "after call {nth} of {name}");
            device.synchronize().expect("it was told once");
        }
    }
    println!("{faults} faults");
    assert!(faults > 60, "{faults}");
}

#[test]
fn a_lost_device_says_so_for_ever() {
    let Some(fake) = Fake::new() else { return };
    for name in ["kernel", "hipModuleLaunchKernel", "hipStreamSynchronize", "hipMalloc"] {
        let fake = Fake::new().expect("as before");
        let device = fake.device();
        let code = code(&device);
        fake.fail(name, 1, 719);
        for _ in 0..2 {
            let error = everything(&device, &code).expect_err("it is lost");
            assert!(matches!(&error, HipError::Lost { cause } if cause.contains("719")), "{error}");
            assert_eq!(error.kind(), Kind::Lost);
        }
        assert_eq!(fake.alive(), 0, "{name}");
    }
    drop(fake);
}

#[test]
fn asking_for_memory_does_not_swallow_a_failed_release() {
    let Some(fake) = Fake::new() else { return };
    let device = fake.device();
    fake.fail("hipFree", 0, 1);
    drop(HipSlice::<u32>::new(&device, 1).expect("it fits"));
    device.memory().expect("it is known all the same");
    let error = device.synchronize().expect_err("a release failed");
    assert!(matches!(error, HipError::Release(_)), "{error}");
    device.synchronize().expect("it was told once");
}

#[test]
fn memory_that_runs_out_is_told_in_bytes() {
    let Some(fake) = Fake::new() else { return };
    fake.set("memory", 1 << 20);
    let device = fake.device();
    let first = HipSlice::<u32>::new(&device, 1 << 17).expect("half of it");
    let error = HipSlice::<u32>::new(&device, (1 << 17) + 1).expect_err("more than half");
    let HipError::OutOfMemory { bytes, free, total } = error else { panic!("{error}") };
    assert_eq!((bytes, free, total), ((1 << 19) + 4, 1 << 19, 1 << 20));
    assert!(HipSlice::<u32>::new(&device, usize::MAX / 2).is_err());
    drop(first);
    HipSlice::<u32>::new(&device, 1 << 18).expect("all of it");
    let none = HipSlice::<u32>::new(&device, 0).expect("nothing always fits");
    assert_eq!((none.address(), none.bytes()), (0, 0));
}

#[test]
fn copies_take_their_source_before_they_return() {
    let Some(fake) = Fake::new() else { return };
    let device = fake.device();
    let stream = HipStream::new(&device).expect("no fault was set");
    // Pinned memory is a ring of 16 MiB: this goes around it more than twice, in pieces that do not divide it.
    let (pieces, piece) = (1200, 31_013);
    let slice = HipSlice::<u8>::new(&device, pieces * piece).expect("it fits");
    let mut source = vec![0u8; piece];
    for at in 0..pieces {
        source.fill(at as u8);
        stream.upload(&slice, at * piece, &source).expect("no fault was set");
        source.fill(0xee);
    }
    let mut all = vec![0u8; pieces * piece];
    stream.download(&slice, 0, &mut all).expect("no fault was set");
    for (at, piece) in all.chunks(piece).enumerate() {
        assert!(piece.iter().all(|byte| *byte == at as u8), "piece {at}");
    }
    let mut end = [0u8; 4];
    stream.download(&slice, pieces * piece - 4, &mut end).expect("no fault was set");
    assert_eq!(end, [(pieces - 1) as u8; 4]);
}

#[test]
fn copies_stay_in_bounds() {
    let Some(fake) = Fake::new() else { return };
    let device = fake.device();
    let stream = HipStream::new(&device).expect("no fault was set");
    let slice = HipSlice::<u32>::new(&device, 4).expect("it fits");
    for (at, len) in [(1, 4), (5, 0), (usize::MAX, 1), (0, 5)] {
        let mut values = vec![0; len];
        let up = stream.upload(&slice, at, &values).expect_err("beyond the end");
        let down = stream.download(&slice, at, &mut values).expect_err("beyond the end");
        for error in [up, down] {
            assert!(matches!(error, HipError::OutOfBounds { size: 16, .. }), "{error}");
        }
    }
    stream.upload(&slice, 4, &[]).expect("nothing at the end is within");
}

#[test]
fn launches_are_checked_before_they_start() {
    let Some(fake) = Fake::new() else { return };
    let device = fake.device();
    let stream = HipStream::new(&device).expect("no fault was set");
    let module = HipModule::load(&device, code(&device)).expect("it is whole");
    let add = module.function("add").expect("it is in there");
    assert!(matches!(module.function("sub"), Err(HipError::NoKernel(name)) if name == "sub"));
    let refused = |builder: inference_rocm::hip::LaunchBuilder<'_>, config| {
        // SAFETY: it does not start.
        let error = unsafe { builder.run(config) }.expect_err("it does not fit");
        assert!(matches!(error, HipError::Launch { .. }), "{error}");
        error.to_string()
    };
    let launch = || stream.launch(&add);
    let whole = || launch().value(0u64).value(0u64).value(0f32).value(0u32);
    assert!(refused(launch().value(0u64), one_block(1)).contains("1 arguments, where it has 4"));
    assert!(refused(launch().value(0u32), one_block(1)).contains("argument 0 of 4 bytes"));
    assert!(refused(whole().value(0u32), one_block(1)).contains("more than 4 arguments"));
    assert!(refused(whole(), one_block(65)).contains("65 lanes, where 64 are the most"));
    let shared = LaunchConfig { shared_bytes: 65_537, ..one_block(64) };
    assert!(refused(whole(), shared).contains("65537 bytes of shared memory"));
    // SAFETY: it does not start: there are too few arguments.
    let raw = unsafe { stream.launch_raw(&add, one_block(1), &mut [ptr::null_mut::<c_void>()]) };
    assert!(raw.is_err_and(|e| e.to_string().contains("1 arguments, where it has 4")));
}

#[test]
fn a_function_that_is_missing_is_named() {
    let Some(fake) = Fake::with(&["-DhipMemsetAsync=other"]) else { return };
    let error = fake.open().expect_err("one is missing");
    assert!(matches!(error, LoadError::NoSymbol { name: "hipMemsetAsync", .. }), "{error}");

    let without = ["-DhipGraphUpload=a", "-DhipGetDevicePropertiesR0600=b"];
    let fake = Fake::with(&without).expect("as before");
    let device = fake.device();
    assert_eq!(device.info().target, "gfx1100", "from the older structure");
    everything(&device, &code(&device)).expect("these may be missing");

    let fake = Fake::with(&["-DhiprtcGetCode=other"]).expect("as before");
    let hip = fake.open().expect("the compiler may be missing");
    assert!(hip.compiler.as_ref().is_err_and(|e| e.contains("no libhiprtc.so.7")));
}

#[test]
fn an_old_version_is_refused() {
    let Some(fake) = Fake::new() else { return };
    fake.set("version", 50_100_000);
    let error = fake.open().expect_err("it is too old");
    assert!(error.to_string().contains("5.1.0, which is too old"), "{error}");
}

#[test]
fn code_for_another_card_is_refused() {
    let Some(fake) = Fake::new() else { return };
    let code = code(&fake.device());
    fake.arch("gfx1201");
    let error = HipModule::load(&fake.device(), code).expect_err("it is for gfx1100");
    assert!(error.to_string().contains("it is for gfx1100, the device is gfx1201"), "{error}");
    assert_eq!(error.kind(), Kind::NoBinary);
}

#[test]
fn code_of_a_newer_compiler_is_loaded() {
    let Some(fake) = Fake::new() else { return };
    fake.set("newer_triple", 1);
    let device = fake.device();
    let result = everything(&device, &code(&device)).expect("it is for this card");
    assert_eq!(result[1], 3.0);
}

#[test]
fn a_device_is_described() {
    let Some(fake) = Fake::new() else { return };
    fake.set("devices", 2);
    fake.arch("gfx90a:sramecc+:xnack-");
    let all = DeviceInfo::all(fake.open().expect("it is whole"));
    let all = all.expect("no fault was set");
    assert_eq!(all.len(), 2);
    assert_eq!(all[1].pci, "0000:04:00.0");
    assert_eq!(all[1].uuid.as_deref(), Some("GPU-0011223344556601"));
    assert_eq!((all[0].arch(), all[0].compute_units(), all[0].wave), ("gfx90a", 48, 32));
    assert_eq!(sys::code::NO_DEVICE, 100);
}

#[test]
fn a_device_that_cannot_be_described_does_not_hide_the_others() {
    let Some(fake) = Fake::new() else { return };
    fake.set("devices", 2);
    let hip = fake.open().expect("it is whole");
    fake.fail("hipDeviceTotalMem", 0, 1);
    let all = DeviceInfo::all(hip).expect("one is well");
    assert_eq!(all.iter().map(|device| device.ordinal).collect::<Vec<_>>(), [1]);
    // The first fails by one call, the second by another.
    fake.fail("hipDeviceTotalMem", 0, 1);
    fake.fail("hipDeviceGetName", 0, 1);
    let error = DeviceInfo::all(hip).expect_err("none is well");
    assert!(error.to_string().contains("hipDeviceTotalMem"), "{error}");
}
