use super::*;
use proptest::prelude::*;

fn raw(dtype: DType, rows: usize, numbers: &[f32]) -> RawTensor {
    let mut bytes = vec![0; numbers.len() * dtype.size()];
    for (x, to) in numbers.iter().zip(bytes.chunks_exact_mut(dtype.size())) {
        narrow(*x, dtype, to);
    }
    RawTensor { dtype, shape: vec![rows, numbers.len() / rows], bytes: bytes.into() }
}

/// Rows of small fractions, which all types hold exactly: of both signs, of one, with many zeros, of zeros alone.
fn golden_rows() -> Vec<f32> {
    let w = |i: i32| (i * i * 31 + i * 7) % 251;
    let of = |row: fn(i32, i32) -> i32| (0..256).map(move |i| row(i, w(i)) as f32 / 64.0);
    of(|_, w| w - 125)
        .chain(of(|_, w| w))
        .chain(of(|_, w| -w))
        .chain(of(|i, w| if i % 5 == 0 { w - 60 } else { 0 }))
        .chain(of(|_, _| 0))
        .collect()
}

/// FNV-1a of words, scales and biases, as `mlx.core.quantize` 0.32.4 makes them on the CPU of `golden_rows`, in groups
/// of 32, 64 and 128. For one of them, in Python:
///
/// ```python
/// i = np.arange(256); w = (i * i * 31 + i * 7) % 251
/// rows = [w - 125, w, -w, (w - 60) * (i % 5 == 0), 0 * w]
/// w = mx.array(np.stack(rows).astype(np.float32) / 64).astype(mx.bfloat16)
/// q, s, b = mx.quantize(w, group_size=64, bits=4, stream=mx.cpu)
/// h = 0xcbf29ce484222325
/// for x in b"".join(np.array(x).tobytes() for x in (q, s.view(mx.uint16), b.view(mx.uint16))):
///     h = (h ^ x) * 0x100000001b3 % 2**64
/// ```
#[rustfmt::skip]
const GOLDEN: [(DType, u32, [u64; 3]); 18] = [
    (DType::F32, 2, [0xe4c9_49b5_890a_963d, 0x25ca_362b_0031_d79b, 0x2cc3_f8dc_4dcd_e24c]),
    (DType::F32, 3, [0xbeef_e0de_907d_5b3a, 0x0fdf_1066_98f6_dd8e, 0x00e2_b34c_aa15_9506]),
    (DType::F32, 4, [0x0630_2e96_defe_0f16, 0x9f8b_a484_90eb_e836, 0xf8ba_10ae_0daf_14cb]),
    (DType::F32, 5, [0xcb4e_fc3e_e893_4e87, 0x029c_d774_f32a_db08, 0x0796_7895_7bff_4f84]),
    (DType::F32, 6, [0x9b69_ed27_be13_8d41, 0xdacd_d168_bafa_6dd9, 0x4669_e2a6_373a_cdb9]),
    (DType::F32, 8, [0xe065_f2b6_6c82_7045, 0xa801_9e93_2ce5_3087, 0x2470_ddb8_1e02_749a]),
    (DType::F16, 2, [0x9cc7_7f89_6181_5169, 0x394c_f4d7_f571_cac1, 0x6870_b249_e10e_aeb4]),
    (DType::F16, 3, [0x8b4c_9178_ba6d_eede, 0xc2b8_0733_d2da_f0a0, 0x0d15_f00a_df3c_071e]),
    (DType::F16, 4, [0x40b7_5136_c168_cff9, 0x49ff_56b4_5650_9546, 0x17a7_16bf_3f5c_5a57]),
    (DType::F16, 5, [0x984b_984d_fffa_0ef6, 0xdc10_5631_1f64_b7bd, 0x9f3c_9d23_96bd_85a1]),
    (DType::F16, 6, [0xa99a_7036_6a51_3419, 0x1728_4e57_e687_1d51, 0x28f8_9609_0ad9_98e8]),
    (DType::F16, 8, [0x93a5_574d_fb8e_5ebb, 0xa21c_f8df_ae52_6314, 0x9b47_491b_8bfb_a1e8]),
    (DType::Bf16, 2, [0xdc70_5e44_263f_1179, 0x3585_5d46_77d0_786b, 0x3e0a_c619_4585_5b30]),
    (DType::Bf16, 3, [0xa507_a696_16ac_292c, 0x112b_d82c_c056_c520, 0xd474_b527_d263_0770]),
    (DType::Bf16, 4, [0x62d2_b9e8_0dc5_8eb4, 0x23cf_7d18_eeb4_7bb8, 0x6b07_7803_7df3_4f36]),
    (DType::Bf16, 5, [0x6d16_de21_4c91_d95b, 0x0100_91f0_e607_8394, 0x6332_8f6c_8535_6a10]),
    (DType::Bf16, 6, [0x5e11_2d9b_36b0_5f72, 0xd4bf_cf5b_f8d1_82d6, 0xfb00_19bc_3a70_b3f7]),
    (DType::Bf16, 8, [0xf415_ab80_5458_3b6d, 0x499b_c10a_4f67_5433, 0xc0a8_6955_6bb2_29d2]),
];

