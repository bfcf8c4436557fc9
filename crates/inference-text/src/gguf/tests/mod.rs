//! Tests of reading and writing GGUF files.

mod converted;
mod malformed;
mod model;
mod tokenizer;

use super::*;

/// The bytes of `writer`'s file; each tensor is filled with its index.
fn content(writer: &Writer, sizes: &[usize]) -> Vec<u8> {
    let mut out = Vec::new();
    writer.write(&mut out, |i, out| out.write_all(&vec![i as u8; sizes[i]])).unwrap();
    out
}

/// A file with a value of every type and three tensors.
fn small() -> (Writer, Vec<u8>) {
    let mut writer = Writer::new();
    writer
        .set("general.architecture", "llama")
        .set("a.u8", 1_u8)
        .set("a.i8", -1_i8)
        .set("a.u16", 2_u16)
        .set("a.i16", -2_i16)
        .set("a.u32", 3_u32)
        .set("a.i32", -3_i32)
        .set("a.u64", 4_u64)
        .set("a.i64", -4_i64)
        .set("a.f32", 0.5_f32)
        .set("a.f64", 0.25_f64)
        .set("a.bool", true)
        .set("a.texts", vec!["x", "", "ü"])
        .set("a.floats", vec![1.0_f32, 2.0])
        .set("a.none", Vec::<u32>::new())
        .set("a.nested", vec![Array::I32(vec![1, -2]), Array::Bool(vec![false, true])])
        .tensor("norm", &[3], GgmlType::F32)
        .tensor("matrix", &[64, 2], GgmlType::Q4_0)
        .tensor("one", &[1, 1, 1, 1], GgmlType::BF16);
    let content = content(&writer, &[12, 72, 2]);
    (writer, content)
}

fn parse(content: &[u8]) -> Result<Gguf> {
    Gguf::parse(Path::new("small.gguf"), content)
}

/// The file of `writer` on a disk.
fn saved(path: &Path, writer: &Writer, sizes: &[usize]) -> PathBuf {
    fs::write(path, content(writer, sizes)).unwrap();
    path.to_owned()
}

#[test]
fn what_is_written_is_read() {
    let (_, content) = small();
    let gguf = parse(&content).unwrap();
    assert_eq!(gguf.version(), 3);
    assert_eq!(gguf.values().len(), 16);
    assert_eq!(gguf.require::<&str>("general.architecture").unwrap(), "llama");
    for (key, number) in [("a.u8", 1), ("a.u16", 2), ("a.u32", 3), ("a.u64", 4)] {
        assert_eq!(gguf.require::<u32>(key).unwrap(), number);
        assert_eq!(gguf.require::<u64>(key).unwrap(), u64::from(number));
    }
    for (key, number) in [("a.i8", -1.0), ("a.i64", -4.0), ("a.f32", 0.5), ("a.f64", 0.25)] {
        assert_eq!(gguf.require::<f64>(key).unwrap(), number);
    }
    assert!(gguf.require::<bool>("a.bool").unwrap());
    assert_eq!(gguf.require::<&[String]>("a.texts").unwrap(), ["x", "", "ü"]);
    assert_eq!(gguf.require::<&[f32]>("a.floats").unwrap(), [1.0, 2.0]);
    assert!(gguf.require::<Vec<u32>>("a.none").unwrap().is_empty());
    let nested = vec![Array::I32(vec![1, -2]), Array::Bool(vec![false, true])];
    assert_eq!(gguf.values()["a.nested"], nested.into());

    let tensors = gguf.tensors();
    let names: Vec<_> = tensors.iter().map(|t| (t.name.as_str(), &t.dims[..], t.ty)).collect();
    assert_eq!(
        names,
        [
            ("norm", &[3][..], GgmlType::F32),
            ("matrix", &[64, 2], GgmlType::Q4_0),
            ("one", &[1, 1, 1, 1], GgmlType::BF16)
        ]
    );
    for (index, tensor) in tensors.iter().enumerate() {
        let bytes = &content[tensor.begin as usize..][..tensor.bytes as usize];
        assert!(tensor.begin.is_multiple_of(32) && bytes.iter().all(|b| *b == index as u8));
    }
}

#[test]
fn a_getter_names_the_key() {
    let (_, content) = small();
    let gguf = parse(&content).unwrap();
    let message = |e: Option<Error>| e.unwrap().to_string();
    let found = message(gguf.require::<u32>("a.i32").err());
    assert_eq!(found, "invalid small.gguf: `a.i32` is not a whole number of 32 bits");
    let found = message(gguf.get::<&str>("a.bool").err());
    assert_eq!(found, "invalid small.gguf: `a.bool` is not a text");
    let found = message(gguf.require::<bool>("b").err());
    assert_eq!(found, "invalid small.gguf: `b` is missing");
    assert_eq!(gguf.get::<bool>("b").unwrap(), None);
}

