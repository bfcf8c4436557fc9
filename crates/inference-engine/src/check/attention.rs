//! A device's attention against [`Naive`], over shapes that hurt, and whether its bits depend on the company.

use super::{Noise, Tolerance, close, close_each, fault, step, upload};
use crate::{
    arch::{Attention, Frequencies, Layer, Rope},
    device::{Device, Heads},
    naive::Naive,
    step::{BlockCopy, Rotation, Step},
};
use inference_core::{CacheDtype, Result};

/// How far a single number may be off, in tolerances: where one key has most of the weight, what its score is rounded by
/// moves the whole head.
const EACH: f64 = 10.0;

/// A layer's attention, with what becomes of its heads before.
#[derive(Debug, Clone)]
struct Case {
    attention: Attention,
    /// Whether query heads and key heads are normed.
    norms: [bool; 2],
    /// Columns of a head that are rotated.
    rotated: usize,
    dtype: CacheDtype,
}

impl Case {
    fn new(
        (heads, kv_heads, head_dim): (usize, usize, usize),
        window: Option<usize>,
        softcap: Option<f32>,
        dtype: CacheDtype,
    ) -> Self {
        let scale = 1.0 / (head_dim as f32).sqrt();
        let attention = Attention { heads, kv_heads, head_dim, scale, window, softcap };
        Self { attention, norms: [false; 2], rotated: 0, dtype }
    }

    /// Runs `steps` one after the other on `d`; gives each one's queries and what its heads give. The numbers of a token
    /// depend on `seed` and on its sequence and position alone, a sequence being told by its first block.
    fn run<D: Device>(
        &self,
        d: &D,
        seed: u64,
        blocks: usize,
        steps: &[Step],
    ) -> Result<Vec<[Vec<f32>; 2]>> {
        let a = &self.attention;
        let cols = a.q_cols() + 2 * a.kv_cols();
        let mut noise = Noise::new(seed);
        let mut norm = || d.vector(&noise.numbers(a.head_dim));
        let norms = [norm()?, norm()?];
        let norm = |i: usize| self.norms[i].then_some(&norms[i]);
        let ropes = [500.0, 10_000.0].map(|theta| Rope {
            frequencies: Frequencies::Fixed(Frequencies::plain(theta, self.rotated)),
            scale: 1.2,
        });
        let rope = (self.rotated > 0).then_some(1);
        let heads = Heads { attention: a, q_norm: norm(0), k_norm: norm(1), eps: 1e-6, rope };
        let mut cache = d.cache(&[a.clone(), a.clone()], blocks, self.dtype)?;
        let layers = [(); 2].map(|()| Layer { attention: a.clone(), rope, ffn: 0 });
        let mut run = |step: &Step| -> Result<_> {
            let seeds = step.spans.iter().flat_map(|s| {
                let token = |r: usize| seed + 7 * u64::from(step.positions[r]);
                s.rows.clone().map(move |r| token(r) + (u64::from(s.blocks[0]) << 32))
            });
            let qkv: Vec<f32> = seeds.flat_map(|seed| Noise::new(seed).numbers(cols)).collect();
            if !step.copies.is_empty() {
                d.copy_blocks(&mut cache, &layers, &step.copies)?;
            }
            let rotations = ropes.clone().map(|r| Rotation::new(&r, step));
            let step = d.begin(step, &rotations)?;
            let qkv = upload(d, &qkv, cols)?;
            let q = d.append(&qkv, &heads, &mut cache, 1, &step)?;
            let y = d.attend(&q, &cache, 1, a, &step)?;
            Ok([d.read(q)?, d.read(y)?])
        };
        steps.iter().map(&mut run).collect()
    }
}