#[test]
fn words_scales_and_biases_are_mlxs() {
    for (dtype, bits, hashes) in GOLDEN {
        for (group, hash) in GROUPS.into_iter().zip(hashes) {
            let made = quantise(&raw(dtype, 5, &golden_rows()), bits, group, 1).unwrap();
            let bytes = [made.q(), &made.scales().bytes, &made.biases().bytes].map(|b| &b[..]);
            let fnv = bytes.concat().iter().fold(0xcbf2_9ce4_8422_2325, |h: u64, byte| {
                (h ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
            });
            assert_eq!(fnv, hash, "{dtype:?}, {bits} bits, groups of {group}");
        }
    }
}

#[test]
fn the_ramp_of_the_format_is_met() {
    let ramp: Vec<_> = (0..32).map(|i| (i as f32 - 7.5) / 4.0).collect();
    let made = quantise(&raw(DType::F32, 1, &ramp), 4, 32, 1).unwrap();
    let words: Vec<_> = made.q().as_chunks().0.iter().map(|w| u32::from_le_bytes(*w)).collect();
    assert_eq!(words, [0xbccd_deef, 0x7889_9aab, 0x4455_6677, 0x0011_2233]);
    assert_eq!(made.scales().to_f32(), [-0.534_090_94]);
    assert_eq!(made.biases().to_f32(), [5.875]);
}

#[test]
fn a_half_is_widened_without_a_branch_to_the_same_number() {
    for half in 0..=u16::MAX {
        let want = f16::from_bits(half).to_f32();
        let found = of_half(half);
        let same =
            if want.is_finite() { want.to_bits() == found.to_bits() } else { found.is_nan() };
        assert!(same, "{half:#06x}: {found} for {want}");
    }
}

#[test]
fn what_is_not_finite_is_an_error_that_names_the_place() {
    for (dtype, wrong) in [
        (DType::F32, f32::NAN),
        (DType::F32, f32::INFINITY),
        (DType::F16, f32::NEG_INFINITY),
        (DType::Bf16, f32::NAN),
    ] {
        // Enough rows for two threads.
        let (rows, cols) = (2048, 64);
        let mut numbers = vec![0.5; rows * cols];
        numbers[1500 * cols + 40] = wrong;
        let error = quantise(&raw(dtype, rows, &numbers), 4, 32, 2).unwrap_err();
        assert!(error.contains("row 1500") && error.contains("column 32"), "{error}");
    }
    let mut far = vec![f32::MAX; 32];
    far[3] = f32::MIN;
    assert!(quantise(&raw(DType::F32, 1, &far), 8, 32, 1).is_err());
}

#[test]
fn bits_and_groups_that_do_not_exist_are_errors() {
    let numbers = raw(DType::F32, 1, &[1.0; 96]);
    for (bits, group) in [(7, 32), (1, 32), (0, 32), (9, 32), (4, 16), (4, 0), (4, 64), (4, 96)] {
        assert!(quantise(&numbers, bits, group, 1).is_err(), "{bits} bits, {group}");
    }
    let vector = RawTensor { dtype: DType::F32, shape: vec![32], bytes: vec![0; 128].into() };
    assert!(quantise(&vector, 4, 32, 1).is_err());
    let empty = RawTensor { dtype: DType::F32, shape: vec![0, 64], bytes: bytes::Bytes::new() };
    assert_eq!(quantise(&empty, 4, 64, 2).unwrap().rows(), 0);
}

/// Numbers like weights, with groups of one sign and far outliers among them.
fn numbers(count: usize) -> impl Strategy<Value = Vec<f32>> {
    let number = prop_oneof![8 => -1f32..1.0, 1 => Just(0.0), 1 => -60f32..60.0];
    proptest::collection::vec(number, count)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_number_comes_back_within_the_step_and_zero_exactly(
        numbers in numbers(3 * 256),
        bits in proptest::sample::select(&Affine::BITS[..]),
        group in proptest::sample::select(&GROUPS[..]),
    ) {
        let from = raw(DType::F32, 3, &numbers);
        let made = quantise(&from, bits, group, 1).unwrap();
        let scales = made.scales().to_f32();
        for (i, (x, back)) in from.to_f32().iter().zip(made.to_f32()).enumerate() {
            // Half a step, but for the end that is nearer to 0. An edge of x steps, half of all or more, is made one of
            // q = round(x); of the range n, n(1 - x/q) is cut off, and that is at most one of the new steps.
            let step = scales[i / group].abs();
            prop_assert!((x - back).abs() <= step * 1.0001, "{x} came back as {back}, steps of {step}");
            prop_assert!(*x != 0.0 || back.abs() <= step * 1e-4, "0 came back as {back}");
        }
    }

    #[test]
    fn threads_change_no_bit(
        rows in 1usize..600,
        bits in proptest::sample::select(&Affine::BITS[..]),
        threads in 2usize..9,
        seed in any::<u32>(),
    ) {
        let mut x = seed;
        let numbers: Vec<_> = (0..rows * 512)
            .map(|_| {
                x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (x >> 8) as f32 / 1e7 - 0.8
            })
            .collect();
        let from = raw(DType::Bf16, rows, &numbers);
        let (one, many) = (quantise(&from, bits, 64, 1).unwrap(), quantise(&from, bits, 64, threads).unwrap());
        prop_assert!(one.q() == many.q());
        prop_assert!(one.scales().bytes == many.scales().bytes && one.biases().bytes == many.biases().bytes);
    }
}
