//! The kernels' text: which modules there are, and what their kernels ask for.

use inference_engine::weights::Affine;
use std::fmt;

/// Text that is compiled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Module {
    /// Norms, gates, sums, copies of rows.
    Elementwise,
    /// Embeddings, and what becomes of heads before they meet.
    Embed,
    /// The largest of rows.
    Largest,
    /// Attention of single queries.
    Attend,
    /// Attention of many neighbouring queries.
    Flash,
    /// Products of few rows with dense matrices.
    DenseGemv,
    /// Products of few rows with matrices of so many bits.
    AffineGemv(u32),
    /// Products of many rows with dense matrices.
    DenseGemm,
    /// Products of many rows with matrices of so many bits.
    AffineGemm(u32),
    /// What a device can do at best.
    Limits,
}

const PORTABLE: &str = include_str!("../kernels/portable.h");
const ELEMENTWISE: &str = concat!(
    include_str!("../kernels/rms_norm.cu"),
    include_str!("../kernels/gate.cu"),
    include_str!("../kernels/add.cu"),
    include_str!("../kernels/softcap.cu"),
    include_str!("../kernels/gather.cu"),
    include_str!("../kernels/copy_blocks.cu"),
    include_str!("../kernels/narrow.cu"),
);
const EMBED: &str =
    concat!(include_str!("../kernels/embed.cu"), include_str!("../kernels/append.cu"));
const GEMV: &str = include_str!("../kernels/gemv.h");
const CACHE: &str = include_str!("../kernels/cache.h");
const GEMM: &str = concat!(include_str!("../kernels/tile.h"), include_str!("../kernels/gemm.h"));
const AFFINE: &str = include_str!("../kernels/affine.h");

impl Module {
    /// Every module, with every width.
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Self::Elementwise,
            Self::Embed,
            Self::Largest,
            Self::Attend,
            Self::Flash,
            Self::DenseGemv,
            Self::DenseGemm,
            Self::Limits,
        ];
        all.extend(Affine::BITS.map(Self::AffineGemv));
        all.extend(Affine::BITS.map(Self::AffineGemm));
        all
    }

    /// What is compiled, beginning with `portable.h`.
    pub fn source(self) -> String {
        let parts: &[&str] = match self {
            Self::Elementwise => &[ELEMENTWISE],
            Self::Embed => &[CACHE, EMBED],
            Self::Largest => &[include_str!("../kernels/largest.cu")],
            Self::Attend => &[CACHE, include_str!("../kernels/attend.cu")],
            Self::Flash => {
                &[CACHE, include_str!("../kernels/tile.h"), include_str!("../kernels/flash.cu")]
            }
            Self::DenseGemv => &[GEMV, include_str!("../kernels/dense_gemv.cu")],
            Self::AffineGemv(_) => &[GEMV, AFFINE, include_str!("../kernels/affine_gemv.cu")],
            Self::DenseGemm => &[GEMV, GEMM, include_str!("../kernels/dense_gemm.cu")],
            Self::AffineGemm(_) => &[GEMV, AFFINE, GEMM, include_str!("../kernels/affine_gemm.cu")],
            Self::Limits => {
                &[include_str!("../kernels/tile.h"), include_str!("../kernels/limits.cu")]
            }
        };
        std::iter::once(&PORTABLE).chain(parts).copied().collect::<Vec<_>>().join("\n")
    }

    /// What it is compiled with, beside what the driver adds.
    pub fn defines(self) -> Vec<String> {
        match self {
            Self::AffineGemv(bits) | Self::AffineGemm(bits) => vec![format!("-DBITS={bits}")],
            _ => Vec::new(),
        }
    }
}

impl fmt::Display for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AffineGemv(bits) => write!(f, "AffineGemv, {bits} bits"),
            Self::AffineGemm(bits) => write!(f, "AffineGemm, {bits} bits"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// The type of a kernel's parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A pointer.
    Pointer,
    /// `u32`
    U32,
    /// `int`
    I32,
    /// `float`
    F32,
}

/// A kernel as its text declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Declared {
    /// What it is called.
    pub(crate) name: String,
    /// Most threads of a block.
    pub(crate) threads: u32,
    /// Its parameters, in order.
    pub(crate) params: Vec<Kind>,
}

/// The kernels that `source` declares, `KERNEL(threads) name(parameters)`, in macros whose first parameter is `name` too.
pub(crate) fn declared(source: &str) -> Vec<Declared> {
    const WORD: &str = "KERNEL(";
    let source = source.replace("\\\n", " ");
    let mut found = Vec::new();
    let mut of_macros = Vec::new();
    for line in source.replace(",\n", ", ").lines() {
        let (start, definition) = match line.strip_prefix("#define ") {
            Some(rest) => (rest.find(WORD), rest.split_once('(')),
            None => (line.starts_with(WORD).then_some(0), None),
        };
        let text = line.strip_prefix("#define ").unwrap_or(line);
        if let Some(kernel) = start.filter(|s| *s > 0 || definition.is_none()) {
            let Some(kernel) = one(&text[kernel + WORD.len()..]) else { continue };
            match definition {
                Some((name, _)) => of_macros.push((format!("{name}("), kernel)),
                None => found.push(kernel),
            }
            continue;
        }
        for (start, kernel) in &of_macros {
            if let Some(arguments) = line.strip_prefix(start.as_str()) {
                let name = arguments.split([',', ')']).next().unwrap_or_default().to_owned();
                found.push(Declared { name, ..kernel.clone() });
            }
        }
    }
    found
}

/// The kernel of `threads) name(parameters) …`.
fn one(text: &str) -> Option<Declared> {
    let (threads, rest) = text.split_once(") ")?;
    let (name, rest) = rest.trim_start().trim_start_matches("void ").split_once('(')?;
    let (params, _) = rest.split_once(')')?;
    let params = params
        .split(',')
        .map(|p| match p {
            p if p.contains('*') => Some(Kind::Pointer),
            p if p.contains("u32 ") => Some(Kind::U32),
            p if p.contains("int ") => Some(Kind::I32),
            p if p.contains("float ") => Some(Kind::F32),
            _ => None,
        })
        .collect::<Option<_>>()?;
    Some(Declared { name: name.trim().to_owned(), threads: threads.parse().ok()?, params })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_found_in_the_text_and_in_macros() {
        let text = "#define KERNEL(t) void\nKERNEL(64) a(float *x,\n   u32 n, int m) {\n}\n\
                    #define B(name, T) \\\n  KERNEL(32) name(const void *p, float f) { b<T>(p); }\nB(b_1, 1)\nB(b_2, 2)\n";
        let found = declared(text);
        let kernel = |name: &str, threads, params: &[Kind]| Declared {
            name: name.to_owned(),
            threads,
            params: params.to_vec(),
        };
        assert_eq!(
            found,
            [
                kernel("a", 64, &[Kind::Pointer, Kind::U32, Kind::I32]),
                kernel("b_1", 32, &[Kind::Pointer, Kind::F32]),
                kernel("b_2", 32, &[Kind::Pointer, Kind::F32]),
            ]
        );
    }

    #[test]
    fn every_module_has_kernels_of_different_names() {
        for module in Module::all() {
            let mut names: Vec<_> =
                declared(&module.source()).into_iter().map(|k| k.name).collect();
            assert!(!names.is_empty(), "{module}");
            let count = names.len();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), count, "{module}");
        }
    }
}
