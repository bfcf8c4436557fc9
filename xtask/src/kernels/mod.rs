//! Compiles every GPU kernel for every AMD architecture, and looks at what the machine code takes.

use crate::{Result, root};
use clap::Args as ClapArgs;
use inference_gpu::{Module, Target};
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

/// Architectures, and the lanes of their waves.
const ARCHITECTURES: [(&str, u32); 12] = [
    ("gfx906", 64),
    ("gfx908", 64),
    ("gfx90a", 64),
    ("gfx942", 64),
    ("gfx950", 64),
    ("gfx1030", 32),
    ("gfx1100", 32),
    ("gfx1101", 32),
    ("gfx1102", 32),
    ("gfx1151", 32),
    ("gfx1200", 32),
    ("gfx1201", 32),
];

/// Bytes of shared memory that a block may have everywhere without asking.
const SHARED: u32 = 48 << 10;

/// Where the table goes.
const TABLE: &str = "docs/kernels.md";

/// Compile all GPU kernels with clang.
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The version of clang, 19 or newer; its lld and its llvm-readelf must be there too. Default: the newest there is
    #[arg(long, value_name = "VERSION")]
    clang: Option<u32>,
    /// Only these architectures; the table is not written then
    #[arg(long, value_name = "NAME")]
    arch: Vec<String>,
    /// Do not write the table, which depends on the version of clang
    #[arg(long)]
    check: bool,
}

/// Versions of clang that know all architectures and may be there.
const CLANGS: std::ops::RangeInclusive<u32> = 19..=29;

/// The newest clang that is installed with its tools.
fn newest() -> Result<u32> {
    let runs = |program: String| {
        Command::new(program).arg("--version").output().is_ok_and(|o| o.status.success())
    };
    let whole = |v: &u32| {
        ["clang", "ld.lld", "llvm-readelf"].iter().all(|program| runs(format!("{program}-{v}")))
    };
    CLANGS.rev().find(whole).ok_or_else(|| {
        format!(
            "no clang of version {} or newer is here with lld and llvm; on Debian: \
             apt-get install clang-19 lld-19 llvm-19",
            CLANGS.start()
        )
    })
}

/// What a kernel takes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Takes {
    registers: u32,
    shared: u32,
    scratch: u32,
    spills: u32,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let dir = std::env::temp_dir().join(format!("inference-kernels-{}", std::process::id()));
    fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let clang = args.clang.map_or_else(newest, Ok)?;
    let done = compile_all(clang, &args.arch, &dir);
    let _ = fs::remove_dir_all(&dir);
    let (table, faults) = done?;
    if args.arch.is_empty() && !args.check {
        let path = root().join(TABLE);
        fs::write(&path, page(&table)).map_err(|e| format!("{}: {e}", path.display()))?;
        println!("{TABLE} is written");
    }
    match faults.len() {
        0 => Ok(()),
        n => Err(format!("{n} kernels take too much:\n{}", faults.join("\n"))),
    }
}

/// By kernel, then by architecture.
type Table = BTreeMap<String, BTreeMap<&'static str, Takes>>;

fn compile_all(clang: u32, archs: &[String], dir: &Path) -> Result<(Table, Vec<String>)> {
    let wanted = |arch: &str| archs.is_empty() || archs.iter().any(|a| a == arch);
    if let Some(unknown) = archs.iter().find(|a| ARCHITECTURES.iter().all(|(arch, _)| arch != a)) {
        return Err(format!("{unknown} is not in the table"));
    }
    let wanted: Vec<_> = ARCHITECTURES.into_iter().filter(|(arch, _)| wanted(arch)).collect();
    let next = AtomicUsize::new(0);
    let worker = || -> Result<Vec<_>> {
        let mut done = Vec::new();
        while let Some(&(arch, wave)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let target = Target::new(arch, wave, 1, SHARED);
            println!("clang-{clang}, {arch}: waves of {wave}, {:?}", target.matrix);
            if !knows(clang, arch)? {
                println!("clang-{clang} does not know {arch}: left out");
                continue;
            }
            let mut kernels = Vec::new();
            for module in Module::all() {
                kernels.push((module, compile(clang, dir, &target, module)?));
            }
            done.push((arch, kernels));
        }
        Ok(done)
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let done: Result<Vec<_>> = thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        all.into_iter().map(|t| t.join().map_err(|_| "a thread panicked".to_owned())?).collect()
    });
    let (mut table, mut faults) = (Table::new(), Vec::new());
    for (arch, kernels) in done?.into_iter().flatten() {
        for (module, kernels) in kernels {
            for (name, takes) in kernels {
                let bits = match module {
                    Module::AffineGemv(bits) | Module::AffineGemm(bits) => format!(" {bits} bits"),
                    _ => String::new(),
                };
                let name = format!("{name}{bits}");
                // Where there are registers that accumulate, others may be moved there: that is no spill to memory.
                let moved = ["gfx90a", "gfx942", "gfx950"].contains(&arch) && takes.scratch == 0;
                let spilled = takes.scratch > 0 || takes.spills > 0 && !moved;
                if spilled || takes.shared > SHARED {
                    faults.push(format!("{name} on {arch}: {takes:?}"));
                }
                table.entry(name).or_default().insert(arch, takes);
            }
        }
    }
    Ok((table, faults))
}

