//! Compiles every GPU kernel for every architecture that there is a compiler for, and looks at what the machine code takes.

mod clang;
#[cfg(any(target_os = "linux", target_os = "windows"))]
mod nvidia;
mod page;

use crate::{Result, root};
use clap::Args as ClapArgs;
use inference_gpu::{
    Module,
    code_cache::{CodeCache, CodeKey},
};
use std::{
    collections::BTreeMap,
    env, fs,
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Bytes of shared memory that a block may have everywhere without asking.
const SHARED: u32 = 48 << 10;

/// Where the table goes.
const TABLE: &str = "docs/kernels.md";

/// NVIDIA's architectures.
const NVIDIA: [&str; 2] = ["sm_80", "sm_90"];

/// Compile all GPU kernels: with clang for AMD's cards, and with NVRTC, where it is found, for NVIDIA's.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The version of clang, 19 or newer; its lld and its llvm-readelf must be there too. Default: the newest there is
    #[arg(long, value_name = "VERSION")]
    clang: Option<u32>,
    /// Only these architectures; the table is not written then
    #[arg(long, value_name = "NAME")]
    arch: Vec<String>,
    /// Compare with the table instead of writing it, where a compiler is of the version that the table is of
    #[arg(long)]
    check: bool,
}

/// What a kernel takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Takes {
    registers: u32,
    shared: u32,
    scratch: u32,
    spills: u32,
}

/// The kernels of a module.
type Compiled = Vec<(String, Takes)>;

/// An architecture, and what compiles a module for it.
struct Target<'a> {
    arch: &'static str,
    /// Such as `clang 19.1.7`.
    compiler: String,
    compile: Box<dyn Fn(Module) -> Result<Compiled> + Sync + 'a>,
}

/// By kernel, then by architecture.
type Table = BTreeMap<String, BTreeMap<&'static str, Takes>>;

/// All architectures of the table.
fn all() -> impl Iterator<Item = &'static str> {
    clang::ARCHITECTURES.into_iter().map(|(arch, _)| arch).chain(NVIDIA)
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if let Some(unknown) = args.arch.iter().find(|arch| all().all(|known| known != **arch)) {
        return Err(format!("{unknown} is not in the table"));
    }
    let wanted = |arch: &str| args.arch.is_empty() || args.arch.iter().any(|a| a == arch);
    let dir = env::temp_dir().join(format!("inference-kernels-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let done = targets(args, &wanted, &dir).and_then(|targets| {
        let compilers = targets.iter().map(|t| (t.arch, t.compiler.clone())).collect();
        compile_all(&targets).map(|done| (compilers, done))
    });
    let _ = fs::remove_dir_all(&dir);
    let (compilers, (table, mut faults)) = done?;
    let path = root().join(TABLE);
    let in_words = |e: std::io::Error| format!("{}: {e}", path.display());
    if args.check {
        let old = fs::read_to_string(&path).map_err(in_words)?;
        faults.extend(page::differences(&old, &table, &compilers));
    } else if args.arch.is_empty() {
        fs::write(&path, page::page(&table, &compilers)).map_err(in_words)?;
        println!("{TABLE} is written");
    }
    match faults.len() {
        0 => Ok(()),
        n => Err(format!(
            "{n} kernels take too much, or what {TABLE} does not say:\n{}",
            faults.join("\n")
        )),
    }
}

/// The wanted architectures that can be compiled for; says which can't.
fn targets<'a>(
    args: &Args,
    wanted: &dyn Fn(&str) -> bool,
    dir: &'a std::path::Path,
) -> Result<Vec<Target<'a>>> {
    let mut targets = Vec::new();
    if clang::ARCHITECTURES.iter().any(|(arch, _)| wanted(arch)) {
        targets.extend(clang::targets(args.clang, wanted, dir)?);
    }
    #[cfg(any(target_os = "linux", target_os = "windows"))]
    targets.extend(nvidia::targets(wanted));
    Ok(targets)
}

fn compile_all(targets: &[Target<'_>]) -> Result<(Table, Vec<String>)> {
    let jobs: Vec<_> = targets
        .iter()
        .flat_map(|target| Module::all().into_iter().map(move |m| (target, m)))
        .collect();
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<_>> {
        let mut done = Vec::new();
        while let Some((target, module)) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let arch = target.arch;
            let kernels =
                (target.compile)(*module).map_err(|e| format!("{module} for {arch}: {e}"))?;
            done.push((arch, *module, kernels));
        }
        Ok(done)
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let done: Result<Vec<_>> = thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        all.into_iter().map(|t| t.join().map_err(|_| "a thread panicked".to_owned())?).collect()
    });
    let (mut table, mut faults) = (Table::new(), Vec::new());
    for (arch, module, kernels) in done?.into_iter().flatten() {
        for (name, takes) in kernels {
            let bits = match module {
                Module::AffineGemv(bits) | Module::AffineGemm(bits) => format!(" {bits} bits"),
                _ => String::new(),
            };
            let name = format!("{name}{bits}");
            if takes.scratch > 0 || takes.spills > 0 || takes.shared > SHARED {
                faults.push(format!("{name} on {arch}: {takes:?}"));
            }
            table.entry(name).or_default().insert(arch, takes);
        }
    }
    Ok((table, faults))
}

/// The kernels that `compile` finds, for these options and this source; from the last time, if that was the same.
fn remembered(
    compiler: &str,
    options: &[String],
    source: &str,
    compile: impl FnOnce() -> Result<Compiled>,
) -> Result<Compiled> {
    let mut key = CodeKey::default();
    ["xtask kernels 1", compiler].iter().for_each(|text| key.add(text));
    options.iter().for_each(|option| key.add(option));
    key.add(source);
    let folder =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    let cache = CodeCache::new(&folder.join("kernels"));
    let text = CodeCache::get(
        Some(&cache),
        &key,
        |text| parse(text).is_some(),
        || match compile()? {
            kernels if kernels.is_empty() => Err("the compiler tells of no kernels".to_owned()),
            kernels => Ok(print(&kernels).into_bytes()),
        },
    )?;
    parse(&text).ok_or_else(|| "no kernels".to_owned())
}

/// A line for each kernel.
fn print(kernels: &Compiled) -> String {
    let line = |(name, t): &(String, Takes)| {
        format!("{name} {} {} {} {}\n", t.registers, t.shared, t.scratch, t.spills)
    };
    kernels.iter().map(line).collect()
}

fn parse(text: &[u8]) -> Option<Compiled> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        let name = words.next()?.to_owned();
        let mut number = || words.next()?.parse().ok();
        let (registers, shared) = (number()?, number()?);
        Some((name, Takes { registers, shared, scratch: number()?, spills: number()? }))
    };
    std::str::from_utf8(text).ok()?.lines().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_what_was_found() {
        let takes = Takes { registers: 1, shared: 2, scratch: 3, spills: 4 };
        let kernels = vec![("a".to_owned(), takes), ("b".to_owned(), Takes::default())];
        assert_eq!(parse(print(&kernels).as_bytes()), Some(kernels));
        assert_eq!(parse(b"a 1 2 3"), None);
    }
}
