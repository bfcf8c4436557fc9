//! Headers that say something impossible.

use super::*;
use proptest::prelude::*;

/// A header, byte by byte.
#[derive(Clone, Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn new(tensors: u64, pairs: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(3).u64(tensors).u64(pairs)
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn u32(self, number: u32) -> Self {
        self.raw(&number.to_le_bytes())
    }

    fn u64(self, number: u64) -> Self {
        self.raw(&number.to_le_bytes())
    }

    fn text(self, text: impl AsRef<[u8]>) -> Self {
        self.u64(text.as_ref().len() as u64).raw(text.as_ref())
    }

    fn tensor(self, name: impl AsRef<[u8]>, dims: &[u64], ty: u32, offset: u64) -> Self {
        let named = self.text(name).u32(dims.len() as u32);
        dims.iter().fold(named, |b, dim| b.u64(*dim)).u32(ty).u64(offset)
    }

    /// Room for tensors.
    fn data(self, len: usize) -> Self {
        let padding = self.0.len().next_multiple_of(32) - self.0.len();
        self.raw(&vec![0; padding + len])
    }
}

/// One value, of which so much is there.
fn value(code: u32) -> Bytes {
    Bytes::new(0, 1).text("k").u32(code)
}

fn array(code: u32, count: u64) -> Bytes {
    value(9).u32(code).u64(count)
}

fn one(dims: &[u64], ty: u32, offset: u64) -> Bytes {
    Bytes::new(1, 0).tensor("t", dims, ty, offset).data(64)
}

