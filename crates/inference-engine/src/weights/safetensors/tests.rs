use super::*;
use crate::weights::header::tensors;
use bytes::Bytes;
use proptest::prelude::*;
use safetensors::{Dtype, serialize, tensor::TensorView};

/// A file with this header before this many bytes of data.
fn file(header: &str, data: usize) -> Vec<u8> {
    let mut content = (header.len() as u64).to_le_bytes().to_vec();
    content.extend_from_slice(header.as_bytes());
    content.extend((0..data).map(|i| i as u8));
    content
}

/// A valid file with tensors of these names, each `[2, 3]` of `dtype`, filled with its place in the list.
fn valid(dtype: Dtype, names: &[&str]) -> Vec<u8> {
    let size = 6 * dtype.bitsize() / 8;
    let data: Vec<_> = (0..names.len()).map(|i| vec![i as u8; size]).collect();
    let view = |bytes| TensorView::new(dtype, vec![2, 3], bytes).unwrap();
    serialize(names.iter().zip(&data).map(|(n, d)| (*n, view(d))), None).unwrap()
}

fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn refusal(files: &[(&str, &[u8])]) -> String {
    SafeTensors::open(folder(files).path()).unwrap_err().to_string()
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn tensors_come_as_they_are_stored() {
    let dir = folder(&[("model.safetensors", &valid(Dtype::BF16, &["a", "b"]))]);
    let weights = SafeTensors::open(dir.path()).unwrap();
    let b = weights.get("b").unwrap();
    assert_eq!((b.dtype, &b.shape[..], &b.bytes[..]), (DType::Bf16, &[2, 3][..], &[1; 12][..]));
    assert_eq!((weights.bytes(), weights.parameters()), (24, 12));
    assert!(weights.has("a") && !weights.has("c"));
    let mut names: Vec<_> = weights.names().collect();
    names.sort();
    assert_eq!(names, ["a", "b"]);
    // The mapping outlives the folder's handle.
    drop(weights);
    assert_eq!(b.bytes[0], 1);
}

#[test]
fn a_missing_tensor_is_named() {
    let dir = folder(&[("model.safetensors", &valid(Dtype::F32, &["a"]))]);
    let weights = SafeTensors::open(dir.path()).unwrap();
    let error = weights.get("model.norm.weight").unwrap_err();
    assert!(matches!(error, Error::MissingTensor { ref name, .. } if name == "model.norm.weight"));
}

#[test]
fn an_unusable_type_is_an_error_only_when_asked_for() {
    let header = r#"{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "b": {"dtype": "I64", "shape": [1], "data_offsets": [4, 12]},
        "c": {"dtype": "F2_OF_2030", "shape": [7], "data_offsets": [12, 14]}}"#;
    let dir = folder(&[("model.safetensors", &file(header, 14))]);
    let weights = SafeTensors::open(dir.path()).unwrap();
    assert_eq!(weights.get("a").unwrap().bytes.len(), 4);
    for (name, dtype) in [("b", "I64"), ("c", "F2_OF_2030")] {
        let found = weights.get(name).unwrap_err().to_string();
        assert!(
            found.contains(&format!("model.safetensors: tensor `{name}` is stored as {dtype}")),
            "{found}"
        );
    }
}