/// Checks attention: ragged batches, chunks, shared and copied blocks, norms and rotations, windows, caps, grouped heads, every type of cache.
///
/// Gives the largest distance to the reference.
///
/// # Errors
/// Where the device is further from the reference than the tolerance; its own.
pub fn check_attention<D: Device>(device: &D, tolerance: Tolerance) -> Result<f64> {
    let (block, mut worst) = (device.block_len(), 0.0_f64);
    let dtypes = dtypes(device);
    for shape in [(1, 1, 16), (4, 2, 20), (6, 2, 64), (9, 3, 33), (8, 1, 256)] {
        for (i, (window, softcap)) in
            [(None, None), (Some(1), None), (Some(block + 5), Some(3.0)), (Some(100), None)]
                .into_iter()
                .enumerate()
        {
            for (j, &dtype) in dtypes.iter().enumerate() {
                // The widest heads take the longest: each window with one type.
                if shape.2 == 256 && j != i % dtypes.len() {
                    continue;
                }
                let mut case = Case::new(shape, window, softcap, dtype);
                case.norms = [i != 1, i >= 2];
                case.rotated = [shape.2 / 2 * 2, 0, shape.2 / 4 * 2, 2][i];
                // Two sequences in chunks, in blocks out of order; a third joins.
                let many = 200usize.div_ceil(block) as u32;
                let long: Vec<u32> = (0..many).map(|b| 2 * b + 1).collect();
                let short: Vec<u32> = (0..many).rev().map(|b| 2 * b).collect();
                let steps = [
                    step(&[(70, 0, &long, 0), (3, 0, &short, 0)]),
                    step(&[(1, 70, &long, 1), (block, 3, &short, 0)]),
                    step(&[(1, 3 + block, &short, 0), (110, 71, &long, 0)]),
                    shared(
                        &[(20, 181, &long), (1, 2 * block, &long), (1, 3, &short)],
                        2 * many,
                        block,
                    ),
                ];
                let blocks = 2 * many as usize + 20usize.div_ceil(block) + 4;
                worst = worst.max(check_case(device, tolerance, &case, blocks, &steps)?);
            }
        }
    }
    worst = worst.max(check_wide(device, tolerance, &dtypes)?);
    // Long enough that a device may cut the keys into several parts.
    for (heads, window, dtype) in
        [(2, None, CacheDtype::F32), (9, None, CacheDtype::Bf16), (2, Some(600), CacheDtype::F32)]
    {
        let case = Case::new((heads, 1, 16), window, None, dtype);
        let many = 800usize.div_ceil(block) as u32;
        let blocks: Vec<u32> = (0..many).map(|b| b ^ 1).collect();
        let steps = [step(&[(700, 0, &blocks, 0)]), step(&[(9, 700, &blocks, 0)])];
        worst = worst.max(check_case(device, tolerance, &case, many as usize + 1, &steps)?);
    }
    Ok(worst)
}

/// Heads as wide as those of most models, and more of them to a key than a device may compute at once.
fn check_wide<D: Device>(device: &D, tolerance: Tolerance, dtypes: &[CacheDtype]) -> Result<f64> {
    let (block, mut worst) = (device.block_len(), 0.0_f64);
    let blocks = 64usize.div_ceil(block) as u32;
    let one: Vec<u32> = (0..blocks).map(|b| 2 * b + 1).collect();
    let other: Vec<u32> = (0..blocks).rev().map(|b| 2 * b).collect();
    let steps = [
        step(&[(40, 0, &one, 0), (3, 0, &other, 0)]),
        step(&[(1, 40, &one, 0), (20, 3, &other, 0)]),
        step(&[(19, 41, &one, 0), (1, 23, &other, 0)]),
    ];
    for (i, shape) in [(2, 1, 128), (3, 1, 100), (12, 1, 32)].into_iter().enumerate() {
        for (j, &dtype) in dtypes.iter().enumerate() {
            let window = [None, Some(block + 5)][(i + j) % 2];
            let mut case = Case::new(shape, window, None, dtype);
            case.rotated = shape.2;
            worst = worst.max(check_case(device, tolerance, &case, 2 * blocks as usize, &steps)?);
        }
    }
    Ok(worst)
}

/// A step of spans `(new tokens, tokens before, blocks of a sequence that has the same before)`: what is in whole blocks is
/// shared, the rest is copied. New blocks are those from `spare` on.
fn shared(spans: &[(usize, usize, &[u32])], mut spare: u32, block_len: usize) -> Step {
    let mut all = Step::default();
    for &(new, past, of) in spans {
        let (full, tokens) = (past / block_len, past % block_len);
        if tokens > 0 {
            all.copies.push(BlockCopy { from: of[full], to: spare, tokens });
        }
        let fresh = (past + new).div_ceil(block_len) - full;
        let table: Vec<u32> =
            of[..full].iter().copied().chain(spare..).take(full + fresh).collect();
        spare += fresh as u32;
        let tokens: Vec<u32> = (0..new as u32).collect();
        all.push(&tokens, past, past + new, &table, 0);
    }
    all
}

/// The types of cache that the device has.
fn dtypes<D: Device>(device: &D) -> Vec<CacheDtype> {
    let mut all = vec![CacheDtype::F32, CacheDtype::F16, CacheDtype::Bf16, CacheDtype::Int8];
    all.retain(|dtype| device.stores(*dtype));
    all
}

