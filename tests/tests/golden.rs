//! Every family's fixture gives the logits and the greedy tokens of the reference implementation, on every device and
//! in every type of weights.

use inference_core::Format;
use inference_cpu::{Cpu, Level};
use inference_engine::{naive::Naive, weights::DType};
use inference_metal::{Candle, OnCpu};
use inference_tests::{
    fixtures,
    golden::{LONG, SHORT, check, check_model},
    gpu,
};

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

#[test]
fn the_reference_device_meets_the_golden_values() {
    for name in fixtures::families() {
        for dtype in DTYPES {
            check(&Naive { block_len: 7 }, "naive", &name, dtype, 16, SHORT);
        }
    }
}

#[test]
fn the_cpu_meets_the_golden_values_at_every_level() {
    for level in Level::available() {
        let cpu = Cpu::with_level(2, level).expect("is available");
        for name in fixtures::families() {
            for dtype in DTYPES {
                check(&cpu, &format!("cpu {level:?}"), &name, dtype, 13, SHORT);
            }
        }
    }
}

#[test]
fn the_gpu_meets_the_golden_values() {
    let families = fixtures::families();
    let cases = families.iter().flat_map(|name| DTYPES.map(|dtype| (name, dtype)));
    for (case, (name, dtype)) in cases.enumerate() {
        let (arch, order) = gpu::kind(case);
        let Some(gpu) = gpu::playing(arch, order) else { return };
        check(&gpu, arch, name, dtype, 29, SHORT);
    }
}

#[test]
fn candles_tensors_meet_the_golden_values() {
    let candle = Candle::new(OnCpu::default());
    for name in fixtures::families() {
        for dtype in DTYPES {
            check(&candle, "candle", &name, dtype, 29, SHORT);
        }
    }
}

#[test]
fn long_prompts_meet_the_golden_values() {
    let cpu = Cpu::new(2).expect("starts");
    for name in fixtures::families() {
        for dtype in DTYPES {
            check(&cpu, "cpu", &name, dtype, 256, LONG);
        }
        check(&Naive::default(), "naive", &name, DType::F32, 512, LONG);
        check(&Candle::new(OnCpu::default()), "candle", &name, DType::Bf16, 512, LONG);
        // Lane by lane it takes long: those whose layers have windows, or whose rotation depends on the length.
        if ["gemma3", "phi3"].contains(&name.as_str()) {
            let (arch, order) = gpu::kind_for(&name);
            if let Some(gpu) = gpu::playing(arch, order) {
                check(&gpu, arch, &name, DType::Bf16, 256, LONG);
            }
        }
    }
}

#[test]
#[ignore = "takes two minutes"]
fn the_gpu_meets_the_golden_values_of_the_other_long_prompts() {
    for name in ["llama", "llama-linear", "qwen3-yarn"] {
        let (arch, order) = gpu::kind_for(name);
        let Some(gpu) = gpu::playing(arch, order) else { return };
        check(&gpu, arch, name, DType::Bf16, 256, LONG);
    }
}

/// The one model that was trained: its logits are not those of random weights.
#[test]
fn the_storyteller_meets_its_golden_values() {
    let name = "storyteller";
    for (case, dtype) in DTYPES.into_iter().enumerate() {
        check(&Naive::default(), "naive", name, dtype, 16, SHORT);
        check(&Cpu::new(2).expect("starts"), "cpu", name, dtype, 13, SHORT);
        check(&Candle::new(OnCpu::default()), "candle", name, dtype, 29, SHORT);
        let (arch, order) = gpu::kind(case + 2);
        if let Some(gpu) = gpu::playing(arch, order) {
            check(&gpu, arch, name, dtype, 29, SHORT);
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
        for lengths in [SHORT, LONG] {
            check_model(&cpu, "cpu, GGUF", &name, &path, DType::Bf16, 256, lengths);
        }
        let naive = Naive { block_len: 7 };
        check_model(&naive, "naive, GGUF", &name, &path, DType::Bf16, 16, SHORT);
        let (arch, order) = gpu::kind(met);
        if let Some(gpu) = gpu::playing(arch, order) {
            let what = format!("{arch}, GGUF");
            check_model(&gpu, &what, &name, &path, DType::Bf16, 29, SHORT);
        }
        met += 1;
    }
    assert_eq!(met, fixtures::families().len() - 1, "all but llama-dynamic");
}