#[test]
fn a_damaged_file_is_an_error() {
    let t = |name: &str, shape: &str, from: &str, to: &str| {
        format!(r#""{name}": {{"dtype": "F32", "shape": {shape}, "data_offsets": [{from}, {to}]}}"#)
    };
    let whole = |tensors: &[String], data| file(&format!("{{{}}}", tensors.join(", ")), data);
    let max = u64::MAX.to_string();
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (vec![], "shorter than the 8 bytes before its header"),
        (vec![1; 7], "shorter than the 8 bytes before its header"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0".to_vec(), "git lfs pull"),
        (
            u64::MAX.to_le_bytes().to_vec(),
            "its header claims 18446744073709551615 bytes; at most 100000000",
        ),
        (100u64.to_le_bytes().to_vec(), "its header claims 100 bytes, but only 0 follow"),
        (file("", 0), "its header is invalid"),
        (file("[]", 0), "expected an object of tensors"),
        (file("{} x", 0), "its header is invalid: trailing characters"),
        (file(&"{\"a\":".repeat(10_000), 0), "its header is invalid: tensor `a`"),
        (file("{\"\u{0}\": 1}", 0), "its header is invalid"),
        (whole(&[r#""a": {"dtype": "F32"}"#.to_owned()], 0), "tensor `a`: missing field `shape`"),
        (whole(&[t("a", "[1]", "-4", "0")], 4), "tensor `a`: invalid value: integer `-4`"),
        (whole(&[t("a", "[1]", "0", "4.0")], 4), "tensor `a`: invalid type"),
        (whole(&[t("a", "[-1]", "0", "4")], 4), "tensor `a`: invalid value: integer `-1`"),
        (whole(&[t("a", "1", "0", "4")], 4), "tensor `a`: invalid type"),
        (whole(&[t("a", "[1]", "4", "0")], 4), "tensor `a` ends at byte 0, before its begin at 4"),
        (
            whole(&[t("a", "[1]", "0", "4"), t("b", "[1]", "2", "6")], 6),
            "tensor `b` begins at byte 2, within another",
        ),
        (
            whole(&[t("a", "[1]", "0", "4"), t("b", "[1]", "0", "4")], 4),
            "tensor `b` begins at byte 0, within another",
        ),
        (
            whole(&[t("a", "[1]", "0", "4"), t("b", "[1]", "8", "12")], 12),
            "tensor `b` begins at byte 8, which leaves a hole",
        ),
        (
            whole(&[t("a", "[1]", "4", "8")], 8),
            "tensor `a` begins at byte 4, which leaves a hole from 0 on",
        ),
        (
            whole(&[t("a", "[2]", "0", "8")], 4),
            "tensor `a` ends at byte 8, but the data at 4: the file is cut off",
        ),
        (whole(&[t("a", "[1]", "0", "4")], 5), "1 bytes after the last tensor"),
        (whole(&[t("a", "[3]", "0", "8")], 8), "tensor `a` has shape [3] of F32, but 8 bytes"),
        (
            whole(&[t("a", "[1, 2, 1, 2, 1, 2]", "0", "4")], 4),
            "tensor `a` has shape [1, 2, 1, 2, …] of F32, but 4 bytes",
        ),
        (
            whole(&[t("a", &format!("[{max}, 2]"), "0", "4")], 4),
            "tensor `a` has shape [18446744073709551615, 2], which overflows",
        ),
        (whole(&[t("a", &format!("[{max}]"), "0", "4")], 4), "which overflows"),
        (whole(&[t("a", "[1]", "0", &max)], 4), "the file is cut off"),
        (
            whole(&[t("a", "[0]", "0", "0"), t("a", "[1]", "0", "4")], 4),
            "there are two tensors `a`",
        ),
    ];
    for (content, expected) in cases {
        let found = refusal(&[("model.safetensors", &content)]);
        assert!(
            found.contains("model.safetensors: ") && found.contains(expected),
            "{found}\nis not\n{expected}"
        );
    }
}

#[test]
fn odd_but_valid_files_are_read() {
    for (header, data, tensors) in [
        ("{}", 0, 0),
        (r#"{"__metadata__": {"format": "pt"}}   "#, 0, 0),
        // Scalars, empty tensors, any order.
        (
            r#"{"b": {"dtype": "F32", "shape": [], "data_offsets": [2, 6]},
                "a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
                "c": {"dtype": "F32", "shape": [0, 9], "data_offsets": [2, 2], "more": {}}}"#,
            6,
            3,
        ),
    ] {
        let dir = folder(&[("model.safetensors", &file(header, data))]);
        let weights = SafeTensors::open(dir.path()).unwrap();
        assert_eq!(weights.names().count(), tensors);
    }
}

#[test]
fn the_one_file_goes_before_the_index_and_that_before_the_rest() {
    let (one, two, three) =
        (valid(Dtype::F32, &["one"]), valid(Dtype::F32, &["two"]), valid(Dtype::F32, &["three"]));
    let index = br#"{"metadata": {"total_size": 24}, "weight_map": {"two": "shard.safetensors"}}"#;
    let mut files: Vec<(&str, &[u8])> = vec![
        ("model.safetensors", &one),
        (INDEX, index),
        ("shard.safetensors", &two),
        ("zzz.safetensors", &three),
        ("config.json", b"{}"),
    ];
    let names = |files: &[_]| {
        let weights = SafeTensors::open(folder(files).path()).unwrap();
        let mut names: Vec<_> = weights.names().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(names(&files), ["one"]);
    files.remove(0);
    assert_eq!(names(&files), ["two"]);
    files.remove(0);
    assert_eq!(names(&files), ["three", "two"]);
    files.truncate(0);
    files.push(("config.json", b"{}"));
    assert!(matches!(SafeTensors::open(folder(&files).path()), Err(Error::NotAModel { .. })));
}

#[test]
fn a_damaged_index_is_an_error() {
    let shard = valid(Dtype::F32, &["a"]);
    let cases = [
        ("{", "not JSON"),
        ("[]", "`weight_map` must be an object"),
        ("{}", "`weight_map` must be an object"),
        (r#"{"weight_map": {}}"#, "`weight_map` must be an object that is not empty"),
        (r#"{"weight_map": {"a": 1}}"#, "`weight_map.a` must be a file name"),
        (r#"{"weight_map": {"a": ""}}"#, "\"\" is not a file of this folder"),
        (
            r#"{"weight_map": {"a": "/etc/passwd"}}"#,
            "tensor `a`: \"/etc/passwd\" is not a file of this folder",
        ),
        (r#"{"weight_map": {"a": "../s.safetensors"}}"#, "is not a file of this folder"),
        (r#"{"weight_map": {"a": "x/../../s.safetensors"}}"#, "is not a file of this folder"),
        (r#"{"weight_map": {"a": "gone.safetensors"}}"#, "there is no file \"gone.safetensors\""),
        (
            r#"{"weight_map": {"a": "s.safetensors", "b": "s.safetensors"}}"#,
            "tensor `b` is not in \"s.safetensors\"",
        ),
    ];
    for (index, expected) in cases {
        let found = refusal(&[(INDEX, index.as_bytes()), ("s.safetensors", &shard)]);
        assert!(found.contains(INDEX) && found.contains(expected), "{found}\nis not\n{expected}");
    }
}

#[test]
fn a_tensor_in_two_files_is_an_error() {
    let (first, second) = (valid(Dtype::F32, &["a", "b"]), valid(Dtype::F32, &["b", "c"]));
    let index = br#"{"weight_map": {"a": "1.safetensors", "c": "2.safetensors"}}"#;
    let found = refusal(&[(INDEX, index), ("1.safetensors", &first), ("2.safetensors", &second)]);
    assert!(found.contains("2.safetensors: tensor `b` is also in "), "{found}");
    let swapped = br#"{"weight_map": {"a": "2.safetensors", "c": "1.safetensors"}}"#;
    let (first, second) = (valid(Dtype::F32, &["a"]), valid(Dtype::F32, &["c"]));
    let found = refusal(&[(INDEX, swapped), ("1.safetensors", &first), ("2.safetensors", &second)]);
    assert!(found.contains("is not in "), "{found}");
}

#[test]
fn what_is_no_file_is_an_error() {
    let dir = folder(&[]);
    fs::create_dir(dir.path().join("model.safetensors")).unwrap();
    let found = SafeTensors::open(dir.path()).unwrap_err().to_string();
    assert!(found.contains("model.safetensors: not a regular file"), "{found}");
    assert!(matches!(SafeTensors::open(&dir.path().join("gone")), Err(Error::Io { .. })));
}

/// The cache of Hugging Face keeps files elsewhere.
#[cfg(unix)]
#[test]
fn a_link_out_of_the_folder_is_followed() {
    let blobs = folder(&[("blob", &valid(Dtype::F32, &["a"]))]);
    let dir = folder(&[]);
    std::os::unix::fs::symlink(blobs.path().join("blob"), dir.path().join("model.safetensors"))
        .unwrap();
    assert!(SafeTensors::open(dir.path()).unwrap().has("a"));
}

/// A small valid file and the length of its header with the 8 bytes before.
fn sample() -> (Vec<u8>, usize) {
    let content = valid(Dtype::F16, &["first", "second", "third"]);
    let header = u64::from_le_bytes(*content.first_chunk().unwrap()) as usize;
    (content, 8 + header)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    /// Whatever the header says: an answer, whose tensors are as long as they claim; and no answer where the crate of the
    /// format has one only for types that it does not know.
    #[test]
    fn any_damage_gives_tensors_or_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), byte()), 1..6),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let (mut content, header) = sample();
        for (place, byte) in changes {
            content[place.index(header)] = byte;
        }
        if let Some(cut) = cut {
            content.truncate(cut.index(content.len()));
        }
        let theirs = safetensors::SafeTensors::deserialize(&content).map(|t| t.len());
        let ours = tensors(Path::new("x"), &Bytes::from(content.clone()));
        match ours {
            Ok(found) => {
                let known = found.iter().all(|t| ["F16", "BF16", "I16", "U16"].contains(&&*t.dtype));
                prop_assert_eq!(theirs.is_ok_and(|n| n == found.len()), known);
                let total: usize = found.iter().map(|t| t.bytes.len()).sum();
                prop_assert!(total <= content.len());
            }
            // Two of one name: they merge, we refuse.
            Err(e) => prop_assert!(theirs.is_err() || e.to_string().contains("two tensors")),
        }
    }
}

/// Any byte, but rather one that keeps the JSON alive.
fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), prop::sample::select(b"0123456789,:[]{}\" -eE.FBI16a\\".to_vec())]
}