/// Whether a clang has this architecture.
fn knows(clang: u32, arch: &str) -> Result<bool> {
    let mut command = Command::new(format!("clang-{clang}"));
    command.args(["--target=amdgcn-amd-amdhsa", "-nogpulib", "--print-supported-cpus"]);
    let program = format!("clang-{clang}");
    let output = command.output().map_err(|e| format!("{program}: {e}"))?;
    let names = String::from_utf8_lossy(&output.stderr);
    Ok(names.split_whitespace().any(|name| name == arch))
}

fn compile(
    clang: u32,
    dir: &Path,
    target: &Target,
    module: Module,
) -> Result<Vec<(String, Takes)>> {
    let (source, code) = ["hip", "co"].map(|end| dir.join(format!("{}.{end}", target.arch))).into();
    fs::write(&source, module.source()).map_err(|e| format!("{}: {e}", source.display()))?;
    let mut command = Command::new(format!("clang-{clang}"));
    command
        .args(["-x", "hip", "--cuda-device-only", "--no-gpu-bundle-output", "-nogpulib"])
        .args(["-nogpuinc", "-O3", "-std=c++17", "-ffp-contract=fast", "-c"])
        .arg(format!("--offload-arch={}", target.arch))
        .arg(format!("-DWAVE={}", target.wave))
        .args(module.defines());
    if target.wave == 32 {
        command.arg("-mcumode");
    }
    output(command.arg("-o").args([&code, &source]))
        .map_err(|e| format!("{module} for {}: {e}", target.arch))?;
    Ok(read(&output(Command::new(format!("llvm-readelf-{clang}")).arg("--notes").arg(&code))?))
}

/// What a command says, or why it failed.
fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|e| format!("{program}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The kernels in the notes of a code object
/// (<https://llvm.org/docs/AMDGPUUsage.html#code-object-v5-metadata>).
fn read(notes: &str) -> Vec<(String, Takes)> {
    let mut kernels: Vec<(String, Takes)> = Vec::new();
    let mut takes = Takes::default();
    for line in notes.lines() {
        // Arguments have names too, further in.
        let Some((key, value)) = line.trim_start_matches(['-', ' ']).split_once(':') else {
            continue;
        };
        let (value, number) = (value.trim(), value.trim().parse().unwrap_or(0));
        match key.trim() {
            ".group_segment_fixed_size" => takes.shared = number,
            ".private_segment_fixed_size" => takes.scratch = number,
            ".sgpr_spill_count" => takes.spills = number,
            ".symbol" => {
                let name = value.trim_matches('\'').trim_end_matches(".kd");
                kernels.push((name.to_owned(), Takes::default()));
            }
            ".vgpr_count" => takes.registers = number,
            ".vgpr_spill_count" => {
                takes.spills += number;
                if let Some(last) = kernels.last_mut() {
                    last.1 = takes;
                }
                takes = Takes::default();
            }
            _ => {}
        }
    }
    kernels
}

fn page(table: &Table) -> String {
    let mut page = String::from(
        "# What the GPU kernels take\n\n\
         Made by `cargo xtask kernels`: vector registers of a lane (of gfx90a and later with those that accumulate, of gfx908 without), and KiB of shared memory of a block, \
         by architecture.\nNo kernel spills a register or uses scratch memory.\n\n| kernel | shared |",
    );
    for (arch, _) in ARCHITECTURES {
        write!(page, " {arch} |").expect("a string takes all");
    }
    page.push_str("\n| --- | --- |");
    page.push_str(&" --- |".repeat(ARCHITECTURES.len()));
    for (name, row) in table {
        let shared = row.values().map(|t| t.shared).max().unwrap_or(0);
        write!(page, "\n| `{name}` | {:.1} |", f64::from(shared) / 1024.0)
            .expect("a string takes all");
        for (arch, _) in ARCHITECTURES {
            let registers = row.get(arch).map_or(String::new(), |t| t.registers.to_string());
            write!(page, " {registers} |").expect("a string takes all");
        }
    }
    page.push('\n');
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read() {
        let notes = "amdhsa.kernels:\n  - .agpr_count:     0\n    .args:\n      - .name:           y\n        .offset: 0\n    \
                     .group_segment_fixed_size: 512\n    .name:           norm\n    .private_segment_fixed_size: 8\n    \
                     .sgpr_spill_count: 1\n    .symbol:         norm.kd\n    .vgpr_count:     24\n    .vgpr_spill_count: 2\n  \
                     - .group_segment_fixed_size: 0\n    .private_segment_fixed_size: 0\n    .symbol:         'add.kd'\n    \
                     .vgpr_count:     5\n    .vgpr_spill_count: 0\n";
        let takes =
            |registers, shared, scratch, spills| Takes { registers, shared, scratch, spills };
        assert_eq!(
            read(notes),
            [("norm".to_owned(), takes(24, 512, 8, 3)), ("add".to_owned(), takes(5, 0, 0, 0))]
        );
    }
}
