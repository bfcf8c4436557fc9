//! Packing loses nothing, and every kernel computes what one number after the other gives.

use super::{layout::position, pack::Packed, *};
use crate::pool::Disjoint;
use bytes::Bytes;
use inference_engine::weights::{DType, RawTensor};

/// Numbers that look random and are the same in every run (xorshift64*).
struct Noise(u64);

impl Noise {
    fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// From −1 to 1.
    fn number(&mut self) -> f32 {
        (self.bits() & 0xffff) as f32 / 32_768.0 - 1.0
    }

    fn numbers(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.number()).collect()
    }

    fn tensor(&mut self, dtype: DType, shape: [usize; 2]) -> RawTensor {
        let numbers = self.numbers(shape[0] * shape[1]);
        let bytes: Vec<u8> = match dtype {
            DType::F32 => numbers.iter().flat_map(|x| x.to_le_bytes()).collect(),
            DType::F16 => {
                numbers.iter().flat_map(|x| half::f16::from_f32(*x).to_le_bytes()).collect()
            }
            _ => numbers.iter().flat_map(|x| half::bf16::from_f32(*x).to_le_bytes()).collect(),
        };
        RawTensor { dtype, shape: shape.to_vec(), bytes: bytes.into() }
    }

    fn matrix(
        &mut self,
        bits: u32,
        group: usize,
        dtype: DType,
        shape: [usize; 2],
    ) -> weights::Affine {
        let q = (0..shape[0] * shape[1] * bits as usize / 8).map(|_| self.bits() as u8);
        let q = q.collect::<Vec<u8>>().into();
        self.with_numbers(q, bits, group, dtype, shape)
    }

    fn with_numbers(
        &mut self,
        q: Bytes,
        bits: u32,
        group: usize,
        dtype: DType,
        shape: [usize; 2],
    ) -> weights::Affine {
        let groups = [shape[0], shape[1] / group];
        let (scales, biases) = (self.tensor(dtype, groups), self.tensor(dtype, groups));
        weights::Affine::new(bits, group, shape, q, scales, biases).unwrap()
    }
}

const DTYPES: [DType; 3] = [DType::F32, DType::F16, DType::Bf16];

/// Every width, group and type of scales, with a number that differs from case to case.
fn cases() -> impl Iterator<Item = (u32, usize, DType, usize)> {
    let groups = weights::Affine::GROUPS.into_iter();
    let widths = groups.flat_map(|g| weights::Affine::BITS.into_iter().map(move |b| (b, g)));
    let all = widths.flat_map(|(b, g)| DTYPES.into_iter().map(move |d| (b, g, d)));
    all.enumerate().map(|(i, (bits, group, dtype))| (bits, group, dtype, i))
}

#[test]
fn packing_loses_nothing() {
    let (pool, mut noise) = (Pool::new(2).unwrap(), Noise(1));
    for (bits, group, dtype, i) in cases() {
        let shape = [[1, 15, 16, 17, 50][i % 5], group * [1, 2, 3, 5][i % 4]];
        let matrix = noise.matrix(bits, group, dtype, shape);
        let packed = Packed::new(&pool, &Store::default(), &matrix).unwrap();
        let want = matrix.to_f32();
        let mut row = vec![0.0; shape[1]];
        for (r, want) in want.chunks_exact(shape[1]).enumerate() {
            packed.widen_row(r, &mut row);
            assert!(row == want, "{bits} bits, groups of {group}, {dtype:?}, {shape:?}, row {r}");
        }
    }
}

#[test]
fn four_bits_are_words_of_the_checkpoint() {
    let pool = Pool::new(1).unwrap();
    let matrix = Noise(2).matrix(4, 64, DType::F16, [16, 64]);
    let packed = Packed::new(&pool, &Store::default(), &matrix).unwrap();
    // SAFETY: a tile is so long.
    let tile = unsafe { std::slice::from_raw_parts(packed.tile(0), packed.layout.tile()) };
    let words = |bytes: &[u8]| {
        let mut words: Vec<[u8; 4]> =
            bytes.chunks_exact(4).map(|w| w.try_into().unwrap()).collect();
        words.sort_unstable();
        words
    };
    assert_eq!(words(&tile[packed.layout.header()..]), words(matrix.q()));
}

/// `x·Wᵀ + b` at a level.
fn product(
    level: Level,
    pool: &Pool,
    map: &Affine,
    x: &[f32],
    bias: Option<&[f32]>,
    exact: bool,
) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len() / map.cols * map.rows];
    let target = Target { out: Disjoint::new(&mut out), stride: map.rows, first: 0, bias };
    let product = Product { level, pool, x, map, finish: Finish::Store, target };
    product.run(&mut Scratch::default(), exact);
    out
}

