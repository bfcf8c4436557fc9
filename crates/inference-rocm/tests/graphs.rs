//! Recorded launches over the stand-in.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;

use common::{Fake, add, code};
use inference_rocm::hip::{HipError, HipGraph, HipModule, HipSlice, HipStream};

#[test]
fn recorded_launches_run_when_replayed_with_the_values_they_had() {
    let Some(fake) = Fake::new() else { return };
    let device = fake.device();
    let stream = HipStream::new(&device).expect("no fault was set");
    let module = HipModule::load(&device, code(&device)).expect("it is whole");
    let function = module.function("add").expect("it is in there");
    let slice = |value: f32| {
        let slice = HipSlice::<f32>::new(&device, 3).expect("it fits");
        stream.upload(&slice, 0, &[value; 3]).map(|()| slice).expect("no fault was set")
    };
    let (x, y) = (slice(1.0), slice(0.0));
    let value = || {
        let mut values = [0.0; 3];
        stream.download(&y, 0, &mut values).expect("no fault was set");
        values[0]
    };
    // More than one graph holds.
    let launches = 401;
    let graph = HipGraph::record(&stream, || -> Result<(), HipError> {
        (0..launches).try_for_each(|i| add(&stream, &function, &y, &x, i as f32))
    });
    let graph = graph.expect("no fault was set");
    assert_eq!((graph.launches(), value()), (launches, 0.0));
    let sum = (0..launches).sum::<usize>() as f32;
    for times in [1.0, 2.0] {
        // SAFETY: the slices are alive.
        unsafe { graph.replay() }.expect("no fault was set");
        assert_eq!(value(), times * sum);
    }

    let copy = HipGraph::record(&stream, || stream.upload(&x, 0, &[2.0]));
    assert!(matches!(copy, Err(HipError::Capturing("a copy"))), "{copy:?}");
    let again = HipGraph::record(&stream, || {
        HipGraph::record(&stream, || Ok::<(), HipError>(())).map(drop)
    });
    assert!(matches!(again, Err(HipError::Capturing(_))), "{again:?}");
    let panicked = std::panic::catch_unwind(|| {
        HipGraph::record(&stream, || -> Result<(), HipError> {
            add(&stream, &function, &y, &x, 1.0)?;
            panic!("on purpose")
        })
        .map(drop)
    });
    assert!(panicked.is_err());
    assert_eq!(value(), 2.0 * sum, "the stream works as before");
    drop((graph, x, y, function, module));
    drop(stream);
    assert_eq!(fake.alive(), 0);
}

#[test]
fn a_graph_without_launches_is_never_made() {
    let Some(fake) = Fake::new() else { return };
    let device = fake.device();
    let stream = HipStream::new(&device).expect("no fault was set");
    let module = HipModule::load(&device, code(&device)).expect("it is whole");
    let function = module.function("add").expect("it is in there");
    let (x, y) = (HipSlice::new(&device, 1), HipSlice::new(&device, 1));
    let (x, y) = (x.expect("it fits"), y.expect("it fits"));
    // None, and as many as fill graphs to the last place.
    for launches in [0, 160, 320] {
        stream.upload(&x, 0, &[1.0]).expect("no fault was set");
        stream.zero(&y).expect("no fault was set");
        let graph = HipGraph::record(&stream, || -> Result<(), HipError> {
            (0..launches).try_for_each(|_| add(&stream, &function, &y, &x, 1.0))
        });
        let graph = graph.expect("no fault was set");
        // SAFETY: the slices are alive.
        unsafe { graph.replay() }.expect("no fault was set");
        let mut sum = [0.0];
        stream.download(&y, 0, &mut sum).expect("no fault was set");
        assert_eq!((graph.launches(), sum[0]), (launches, launches as f32));
    }
    drop((x, y, function, module, stream));
    assert_eq!(fake.alive(), 0);
}

#[test]
fn a_graph_may_be_dropped_while_another_is_recorded() {
    let Some(fake) = Fake::new() else { return };
    let device = fake.device();
    let stream = HipStream::new(&device).expect("no fault was set");
    let module = HipModule::load(&device, code(&device)).expect("it is whole");
    let function = module.function("add").expect("it is in there");
    let (x, y) = (HipSlice::new(&device, 1), HipSlice::new(&device, 1));
    let (x, y) = (x.expect("it fits"), y.expect("it fits"));
    stream.upload(&x, 0, &[1.0]).expect("no fault was set");
    stream.zero(&y).expect("no fault was set");
    let once = || HipGraph::record(&stream, || add(&stream, &function, &y, &x, 1.0));
    for fails in [false, true] {
        let first = once().expect("no fault was set");
        // SAFETY: the slices are alive.
        unsafe { first.replay() }.expect("no fault was set");
        let second = HipGraph::record(&stream, || {
            // SAFETY: the slices are alive.
            let replayed = unsafe { first.replay() };
            assert!(matches!(replayed, Err(HipError::Capturing("a replay"))), "{replayed:?}");
            drop(first);
            add(&stream, &function, &y, &x, 1.0)?;
            if fails { Err(HipError::Capturing("on purpose")) } else { Ok(()) }
        });
        assert_eq!(second.is_err(), fails);
        if let Ok(second) = second {
            // SAFETY: the slices are alive.
            unsafe { second.replay() }.expect("no fault was set");
        }
    }
    let mut sum = [0.0];
    stream.download(&y, 0, &mut sum).expect("no release failed");
    assert_eq!(sum, [3.0]);
    drop((x, y, function, module, stream));
    assert_eq!(fake.alive(), 0);
}
