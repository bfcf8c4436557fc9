use super::*;
use proptest::prelude::*;
use safetensors::{Dtype, serialize_to_file, tensor::TensorView};
use serde_json::{Value, json};
use std::fs;

/// A folder of this configuration with these tensors of one module, filled with `fill`.
fn folder(config: &Value, tensors: &[(String, Dtype, Vec<usize>)], fill: u8) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    let bytes =
        |dtype: Dtype, shape: &[usize]| shape.iter().product::<usize>() * dtype.bitsize() / 8;
    let data: Vec<_> = tensors.iter().map(|(_, d, s)| vec![fill; bytes(*d, s)]).collect();
    let views = tensors.iter().zip(&data).map(|((name, dtype, shape), data)| {
        (format!("module.{name}"), TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    serialize_to_file(views, None, &dir.path().join("model.safetensors")).unwrap();
    dir
}

fn opened(dir: &tempfile::TempDir) -> Result<Folder> {
    Folder::open(dir.path(), &Config::open(dir.path())?)
}

/// Every scheme, with sizes that often fit.
fn settings() -> impl Strategy<Value = Value> {
    let (bits, group) =
        (prop::sample::select(vec![2, 3, 4, 8]), prop::sample::select(vec![16, 32, 64]));
    (0..8, bits, group).prop_map(|(scheme, bits, group)| match scheme {
        0 => json!({"quantization": {"bits": bits, "group_size": group.max(32)}}),
        1 => json!({"quantization": {"mode": "mxfp4", "bits": 4, "group_size": 32}}),
        2 => json!({"quantization": {"mode": "nvfp4", "bits": 4, "group_size": 16}}),
        3 => json!({"quantization": {"mode": "mxfp8", "bits": 8, "group_size": 32}}),
        4 => json!({"quantization_config": {"quant_method": "gptq", "bits": bits, "group_size": group}}),
        5 => json!({"quantization_config": {"quant_method": "gptq", "bits": bits, "group_size": -1,
            "dynamic": {"+:.*": {}}}}),
        6 => json!({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": group}}),
        _ => json!({"quantization_config": {"quant_method": "fp8", "weight_block_size": [group, bits]}}),
    })
}

fn size() -> impl Strategy<Value = usize> {
    prop::sample::select(vec![0, 1, 2, 3, 4, 8, 8, 12, 16, 16, 32, 32, 48, 64])
}

/// Sizes of at most three dimensions; or none of a great many.
fn shape() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        12 => prop::collection::vec(size(), 2),
        1 => prop::collection::vec(size(), 0..=1),
        1 => prop::collection::vec(1..3usize, 3),
        1 => prop::sample::select(vec![vec![0, 1 << 58], vec![1 << 58, 0]]),
    ]
}

fn dtype() -> impl Strategy<Value = Dtype> {
    use Dtype::{BF16, F8_E4M3, F8_E8M0, F16, F32, I32, U8, U32};
    prop::sample::select(vec![U32, I32, I32, F16, BF16, F32, U8, F8_E4M3, F8_E8M0])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    /// Whatever the parts are: a matrix of the shape that they have together, or an error that names one of them.
    #[test]
    fn any_parts_give_a_matrix_or_an_error(
        config in settings(),
        parts in prop::collection::vec((prop::sample::select(ENDS.to_vec()), dtype(), shape()), 1..5),
        fill in prop::sample::select(vec![0u8, 1, 0x3c, 0x7f, 0x88, 0xff]),
    ) {
        let mut tensors: Vec<(String, _, _)> = vec![];
        for (name, dtype, shape) in parts {
            if tensors.iter().all(|(n, ..)| n != name) {
                tensors.push((name.to_owned(), dtype, shape));
            }
        }
        let weights = opened(&folder(&config, &tensors, fill)).unwrap();
        match weights.matrix("module") {
            Err(e) => prop_assert!(e.to_string().contains("`module."), "{}", e),
            Ok(matrix) => {
                let numbers: usize = matrix.shape().iter().product();
                prop_assert_eq!(matrix.to_f32().len(), numbers);
            }
        }
        weights.release("module");
    }

    /// Parts that fit, of any size, are read.
    #[test]
    fn parts_that_fit_are_read(rows in 1..20usize, groups in 1..6usize, scheme in 0..4, fill: u8) {
        use Dtype::{F8_E4M3, F16, F32, I32, U32};
        let (n, cols) = (rows * 32, groups * 32);
        let (config, parts) = match scheme {
            0 => (
                json!({"quantization": {"bits": 3, "group_size": 32}}),
                vec![("weight", U32, vec![n, groups * 3]), ("scales", F16, vec![n, groups]), ("biases", F16, vec![n, groups])],
            ),
            1 => (
                json!({"quantization_config": {"quant_method": "gptq", "bits": 3, "group_size": 32}}),
                vec![("qweight", I32, vec![groups * 3, n]), ("qzeros", I32, vec![groups, n * 3 / 32]), ("scales", F16, vec![groups, n])],
            ),
            2 => (
                json!({"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32}}),
                vec![("qweight", I32, vec![cols, n / 8]), ("qzeros", I32, vec![groups, n / 8]), ("scales", F16, vec![groups, n])],
            ),
            _ => (
                json!({"quantization_config": {"quant_method": "fp8", "weight_block_size": [7, 50]}}),
                vec![("weight", F8_E4M3, vec![n, cols]), ("weight_scale_inv", F32, vec![n.div_ceil(7), cols.div_ceil(50)])],
            ),
        };
        let parts: Vec<_> = parts.into_iter().map(|(name, d, s)| (name.to_owned(), d, s)).collect();
        // Scales that are no numbers are another matter.
        let weights = opened(&folder(&config, &parts, fill & 0x3b)).unwrap();
        let matrix = weights.matrix("module").unwrap();
        prop_assert_eq!(matrix.shape(), [n, cols]);
        prop_assert_eq!(weights.parameters(), (n * cols) as u64);
        prop_assert!(weights.bytes() >= matrix.bytes());
    }
}