/// A row quantised: the numbers, and a scale for each group. The definition, one number after the other.
fn quantised(x: &[f32], group: usize) -> (Vec<i32>, Vec<f32>) {
    let mut all = (Vec::new(), Vec::new());
    for x in x.chunks_exact(group) {
        let most =
            x.iter().fold(0.0f32, |most, x| if x.is_nan() { f32::NAN } else { most.max(x.abs()) });
        let scale = if most < 1e-30 { 0.0 } else { most / 127.0 };
        let inverse = if most < 1e-30 { 0.0 } else { 127.0 / most };
        all.0.extend(x.iter().map(|x| (x * inverse).round_ties_even() as i32));
        all.1.push(scale);
    }
    all
}

/// The product of one row, in the order and with the roundings of the definition.
fn reference(matrix: &weights::Affine, x: &[f32]) -> Vec<f32> {
    let (cols, group) = (matrix.cols(), matrix.group());
    let gathered: Vec<_> = match matrix.order() {
        Some(order) => order.iter().map(|i| x[*i as usize]).collect(),
        None => x.to_vec(),
    };
    let (xs, x_scales) = quantised(&gathered, group);
    let (scales, biases) = (matrix.scales().to_f32(), matrix.biases().to_f32());
    let mut q = vec![0; cols];
    (0..matrix.rows())
        .map(|row| {
            matrix.unpack_row(row, &mut q);
            let mut sum = 0.0f32;
            for g in 0..cols / group {
                let of = g * group..(g + 1) * group;
                let dot: i32 =
                    xs[of.clone()].iter().zip(&q[of.clone()]).map(|(x, q)| x * i32::from(*q)).sum();
                let total: i32 = xs[of].iter().sum();
                let (scale, bias) =
                    (scales[row * (cols / group) + g], biases[row * (cols / group) + g]);
                sum = (dot as f32).mul_add(scale * x_scales[g], sum);
                sum = bias.mul_add(x_scales[g] * total as f32, sum);
            }
            sum
        })
        .collect()
}

/// Whether a level multiplies and adds with one rounding, as the reference does.
fn fuses(level: Level) -> bool {
    level != Level::Scalar
}

/// Equal to the last bit, or so near as an unfused product is.
fn check(level: Level, what: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    let typical = want.iter().map(|w| w * w).sum::<f32>().sqrt() / (want.len() as f32).sqrt();
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let near = if fuses(level) { got == want } else { (got - want).abs() <= 1e-5 * typical };
        assert!(
            near || got.is_nan() && want.is_nan(),
            "{level:?}, {what}: {got} for {want} at {i}"
        );
    }
}

#[test]
fn every_kernel_computes_the_same_bits() {
    let (pool, mut noise) = (Pool::new(2).unwrap(), Noise(3));
    let levels = Level::available();
    for (bits, group, dtype, i) in cases() {
        let shape = [[37, 16, 70][i % 3], group * [1, 3, 8, 5][i % 4]];
        let matrix = noise.matrix(bits, group, dtype, shape);
        let map = Affine::new(&pool, &Store::default(), &[&matrix]).unwrap();
        let rows = 41;
        let x = noise.numbers(rows * shape[1]);
        let want: Vec<_> = x.chunks_exact(shape[1]).flat_map(|x| reference(&matrix, x)).collect();
        for &level in &levels {
            for rows in (1..=20).chain([33, 41]) {
                let got = product(level, &pool, &map, &x[..rows * shape[1]], None, false);
                let what =
                    format!("{bits} bits, groups of {group}, {dtype:?}, {shape:?}, {rows} rows");
                check(level, &what, &got, &want[..rows * shape[0]]);
            }
        }
    }
}

#[test]
fn exact_products_are_near_the_dequantised_ones_and_rows_are_independent() {
    let (pool, mut noise) = (Pool::new(2).unwrap(), Noise(4));
    for (bits, group, dtype, i) in cases() {
        let shape = [[37, 16, 70][i % 3], group * [1, 3, 8, 5][i % 4]];
        let matrix = noise.matrix(bits, group, dtype, shape);
        let map = Affine::new(&pool, &Store::default(), &[&matrix]).unwrap();
        let x = noise.numbers(9 * shape[1]);
        let w = matrix.to_f32();
        for level in Level::available() {
            let all = product(level, &pool, &map, &x, None, true);
            for (x, got) in x.chunks_exact(shape[1]).zip(all.chunks_exact(shape[0])) {
                assert!(product(level, &pool, &map, x, None, true) == got, "{level:?}: alone");
                for (w, got) in w.chunks_exact(shape[1]).zip(got) {
                    let terms = x.iter().zip(w).map(|(x, w)| f64::from(*x) * f64::from(*w));
                    let size: f64 = terms.clone().map(f64::abs).sum();
                    let error = (f64::from(*got) - terms.sum::<f64>()).abs();
                    assert!(error <= 1e-6 * size, "{level:?}, {bits} bits, groups of {group}");
                }
            }
        }
    }
}

