//! The text of the Metal kernels, where no test of the device looks: what only Apple's compiler would say, and the kernels for
//! sampling.

use candle_core::{DType, Device, Tensor};
use inference_engine::{
    check::{Noise, distance, raw},
    device::Device as Engine,
    naive::Naive,
    step::Step,
    weights::{Affine, DType as Stored, Matrix},
};
use inference_gpu::cpu::Order;
use inference_metal::{Buffer, Kernel, Launcher, Library};
use inference_tests::metal::{self, Lanes};
use std::{
    collections::BTreeMap,
    io::Write,
    process::{Command, Stdio},
};

const SPACES: &str = include_str!("../../crates/inference-metal/kernels/shim/spaces.h");

/// Bytes of threadgroup memory that a kernel may have on every GPU of Apple's
/// (<https://developer.apple.com/metal/Metal-Feature-Set-Tables.pdf>).
const SHARED: usize = 32 << 10;

/// A clang, whichever is there.
fn clang() -> Option<String> {
    let versions = (15..=30).rev().map(|version| format!("clang++-{version}"));
    let found = versions.chain(["clang++".to_owned()]).find(|name| {
        Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success())
    });
    if found.is_none() {
        println!("skipped: no clang to check the Metal kernels' text with");
    }
    found
}

/// LLVM's text of a library in which address spaces are spaces, or what clang says.
fn check(clang: &str, source: &str) -> Result<String, String> {
    let mut child = Command::new(clang)
        // Any target with half: nothing of it is used.
        .args(["--target=aarch64-linux-gnu", "-x", "c++", "-std=c++14", "-nostdinc", "-nostdinc++"])
        .args(["-Wall", "-Wdouble-promotion", "-Werror", "-Wno-unknown-attributes"])
        .args(["-Wno-sign-compare", "-Wno-unused-function", "-Wno-pass-failed"])
        .args(["-Wno-unknown-warning-option", "-Wno-undefined-inline"])
        .args(["-S", "-emit-llvm", "-O0", "-o", "-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("clang runs");
    let text = format!("{SPACES}\n#line 1 \"kernels\"\n{source}");
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("clang reads");
    let output = child.wait_with_output().expect("clang ends");
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

#[test]
fn pointers_have_the_right_address_spaces_and_calls_are_clear() {
    let Some(clang) = clang() else { return };
    for library in Library::all() {
        if let Err(said) = check(&clang, &library.source()) {
            panic!("{library:?}: {said}");
        }
    }
}

#[test]
fn what_apples_compiler_would_refuse_is_noticed() {
    let Some(clang) = clang() else { return };
    for wrong in [
        "float f(device float *p) { thread float *q = p; return *q; }",
        "float f(threadgroup float *p); KERNEL(1) k(device float *y, PLACE) { y[0] = f(y); }",
        "struct A { uint n; }; void f(constant A &a) { a.n = 1; }",
        "uint f(uint a) { return max(a, 1); }",
        "float f(float *p); float g(device float *p) { return f(p); }",
    ] {
        let source = format!("{}\n{wrong}", Library::Elementwise.source());
        assert!(check(&clang, &source).is_err(), "{wrong}");
    }
}

/// The bytes of a variable's type as LLVM writes it, such as `[256 x i64]`.
fn bytes(ty: &str) -> usize {
    let (count, one) = match ty.strip_prefix('[').and_then(|t| t.split_once(" x ")) {
        Some((count, one)) => (count.parse().expect("a number"), one),
        None => (1, ty),
    };
    let one = if one.starts_with("i64") { 8 } else { 4 };
    count * one
}

#[test]
fn threadgroup_memory_is_enough_on_every_gpu_and_belongs_to_kernels() {
    let Some(clang) = clang() else { return };
    let mut most = 0;
    for library in Library::all() {
        let text = check(&clang, &library.source()).expect("compiles");
        // `@_ZZ6attendE7queries = internal addrspace(3) global [2048 x float] …`
        let mut kernels: BTreeMap<&str, usize> = BTreeMap::new();
        for line in text.lines().filter(|line| line.contains("addrspace(3) global")) {
            let named = |name: &&&str| line.starts_with(&format!("@_ZZ{}{name}E", name.len()));
            let name = library.kernels().iter().find(named);
            let name = name.unwrap_or_else(|| panic!("{library:?}: not in a kernel: {line}"));
            let ty = line.split("global ").nth(1).expect("a type");
            *kernels.entry(name).or_default() += bytes(ty);
        }
        for (name, bytes) in kernels {
            assert!(bytes <= SHARED, "{name} of {library:?}: {bytes} bytes");
            most = most.max(bytes);
        }
    }
    assert!(most > SHARED / 2, "{most} bytes: nothing was found");
}

/// The kernels' parameters: their places, and the names that Apple's compiler finds buffers by.
#[test]
fn buffers_are_numbered_in_the_order_of_the_parameters() {
    for library in Library::all() {
        let source = library.source().replace("\\\n", " ").replace('\n', " ");
        let mut kernels = 0;
        for text in source.split("KERNEL(").skip(1).filter(|text| text.contains("[[buffer(0)]]")) {
            let (_, rest) = text.split_once(") ").expect("the threads");
            let (name, rest) = rest.split_once('(').expect("a name");
            let (parameters, _) = rest.split_once("PLACE)").expect("it ends with the place");
            let parameters: Vec<_> = parameters.trim().trim_end_matches(',').split(", ").collect();
            for (i, parameter) in parameters.iter().enumerate() {
                assert!(
                    parameter.trim().ends_with(&format!("[[buffer({i})]]")),
                    "{name}: {parameter}"
                );
                let is_last = i + 1 == parameters.len();
                assert_eq!(
                    parameter.trim().starts_with("constant "),
                    is_last,
                    "{name}: {parameter}"
                );
            }
            kernels += 1;
        }
        assert!(kernels > 0, "{library:?}");
    }
}

fn numbers(values: &[f32]) -> Tensor {
    Tensor::from_slice(values, values.len(), &Device::Cpu).expect("fits")
}

/// Rows, and the place of their largest numbers, falling; what is no number first.
fn sorted(row: &[f32]) -> Vec<usize> {
    let mut places: Vec<_> = (0..row.len()).collect();
    places.sort_by(|&a, &b| {
        let (a, b) = (row[a], row[b]);
        b.is_nan().cmp(&a.is_nan()).then(b.partial_cmp(&a).unwrap_or(std::cmp::Ordering::Equal))
    });
    places
}

fn sampled(lanes: &Lanes, rows: &[Vec<f32>], k: usize, name: &'static str) -> Vec<Vec<usize>> {
    let n = rows[0].len();
    let x = numbers(&rows.concat());
    let ids = Tensor::zeros(rows.len() * k, DType::U32, &Device::Cpu).expect("fits");
    let values = numbers(&vec![0.0; rows.len() * k]);
    let told = [n as u32, n as u32, k as u32];
    let arguments = bytemuck::cast_slice(&told);
    let buffers = [Buffer::Write(&ids), Buffer::Write(&values), Buffer::Read(&x)];
    let kernel = Kernel { library: Library::Sample, name, buffers: &buffers, arguments };
    lanes.launch(&kernel, [rows.len(), 1, 1], 256).expect("runs");
    let (ids, values) =
        (ids.to_vec1::<u32>().expect("ids"), values.to_vec1::<f32>().expect("numbers"));
    let places: Vec<Vec<usize>> =
        ids.chunks(k).map(|ids| ids.iter().map(|id| *id as usize).collect()).collect();
    for (r, (places, values)) in places.iter().zip(values.chunks(k)).enumerate() {
        for (place, value) in places.iter().zip(values) {
            assert_eq!(value.to_bits(), rows[r][*place].to_bits(), "row {r}, place {place}");
        }
    }
    places
}

#[test]
fn the_largest_logits_are_found() {
    let mut noise = Noise::new(5);
    for order in [Order::Forward, Order::Reverse, Order::Random] {
        let Some(lanes) = Lanes::new(order) else { return };
        for n in [1, 2, 31, 255, 256, 257, 1000, 5003] {
            let mut rows: Vec<Vec<f32>> = (0..2).map(|_| noise.numbers(n)).collect();
            // Few different numbers, with both zeros; infinities; what is no number.
            rows.push((0..n).map(|_| (noise.bits() % 3) as f32 * -0.5).collect());
            rows.push(vec![f32::NEG_INFINITY; n]);
            let mut wrong = noise.numbers(n);
            wrong[n / 2] = f32::NAN;
            wrong[n - 1] = f32::INFINITY;
            rows.push(wrong);
            let want: Vec<_> = rows.iter().map(|row| sorted(row)).collect();
            for (got, want) in sampled(&lanes, &rows, 1, "argmax").iter().zip(&want) {
                assert_eq!(got[..], want[..1], "the largest of {n}");
            }
            for k in [1, 7, 40, 256].into_iter().filter(|k| *k <= n) {
                for (got, want) in sampled(&lanes, &rows, k, "top_k").iter().zip(&want) {
                    assert_eq!(got[..], want[..k], "{k} of {n}");
                }
            }
        }
    }
}

/// The first rows of a matrix, by an embedding.
fn embedded<D: Engine>(d: &D, of: &Matrix, rows: usize) -> D::Tensor {
    let table = d.load_linear(std::slice::from_ref(of), None).expect("loads");
    let tokens: Vec<u32> = (0..rows as u32).collect();
    let mut step = Step::default();
    step.push(&tokens, 0, rows, &[], 0);
    d.embed(&table, 1.0, &d.begin(&step, &[]).expect("begins")).expect("embeds")
}

/// Rows of `matrix`, and its products with few rows of `x` and with many.
fn read<D: Engine>(d: &D, matrix: &Matrix, x: &Matrix) -> [Vec<f32>; 3] {
    let map = d.load_linear(std::slice::from_ref(matrix), None).expect("loads");
    let product = |rows| d.linear(&embedded(d, x, rows), &map).expect("multiplies");
    [embedded(d, matrix, 3), product(2), product(9)].map(|y| d.read(y).expect("reads"))
}

#[test]
fn every_width_of_quantised_weights_is_read_with_every_group_and_type_of_scales() {
    let Some(candle) = metal::kernels(Order::Random) else { return };
    let mut noise = Noise::new(11);
    // Two groups of the largest, and a tail of the smallest.
    for (group, cols) in Affine::GROUPS.into_iter().zip([112, 96, 128, 256]) {
        let x = noise.matrix(Stored::F32, &[9, cols]);
        for bits in Affine::BITS {
            for dtype in [Stored::F32, Stored::F16, Stored::Bf16] {
                let outputs = 21;
                let bytes = outputs * cols * bits as usize / 8;
                let q: Vec<u8> = (0..bytes).map(|_| noise.bits() as u8).collect();
                let mut numbers =
                    || raw(dtype, &[outputs, cols / group], &noise.numbers(outputs * cols / group));
                let (scales, biases) = (numbers(), numbers());
                let matrix = Affine::new(bits, group, [outputs, cols], q.into(), scales, biases)
                    .expect("fits");
                let matrix = Matrix::Affine(matrix);
                let (got, want) =
                    (read(&candle, &matrix, &x), read(&Naive::default(), &matrix, &x));
                for (what, (got, want)) in
                    ["rows", "2 products", "9 products"].iter().zip(got.iter().zip(&want))
                {
                    let far = distance(got, want);
                    assert!(far < 2e-6, "{what} of {bits} bits by {group}, {dtype:?}: {far:.1e}");
                }
            }
        }
    }
}