#[test]
fn only_the_header_is_read() {
    struct Panics;
    impl std::io::Read for Panics {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            panic!("a tensor was read")
        }
    }
    let (_, content) = small();
    let first = parse(&content).unwrap().tensors()[0].begin as usize;
    let source = std::io::Read::chain(&content[..first], Panics);
    assert!(Header::read(source, content.len() as u64, 0).is_ok());
}

#[test]
fn an_alignment_is_honoured() {
    let (mut writer, _) = small();
    writer.set("general.alignment", 128_u32);
    let gguf = parse(&content(&writer, &[12, 72, 2])).unwrap();
    assert!(gguf.tensors().iter().all(|t| t.begin.is_multiple_of(128)));
    for wrong in [Value::U32(0), Value::U32(4), Value::U32(48), Value::U64(32)] {
        writer.set("general.alignment", wrong);
        assert!(writer.write(&mut Vec::new(), |_, _| Ok(())).is_err());
    }
}

#[test]
fn a_writer_refuses_wrong_tensors() {
    let mut writer = Writer::new();
    writer.tensor("w", &[4], GgmlType::F32);
    for bytes in [15, 17] {
        let written = writer.write(&mut Vec::new(), |_, out| out.write_all(&vec![0; bytes]));
        let message = written.unwrap_err().to_string();
        assert_eq!(message, format!("tensor `w` has 16 bytes, but {bytes} were written"));
    }
    writer.tensor("q", &[33], GgmlType::Q8_0);
    let written = writer.write(&mut Vec::new(), |_, out| out.write_all(&[0; 16]));
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
}

/// A part of a model of three.
fn part(number: u16) -> Writer {
    let mut writer = Writer::new();
    writer
        .set("split.no", number)
        .set("split.count", 3_u16)
        .set("split.tensors.count", 3_i32)
        .tensor(format!("t{number}"), &[2], GgmlType::F32);
    writer
}

#[test]
fn a_split_model_is_read_from_its_first_part() {
    let dir = tempfile::tempdir().unwrap();
    let path = |n| dir.path().join(format!("m-{n:05}-of-00003.gguf"));
    let write = |n: u16, writer: &Writer| saved(&path(n + 1), writer, &[8]);
    let fails = |n| Gguf::open(&path(n)).unwrap_err().to_string();

    write(0, &part(0));
    write(2, &part(2));
    let found = fails(1);
    assert!(found.contains("part 2 of 3 is missing: ") && found.contains("m-00002-of-00003"));
    write(1, &part(1));
    let gguf = Gguf::open(&path(1)).unwrap();
    assert_eq!(gguf.parts(), [path(1), path(2), path(3)]);
    let tensors: Vec<_> = gguf.tensors().iter().map(|t| (t.name.as_str(), t.part)).collect();
    assert_eq!(tensors, [("t0", 0), ("t1", 1), ("t2", 2)]);
    let found = fails(2);
    assert!(found.contains("part 2 of 3: open the first, ") && found.contains("m-00001-of"));

    let renamed = dir.path().join("m.gguf");
    fs::copy(path(1), &renamed).unwrap();
    let found = Gguf::open(&renamed).unwrap_err().to_string();
    assert!(found.ends_with("its name must end with `-00001-of-00003.gguf`"), "{found}");

    write(1, part(1).set("split.no", 2_u16));
    assert!(fails(1).ends_with("`split.no` is 2 and `split.count` 3, not 1 and 3"));
    write(1, part(1).set("split.count", 2_u16));
    assert!(fails(1).ends_with("`split.no` is 1 and `split.count` 2, not 1 and 3"));
    let mut twice = Writer::new();
    twice.set("split.no", 1_u16).set("split.count", 3_u16).tensor("t0", &[2], GgmlType::F32);
    write(1, &twice);
    assert!(fails(1).ends_with("tensor `t0` is in another part as well"));
    write(1, &part(1));
    write(0, part(0).set("split.tensors.count", 4_i32));
    assert!(fails(1).ends_with("`split.tensors.count` is 4, but the 3 parts have 3"));
    write(0, part(0).set("split.no", 3_u16));
    assert!(fails(1).ends_with("`split.no` is 3, but `split.count` is 3"));
    write(0, part(0).set("split.count", 70_000_u32));
    assert!(fails(1).ends_with("`split.count` is 70000; at most 65535 are possible"));
}

#[test]
fn what_is_no_file_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Gguf::open(&dir.path().join("a.gguf")), Err(Error::Io { .. })));
    let found = Gguf::open(dir.path()).unwrap_err().to_string();
    assert!(found.ends_with("not a regular file"));
}