#[test]
fn extreme_numbers_are_computed_as_all_others_and_disturb_no_other_row() {
    let (pool, mut noise) = (Pool::new(2).unwrap(), Noise(5));
    let extreme = [
        f32::MAX,
        -f32::MAX,
        f32::MIN_POSITIVE,
        1e-44,
        0.0,
        -0.0,
        1e30,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    for (bits, group) in [(8, 128), (8, 16), (4, 64), (3, 32), (2, 128), (5, 64), (6, 128)] {
        let shape = [35, 3 * group];
        let most = vec![0xff; shape[0] * shape[1] * bits as usize / 8];
        let matrix = noise.with_numbers(most.into(), bits, group, DType::F32, shape);
        let map = Affine::new(&pool, &Store::default(), &[&matrix]).unwrap();
        // Rows: all at their most, of either sign, mixed; then one kind of extreme number each among common ones.
        let cols = shape[1];
        let mut x = vec![1.0; cols];
        x.extend(vec![-1.0; cols]);
        x.extend((0..cols).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }));
        for value in extreme {
            let mut row = noise.numbers(cols);
            row[group + 3] = value;
            x.extend(row);
            x.extend(vec![value; cols]);
        }
        x.extend(noise.numbers(cols));
        let finite = |row: &[f32]| row.iter().all(|x| x.is_finite());
        for level in Level::available() {
            let all = product(level, &pool, &map, &x, None, false);
            for (x, got) in x.chunks_exact(cols).zip(all.chunks_exact(shape[0])) {
                let alone = product(level, &pool, &map, x, None, false);
                if finite(x) {
                    let same = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
                    assert_eq!(same(got), same(&alone), "{level:?}");
                    let want = reference(&matrix, x);
                    if finite(&want) {
                        check(level, &format!("{bits} bits, groups of {group}"), got, &want);
                    }
                } else {
                    assert!(!finite(got) && !finite(&alone), "{level:?}: {:?}", x[group + 3]);
                }
            }
        }
    }
}

#[test]
fn an_order_and_parts_of_many_kinds_are_one_map() {
    let (pool, mut noise) = (Pool::new(3).unwrap(), Noise(6));
    let cols = 256;
    let mut order: Vec<u32> = (0..cols as u32).collect();
    for i in (1..cols).rev() {
        order.swap(i, noise.bits() as usize % (i + 1));
    }
    let parts = [
        noise.matrix(4, 64, DType::F16, [33, cols]),
        noise.matrix(4, 64, DType::F16, [8, cols]).in_order(order.clone().into()).unwrap(),
        noise.matrix(8, 32, DType::Bf16, [40, cols]),
        noise.matrix(3, 128, DType::F32, [1, cols]).in_order(order.into()).unwrap(),
    ];
    let map = Affine::new(&pool, &Store::default(), &parts.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!((map.rows(), map.kinds.len()), (82, 4));
    let (x, bias) = (noise.numbers(17 * cols), noise.numbers(82));
    for level in Level::available() {
        for rows in [1, 5, 17] {
            let x = &x[..rows * cols];
            let got = product(level, &pool, &map, x, Some(&bias), false);
            let want: Vec<_> = x
                .chunks_exact(cols)
                .flat_map(|x| {
                    let sums: Vec<_> = parts.iter().flat_map(|part| reference(part, x)).collect();
                    sums.into_iter().zip(&bias).map(|(sum, bias)| sum + bias).collect::<Vec<_>>()
                })
                .collect();
            check(level, &format!("{rows} rows"), &got, &want);
        }
    }
    let mut row = vec![0.0; cols];
    for (part, first) in parts.iter().zip([0, 33, 41, 81]) {
        for (r, want) in part.to_f32().chunks_exact(cols).enumerate() {
            map.widen_row(first + r, 1.0, &mut row);
            assert!(row == want, "row {r} of the part at {first}");
        }
    }
}

#[test]
fn positions_are_what_the_words_of_four_bits_have() {
    // Number k of a word of eight: the even ones are its lower nibbles.
    for k in 0..8 {
        assert_eq!(position(k), if k % 2 == 0 { k / 2 } else { 4 + k / 2 });
    }
}