/// Runs `steps` on the device and on the reference, and compares what each gives.
fn check_case<D: Device>(
    device: &D,
    tolerance: Tolerance,
    case: &Case,
    blocks: usize,
    steps: &[Step],
) -> Result<f64> {
    let mut worst = 0.0_f64;
    let rounded = match case.dtype {
        CacheDtype::F32 => tolerance.exact,
        // To a 254th of a head's largest number.
        CacheDtype::Int8 => 3.0 * tolerance.rounded,
        _ => tolerance.rounded,
    };
    let cols = case.attention.q_cols();
    let reference = &Naive { block_len: device.block_len() };
    let got = case.run(device, 2, blocks, steps)?;
    let pairs = got.into_iter().zip(case.run(reference, 2, blocks, steps)?);
    for (i, ([q, y], [want_q, want_y])) in pairs.enumerate() {
        let queries = format!("queries of {case:?}, step {i}");
        worst = worst.max(close(&queries, &q, &want_q, cols, tolerance.exact)?);
        let attention = format!("attention of {case:?}, step {i}");
        worst = worst.max(close_each(&attention, &y, &want_y, cols, rounded, EACH * rounded)?);
    }
    Ok(worst)
}

/// Checks that a token's attention has the same bits whether its sequence comes at once, in chunks or token by token,
/// alone or among others; gives the bits, so that devices can be compared.
///
/// # Errors
/// Where it has not; the device's own.
pub fn check_attention_is_independent<D: Device>(device: &D) -> Result<Vec<u32>> {
    independent(device, false)
}

/// The same for a device that has one way for tokens that come one by one, and another for those that come together: in
/// each, the bits are the same in any company.
///
/// # Errors
/// Where they are not; the device's own.
pub fn check_each_way_of_attention_is_independent<D: Device>(device: &D) -> Result<()> {
    independent(device, true).map(drop)
}

fn independent<D: Device>(device: &D, two_ways: bool) -> Result<Vec<u32>> {
    let block = device.block_len();
    let many = 1000usize.div_ceil(block) as u32;
    let (ours, others) = ((0..many).collect::<Vec<_>>(), (many..2 * many).collect::<Vec<_>>());
    let mut bits = Vec::new();
    let dtypes = dtypes(device);
    for (shape, window, dtype) in [
        ((4, 2, 64), None, CacheDtype::Bf16),
        ((3, 1, 20), None, CacheDtype::F32),
        ((2, 2, 32), Some(700), CacheDtype::F16),
        ((4, 2, 40), None, CacheDtype::Int8),
    ] {
        if !dtypes.contains(&dtype) {
            continue;
        }
        let mut case = Case::new(shape, window, None, dtype);
        case.rotated = 4;
        let run = |steps: &[Step]| -> Result<Vec<u32>> {
            let outputs = case.run(device, 5, 2 * many as usize + 1, steps)?;
            let last = &outputs[steps.len() - 1][1];
            let row = &last[last.len() - case.attention.q_cols()..];
            Ok(row.iter().map(|x| x.to_bits()).collect())
        };
        let n = 901;
        let whole = run(&[step(&[(n, 0, &ours, 0)])])?;
        let decoded = run(&[step(&[(n - 1, 0, &ours, 0)]), step(&[(1, n - 1, &ours, 0)])])?;
        let shared = shared(&[(1, n - 1, &ours)], 2 * many, block);
        if decoded != run(&[step(&[(n - 1, 0, &ours, 0)]), shared])? {
            return fault(format!("{case:?}: other bits after what another sequence has computed"));
        }
        let chunks = |n: usize| -> Vec<Step> {
            let chunk = |i| step(&[(3, i / 70, &others, 0), (211.min(n - i), i, &ours, 0)]);
            (0..n).step_by(211).map(chunk).collect()
        };
        let same = if two_ways {
            let mut steps = chunks(n - 1);
            steps.push(step(&[(40, 9, &others, 0), (1, n - 1, &ours, 0)]));
            decoded == run(&steps)?
        } else {
            whole == decoded
        };
        if !same {
            return fault(format!("{case:?}: other bits alone in a step"));
        }
        if whole != run(&chunks(n))? {
            return fault(format!("{case:?}: other bits in chunks, among others"));
        }
        bits.extend(whole);
    }
    Ok(bits)
}
