use super::*;
use proptest::prelude::*;

fn map(fields: &[(&str, Value)]) -> Value {
    Value::Map(fields.iter().map(|(key, value)| (Value::from(*key), value.clone())).collect())
}

fn argument(offset: u64, size: u64, kind: &str) -> Value {
    map(&[(".offset", offset.into()), (".size", size.into()), (".value_kind", kind.into())])
}

fn kernel(arguments: Vec<Value>) -> Value {
    map(&[
        (".name", "add".into()),
        (".symbol", "add.kd".into()),
        (".args", Value::Array(arguments)),
        (".group_segment_fixed_size", 1024.into()),
        (".private_segment_fixed_size", 0.into()),
        (".max_flat_workgroup_size", 256.into()),
    ])
}

fn file(kernels: Vec<Value>) -> Vec<u8> {
    file_for("amdgcn-amd-amdhsa--gfx90a:xnack-", kernels)
}

/// A code object of one note and nothing else.
fn file_for(target: &str, kernels: Vec<Value>) -> Vec<u8> {
    let root = map(&[("amdhsa.target", target.into()), ("amdhsa.kernels", Value::Array(kernels))]);
    let mut metadata = Vec::new();
    rmpv::encode::write_value(&mut metadata, &root).expect("a vector takes everything");
    let mut note = Vec::new();
    for word in [7, metadata.len() as u32, METADATA] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"AMDGPU\0\0");
    note.extend(&metadata);
    note.resize(note.len().next_multiple_of(4), 0);

    let mut file = b"\x7fELF\x02\x01\x01\x40".to_vec();
    file.resize(16, 0);
    file.extend([3, 0, 224, 0, 1, 0, 0, 0]); // A shared object for AMD's GPUs.
    for word in [0, 64, 0u64] {
        file.extend(word.to_le_bytes()); // Entry; program headers; section headers.
    }
    file.extend([0; 4]);
    for half in [64, 56, 1, 64, 0, 0u16] {
        file.extend(half.to_le_bytes());
    }
    file.extend([4, 0, 0, 0, 4, 0, 0, 0]); // A note, readable.
    let len = note.len() as u64;
    for word in [120, 120, 120, len, len, 4] {
        file.extend(u64::to_le_bytes(word));
    }
    file.extend(note);
    file
}

fn usual() -> Vec<u8> {
    file(vec![kernel(vec![
        argument(0, 8, "global_buffer"),
        argument(8, 4, "by_value"),
        argument(16, 8, "hidden_global_offset_x"),
    ])])
}

#[test]
fn a_kernel_is_as_its_metadata_says() {
    let object = CodeObject::read(&usual()).expect("it is whole");
    assert_eq!(object.target, "gfx90a:xnack-");
    assert!(object.is_for("gfx90a") && !object.is_for("gfx906"));
    let kernel = object.kernel("add").expect("it is in there");
    assert_eq!(
        kernel.arguments,
        [Argument { offset: 0, size: 8 }, Argument { offset: 8, size: 4 }]
    );
    assert_eq!((kernel.argument_bytes(), kernel.shared_bytes, kernel.max_block), (12, 1024, 256));
    assert_eq!(object.kernel("sub"), None);
}

#[test]
fn a_target_follows_its_triple_in_any_form() {
    for (written, target) in [
        ("amdgcn-amd-amdhsa--gfx942", "gfx942"),
        ("amdgcn-amd-amdhsa-unknown-gfx942", "gfx942"),
        ("amdgcn-amd-amdhsa-unknown-gfx90a:sramecc+:xnack-", "gfx90a:sramecc+:xnack-"),
        ("amdgcn-amd-amdhsa--gfx9-4-generic:xnack-", "gfx9-4-generic:xnack-"),
        ("gfx1201", "gfx1201"),
        ("amdgcn-amd-amdhsa", ""),
        ("", ""),
    ] {
        let object = CodeObject::read(&file_for(written, Vec::new())).expect("it is whole");
        assert_eq!(object.target, target, "{written}");
        assert!(!target.is_empty() || object.is_for("gfx942"), "HIP decides");
    }
}

#[test]
fn whatever_is_cut_off_is_refused() {
    let whole = usual();
    for len in 0..whole.len() - 3 {
        assert!(CodeObject::read(&whole[..len]).is_err(), "{len} of {} bytes", whole.len());
    }
}

#[test]
fn arguments_beyond_reason_are_refused() {
    for wrong in [
        argument(u64::MAX, 8, "by_value"),
        argument(8, 1 << 40, "by_value"),
        argument(4096, 1, "by_value"),
        map(&[(".offset", 0.into())]),
    ] {
        assert!(CodeObject::read(&file(vec![kernel(vec![wrong.clone()])])).is_err(), "{wrong}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(at in 0usize..500, value: u8, rest: Vec<u8>) {
        let mut bytes = usual();
        let at = at % bytes.len();
        bytes[at] = value;
        CodeObject::read(&bytes).ok();
        CodeObject::of_metadata(&rest).ok();
    }
}
