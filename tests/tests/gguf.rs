//! GGUF files in our own engine: every type of weights, several files, and what they are the same as.

use inference::{ClassifyOptions, Format, GenerateOptions, LoadOptions, load_model};
use inference_core::CacheDtype;
use inference_cpu::Cpu;
use inference_engine::check::distance;
use inference_engine::{checkpoint::Checkpoint, naive::Naive};
use inference_metal::{Candle, OnCpu};
use inference_tests::{
    fixtures::{self, Prompt},
    gguf::{self, ROUNDED, logits},
    gpu, greedy,
};
use inference_text::gguf::{GgmlType, Gguf, Writer};
use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::Path,
};

/// Of logits, where weights and cache are the same and sums have another order.
const SAME: f64 = 1e-5;

/// Of logits where the scales of K-quants are rounded to 16 bits: decision 0018.
const NARROW: f64 = 3e-3;

#[test]
fn every_type_gives_the_same_logits_on_every_device() {
    let dir = tempfile::tempdir().expect("a folder");
    let cpu = Cpu::new(2).expect("starts");
    for ty in gguf::TYPES {
        let path = dir.path().join("model.gguf");
        gguf::write("llama", ty, 2, &path);
        let exact = logits(&Naive::default(), &path, true);
        assert!(exact.iter().all(|x| x.is_finite()), "{ty}");
        let narrow = logits(&Naive::default(), &path, false);
        let far = distance(&narrow, &exact);
        println!("{ty}: scales of 16 bits move the logits by {far:.1e}");
        assert!(far <= NARROW, "{ty}: {far:.1e}");
        let far = distance(&logits(&Candle::new(OnCpu::default()), &path, false), &narrow);
        println!("{ty}: candle is {far:.1e} from the reference device");
        assert!(far <= SAME, "{ty}: {far:.1e}");
        let far = distance(&logits(&cpu, &path, false), &narrow);
        println!("{ty}: the cpu is {far:.1e} from the reference device");
        assert!(far <= ROUNDED, "{ty}: {far:.1e}");
        let (arch, order) = gpu::kind_for(&ty.to_string());
        if let Some(gpu) = gpu::playing(arch, order) {
            let far = distance(&logits(&gpu, &path, false), &narrow);
            println!("{ty}: {arch} is {far:.1e} from the reference device");
            assert!(far <= ROUNDED, "{ty}: {far:.1e}");
        }
    }
}

/// What quantisation itself loses is far more than an error in the order of rows, columns or bits would give.
#[test]
fn a_quantised_fixture_is_close_to_its_golden_values() {
    let dir = tempfile::tempdir().expect("a folder");
    // Their heads are turned; not turned; in one matrix.
    for name in ["llama", "qwen2", "phi3"] {
        for (ty, most) in [(GgmlType::Q8_0, 0.06)] {
            let path = dir.path().join("model.gguf");
            xtask::gguf::convert(&fixtures::path(name), &path, ty).expect("converts");
            for prompt in fixtures::golden(name).prompts.iter().filter(|p| p.tokens.len() < 300) {
                let checkpoint = Checkpoint::open(&path).expect("is described");
                let weights = checkpoint.weights().expect("opens");
                let source = checkpoint.source(&*weights, &|_| {});
                let short = Prompt { greedy: vec![0], ..prompt.clone() };
                let architecture = checkpoint.architecture().clone();
                let naive = Naive::default();
                let run = greedy::run(&naive, architecture, source, &short, CacheDtype::F32, 64);
                let far = distance(&run.0, &prompt.logits);
                assert!(far <= most, "{name} in {ty}, prompt {:?}: {far:.1e}", prompt.name);
            }
        }
    }
}

/// Writes the model of one file as `parts` files, and gives the first.
fn split(whole: &Path, dir: &Path, parts: u16) -> std::path::PathBuf {
    let gguf = Gguf::open(whole).expect("opens");
    let bytes = fs::read(whole).expect("is readable");
    let path = |part: u16| dir.join(format!("model-{:05}-of-{parts:05}.gguf", part + 1));
    for part in 0..parts {
        let mut writer = Writer::new();
        if part == 0 {
            for (key, value) in gguf.values() {
                writer.set(key, value.clone());
            }
        }
        writer.set("split.no", part).set("split.count", parts);
        writer.set("split.tensors.count", gguf.tensors().len() as i32);
        let own: Vec<_> = gguf
            .tensors()
            .iter()
            .enumerate()
            .filter(|(i, _)| i % usize::from(parts) == usize::from(part))
            .map(|(_, tensor)| tensor)
            .collect();
        for tensor in &own {
            writer.tensor(&tensor.name, &tensor.dims, tensor.ty);
        }
        let data = |i: usize, out: &mut dyn Write| {
            out.write_all(&bytes[own[i].begin as usize..][..own[i].bytes as usize])
        };
        let mut out = BufWriter::new(File::create(path(part)).expect("can be made"));
        writer.write(&mut out, data).expect("is written");
    }
    path(0)
}

#[test]
fn a_model_in_several_files_is_the_model_in_one() {
    let dir = tempfile::tempdir().expect("a folder");
    let whole = fixtures::model("storyteller", Format::Gguf).expect("converts");
    let parts = split(&whole, dir.path(), 3);
    let folder = fixtures::path("storyteller");
    let models = [&whole, &parts, &folder]
        .map(|path| load_model(path, &LoadOptions::default().backend("cpu")).expect("loads"));
    let told = models.each_ref().map(|model| {
        let options = GenerateOptions::default().max_tokens(60).temperature(0.8).seed(5);
        model.generate("Once upon a time", &options).expect("starts").text().expect("ends well")
    });
    assert_eq!((&told[0], &told[0]), (&told[1], &told[2]));
    let classified = models.each_ref().map(|model| {
        let options = ClassifyOptions::default().return_logits(true);
        let done = model.classify(&["The cat"], &options).remove(0).expect("ends well");
        done.token.logits.expect("was asked for")
    });
    assert!(distance(&classified[0], &classified[2]) <= SAME);
    let [whole, parts, folder] = models.each_ref().map(|model| model.info().clone());
    assert_eq!(whole, parts);
    assert_eq!((whole.parameters, whole.layers), (folder.parameters, folder.layers));
    assert_eq!((whole.architecture, whole.vocab_size), (folder.architecture, folder.vocab_size));
}

#[test]
fn a_quantised_file_says_so() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("model.gguf");
    for (ty, bits, group) in [(GgmlType::Q4_K, 4, 32), (GgmlType::Q6_K, 6, 16)] {
        gguf::write("qwen3", ty, 1, &path);
        let model = load_model(&path, &LoadOptions::default().backend("cpu")).expect("loads");
        let info = model.info();
        let quantisation = info.quantisation.expect("it is");
        assert_eq!((quantisation.bits, quantisation.group_size), (bits, Some(group)));
        let least = info.parameters * u64::from(bits) / 8;
        assert!(info.weight_bytes > least && info.weight_bytes < 2 * least, "{info:?}");
        let options = GenerateOptions::default().max_tokens(5);
        let done = model.generate("A", &options).expect("starts").finish().expect("ends well");
        assert!(!done.tokens.is_empty());
    }
}