#[test]
fn a_malformed_header_is_an_error_that_says_where() {
    let pair = |key: &str| Bytes::new(0, 1).text(key).u32(0).raw(&[0, 0]);
    let nested = |depth: usize| (0..depth).fold(value(9), |b, _| b.u32(9).u64(1)).u32(0).u64(0);
    let alignment = |n: u32| Bytes::new(0, 1).text("general.alignment").u32(4).u32(n);
    let two = |a: &str, b: &str, second| {
        Bytes::new(2, 0).tensor(a, &[8], 0, 0).tensor(b, &[8], 0, second).data(64)
    };
    let start = |bytes: &[u8]| Bytes(bytes.to_vec()).u64(0).u64(0);
    let table: &[(Bytes, &str)] = &[
        (Bytes::default(), "claims 4 bytes, at least 4 bytes, but only 0 follow"),
        (start(b"GGML\x03\0\0\0"), "not a GGUF file: it begins with `GGML`"),
        (start(b"\0\xff\n\"\x03\0\0\0"), r#"begins with `\x00\xff\n\"`"#),
        (Bytes(b"version https://git-lfs".to_vec()), "only a pointer to the file"),
        (start(b"GGUF\x01\0\0\0"), "version 1 is not read any more"),
        (start(b"GGUF\x63\0\0\0"), "GGUF version 99 is unknown"),
        (start(b"GGUF\0\0\0\0"), "big-endian"),
        (start(b"GGUF\0\0\0\x03"), "big-endian"),
        (Bytes::new(u64::MAX, 0), "claims 18446744073709551615 tensors"),
        (Bytes::new(0, u64::MAX), "claims 18446744073709551615 metadata values"),
        (Bytes::new(0, 1 << 40), "claims 1099511627776 metadata values"),
        (Bytes::new(1, 0), "claims 1 tensors, at least 33 bytes, but only 0 follow"),
        (Bytes::new(0, 1).u64(65_536).data(99), "key 0 has 65536 bytes; at most 65535"),
        (Bytes::new(0, 1).u64(60_000).data(9), "key 0 claims 60000 bytes of a text"),
        (pair(""), "key 0 is empty"),
        (Bytes::new(0, 1).text(b"\xff\xfe").u32(0).raw(&[0]), "key 0 is not UTF-8"),
        (
            Bytes::new(0, 2).text("k").u32(0).raw(&[0]).text("k").u32(0).raw(&[0]),
            "there are two values of `k`",
        ),
        (value(13).u64(0), "`k` has the unknown type 13"),
        (value(u32::MAX).u64(0), "`k` has the unknown type 4294967295"),
        (value(7).raw(&[2]), "`k` is a boolean of 2"),
        (value(10).u32(0), "`k` claims 8 bytes, at least 8 bytes, but only 4 follow"),
        (value(8).u64(u64::MAX), "`k` claims 18446744073709551615 bytes of a text"),
        (value(8).text(b"\xc3"), "`k` is not UTF-8"),
        (array(13, 0), "`k` is an array of the unknown type 13"),
        (array(0, u64::MAX), "`k` claims 18446744073709551615 values"),
        (
            array(12, 1 << 61),
            "`k` claims 2305843009213693952 values, at least 18446744073709551616",
        ),
        (array(8, 2).u64(0), "`k` claims 2 values, at least 16 bytes, but only 8 follow"),
        (array(8, 1).text(b"\x80"), "`k` is not UTF-8"),
        (array(9, 1 << 50), "`k` claims 1125899906842624 values"),
        (nested(4), "`k` has arrays more than 4 deep"),
        (nested(200), "`k` has arrays more than 4 deep"),
        (alignment(0), "`general.alignment` is 0, not a power of two"),
        (alignment(4), "`general.alignment` is 4, not a power of two"),
        (alignment(48), "`general.alignment` is 48, not a power of two"),
        (
            Bytes::new(0, 1).text("general.alignment").u32(10).u64(32),
            "`general.alignment` is not an unsigned number of 32 bits",
        ),
        (Bytes::new(1, 0).tensor("", &[8], 0, 0).data(64), "the name of tensor 0 is empty"),
        (
            Bytes::new(1, 0).tensor("n".repeat(65), &[8], 0, 0).data(64),
            "the name of tensor 0 has 65 bytes; at most 64",
        ),
        (
            Bytes::new(1, 0).tensor(b"\xff", &[8], 0, 0).data(64),
            "the name of tensor 0 is not UTF-8",
        ),
        (two("t", "t", 32), "there are two tensors `t`"),
        (one(&[], 0, 0), "tensor `t` has 0 dimensions"),
        (one(&[1; 5], 0, 0), "tensor `t` has 5 dimensions"),
        (Bytes::new(1, 0).text("t").u32(u32::MAX).data(64), "tensor `t` has 4294967295 dimensions"),
        (one(&[4, 0], 0, 0), "tensor `t` has a dimension of zero in [4, 0]"),
        (one(&[1 << 32, 1 << 32], 0, 0), "tensor `t` is too large"),
        (one(&[u64::MAX], 24, 0), "tensor `t` is too large"),
        (one(&[8], 4, 0), "tensor `t` has the unknown type 4"),
        (one(&[8], 99, 0), "tensor `t` has the unknown type 99"),
        (one(&[33], 8, 0), "tensor `t` has rows of 33 numbers, but a block of Q8_0 has 32"),
        (one(&[8], 0, 7), "tensor `t` begins at 7, not at a multiple of 32"),
        (one(&[8], 0, 64), "tensor `t` ends behind the end of the file"),
        (
            one(&[17], 0, 0),
            "tensor `t` ends behind the end of the file: 68 bytes from 64 on in 128",
        ),
        (one(&[8], 0, u64::MAX - 31), "tensor `t` ends behind the end of the file"),
        (two("a", "b", 0), "tensors `a` and `b` overlap"),
    ];
    for (bytes, expected) in table {
        let error = parse(&bytes.0).unwrap_err();
        assert!(matches!(error, Error::InvalidFile { .. }));
        let found = error.to_string();
        assert!(found.contains(expected), "{found}\n{expected}");
        assert!(found.starts_with("invalid small.gguf: "), "{found}");
    }
    assert!(parse(&nested(2).0).is_ok() && parse(&alignment(8).0).is_ok());
    assert!(parse(&one(&[8], 0, 32).0).is_ok() && parse(&two("a", "b", 32).0).is_ok());
}

#[test]
fn every_truncation_is_an_error() {
    let (_, content) = small();
    // The last tensor has two bytes, and padding that need not be there.
    let end = content.len() - 30;
    assert!(parse(&content[..end]).is_ok());
    for len in 0..end {
        assert!(matches!(parse(&content[..len]), Err(Error::InvalidFile { .. })), "{len}");
    }
}

/// What a header that was read takes, roughly.
fn memory(gguf: &Gguf) -> usize {
    fn held(array: &Array) -> usize {
        match array {
            Array::String(texts) => texts.iter().map(|t| 24 + t.capacity()).sum(),
            Array::Array(inner) => inner.iter().map(|a| 32 + held(a)).sum(),
            other => 8 * other.len(),
        }
    }
    let value = |value: &Value| match value {
        Value::String(text) => text.capacity(),
        Value::Array(a) => held(a),
        _ => 8,
    };
    gguf.values().iter().map(|(k, v)| k.len() + value(v)).sum()
}

proptest! {
    #[test]
    fn a_flipped_byte_gives_a_model_or_an_error(
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let (_, mut content) = small();
        let header = content.len() - 160;
        for (at, byte) in flips {
            content[at.index(header)] ^= byte;
        }
        if let Ok(gguf) = parse(&content) {
            prop_assert!(memory(&gguf) < 16 * content.len());
            let _ = (gguf.attention(), gguf.quantisation(), gguf.parameters());
        }
    }

    #[test]
    fn any_bytes_give_a_model_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        tensors in 0_u64..4,
        pairs in 0_u64..4,
    ) {
        let _ = parse(&Bytes::new(tensors, pairs).raw(&bytes).0);
    }
}
