//! What a file says of its model.

use super::*;
use inference_core::Quantisation;

fn qwen3() -> Writer {
    let mut writer = Writer::new();
    writer
        .set("general.architecture", "qwen3")
        .set("qwen3.block_count", 2_u32)
        .set("qwen3.context_length", 40_960_u32)
        .set("qwen3.embedding_length", 64_u32)
        .set("qwen3.attention.head_count", 4_u32);
    writer
}

fn read(writer: &Writer) -> Gguf {
    parse(&content(writer, &[])).unwrap()
}

#[test]
fn the_shape_of_a_model() {
    let mut writer = qwen3();
    let gguf = read(&writer);
    assert_eq!(gguf.architecture().unwrap(), "qwen3");
    assert_eq!(gguf.context_len().unwrap(), 40_960);
    assert_eq!((gguf.layers().unwrap(), gguf.hidden_size().unwrap()), (2, 64));
    // Without more, as many heads for keys, and the width shared by them.
    assert_eq!(gguf.cached_numbers_per_token().unwrap(), 2 * 4 * (16 + 16));

    writer
        .set("qwen3.attention.head_count_kv", 2_u32)
        .set("qwen3.attention.key_length", 24_u32)
        .set("qwen3.attention.value_length", 32_u32);
    assert_eq!(read(&writer).cached_numbers_per_token().unwrap(), 2 * 2 * (24 + 32));

    writer.set("qwen3.attention.head_count_kv", vec![0_i32, 2]);
    assert_eq!(read(&writer).cached_numbers_per_token().unwrap(), 2 * (24 + 32));
    let kv_heads: Vec<_> =
        read(&writer).attention().unwrap().iter().map(|shape| shape.kv_heads).collect();
    assert_eq!(kv_heads, [0, 2]);
    writer.set("qwen3.vocab_size", 7_u32);
    assert_eq!(read(&writer).vocab_size().unwrap(), 7);
    writer.set("tokenizer.ggml.tokens", vec!["a", "b"]);
    assert_eq!(read(&writer).vocab_size().unwrap(), 2);
}

#[test]
fn what_can_not_be_names_its_key() {
    let table: &[(&str, Value, &str)] = &[
        ("general.architecture", 1_u32.into(), "`general.architecture` is not a text"),
        ("qwen3.block_count", 0_u32.into(), "`qwen3.block_count` is zero"),
        ("qwen3.block_count", u32::MAX.into(), "at most 4096 are believed"),
        ("qwen3.embedding_length", (-1_i32).into(), "`qwen3.embedding_length` is not a whole"),
        ("qwen3.embedding_length", u64::MAX.into(), "`qwen3.embedding_length` is not a whole"),
        ("qwen3.attention.head_count", "4".into(), "`qwen3.attention.head_count` is not a whole"),
        (
            "qwen3.attention.head_count_kv",
            vec![1_u32].into(),
            "`qwen3.attention.head_count_kv` has 1 numbers for 2 layers",
        ),
    ];
    for (key, value, expected) in table {
        let found = read(qwen3().set(*key, value.clone())).attention().unwrap_err().to_string();
        assert!(found.contains(expected), "{found}\n{expected}");
    }
    let mut other = qwen3();
    other.set("general.architecture", "llama");
    let found = read(&other).context_len().unwrap_err().to_string();
    assert!(found.ends_with("`llama.context_length` is missing"), "{found}");
}

#[test]
fn the_quantisation_is_that_of_most_numbers() {
    let mut writer = Writer::new();
    assert_eq!(read(&writer).quantisation(), None);
    writer.tensor("norm", &[4096], GgmlType::F32).tensor("w", &[256, 2], GgmlType::Q4_K);
    let gguf = parse(&content(&writer, &[4 * 4096, 288])).unwrap();
    assert_eq!(gguf.quantisation(), Some(Quantisation { bits: 4, group_size: Some(32) }));
    assert_eq!((gguf.parameters(), gguf.weight_bytes()), (4096 + 512, 4 * 4096 + 288));
    writer.tensor("head", &[256, 3], GgmlType::BF16);
    let gguf = parse(&content(&writer, &[4 * 4096, 288, 1536])).unwrap();
    assert_eq!(gguf.quantisation(), None);
    assert_eq!(gguf.dominant_type(), Some(GgmlType::BF16));
}
