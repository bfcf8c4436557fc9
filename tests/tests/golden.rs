//! Every family's fixture gives the logits and the greedy tokens of the reference implementation, on every device and
//! in every type of weights.

use inference_core::{CacheDtype, Format};
use inference_cpu::{Cpu, Level};
use inference_engine::{checkpoint::Checkpoint, device::Device, naive::Naive, weights::DType};
use inference_tests::{
    fixtures::{self, Prompt},
    gpu, greedy,
};
use std::path::Path;

/// The tolerances of `docs/correctness.md`: relative distance of the logits.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F32 => 1e-3,
        _ => 2e-2,
    }
}

/// Runs one prompt greedily in chunks of `chunk`; gives the logits of the prompt's last position and the tokens.
fn run<D: Device>(
    device: &D,
    path: &Path,
    prompt: &Prompt,
    cache: CacheDtype,
    chunk: usize,
) -> (Vec<f32>, Vec<u32>) {
    let checkpoint = Checkpoint::open(path).expect("is described");
    let weights = checkpoint.weights().expect("opens");
    let source = checkpoint.source(&*weights, &|_| {});
    greedy::run(device, checkpoint.architecture().clone(), source, prompt, cache, chunk)
}

/// Compares a fixture in `dtype` on `device` with its golden values.
fn check<D: Device>(device: &D, what: &str, name: &str, dtype: DType, chunk: usize, long: bool) {
    let dir = tempfile::tempdir().expect("a folder");
    fixtures::convert(name, dtype, dir.path());
    check_model(device, what, name, dir.path(), dtype, chunk, long);
}

/// The same for the model at `path`, which is the fixture in `dtype`.
fn check_model<D: Device>(
    device: &D,
    what: &str,
    name: &str,
    path: &Path,
    dtype: DType,
    chunk: usize,
    long: bool,
) {
    let cache = match dtype {
        DType::F32 => CacheDtype::F32,
        DType::F16 => CacheDtype::F16,
        _ => CacheDtype::Bf16,
    };
    for prompt in fixtures::golden(name).prompts {
        if (prompt.tokens.len() > 1000) != long {
            continue;
        }
        let (logits, tokens) = run(device, path, &prompt, cache, chunk);
        let at = format!("{name} in {dtype:?} on {what}, prompt {:?}", prompt.name);
        greedy::compare(&at, &prompt, &logits, &tokens, tolerance(dtype));
    }
}

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

#[test]
fn the_reference_device_meets_the_golden_values() {
    for name in fixtures::families() {
        for dtype in DTYPES {
            check(&Naive { block_len: 7 }, "naive", &name, dtype, 16, false);
        }
    }
}

#[test]
fn the_cpu_meets_the_golden_values_at_every_level() {
    for level in Level::available() {
        let cpu = Cpu::with_level(2, level).expect("is available");
        for name in fixtures::families() {
            for dtype in DTYPES {
                check(&cpu, &format!("cpu {level:?}"), &name, dtype, 13, false);
            }
        }
    }
}

#[test]
fn the_gpu_meets_the_golden_values() {
    for name in fixtures::families() {
        for dtype in DTYPES {
            let (arch, order) = gpu::kind_for(&format!("{name} {dtype:?}"));
            let Some(gpu) = gpu::playing(arch, order) else { return };
            check(&gpu, arch, &name, dtype, 29, false);
        }
    }
}

#[test]
fn long_prompts_meet_the_golden_values() {
    let cpu = Cpu::new(2).expect("starts");
    for name in fixtures::families() {
        for dtype in DTYPES {
            check(&cpu, "cpu", &name, dtype, 256, true);
        }
        check(&Naive::default(), "naive", &name, DType::F32, 512, true);
        // Lane by lane it takes long: those whose layers have windows, or whose rotation depends on the length.
        if ["gemma3", "phi3"].contains(&name.as_str()) {
            let (arch, order) = gpu::kind_for(&name);
            if let Some(gpu) = gpu::playing(arch, order) {
                check(&gpu, arch, &name, DType::Bf16, 256, true);
            }
        }
    }
}

/// Its numbers are those of the folder, so its golden values are.
#[test]
fn gguf_files_meet_the_golden_values() {
    let cpu = Cpu::new(2).expect("starts");
    let mut met = 0;
    for name in fixtures::families() {
        let Some(path) = fixtures::model(&name, Format::Gguf) else { continue };
        for long in [false, true] {
            check_model(&cpu, "cpu, GGUF", &name, &path, DType::Bf16, 256, long);
        }
        let naive = Naive { block_len: 7 };
        check_model(&naive, "naive, GGUF", &name, &path, DType::Bf16, 16, false);
        met += 1;
    }
    assert_eq!(met, fixtures::families().len() - 1, "all but llama-dynamic");
}
