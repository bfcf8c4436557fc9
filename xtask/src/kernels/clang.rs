//! AMD's architectures, by clang: no ROCm, no card.

use super::{Compiled, Takes, Target, remembered};
use crate::Result;
use inference_gpu::{MatrixUnit, Module};
use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Architectures, and the lanes of their waves.
pub(super) const ARCHITECTURES: [(&str, u32); 12] = [
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

/// The wanted architectures that a clang knows; says which it does not.
pub(super) fn targets<'a>(
    version: Option<u32>,
    wanted: &dyn Fn(&str) -> bool,
    dir: &'a Path,
) -> Result<Vec<Target<'a>>> {
    let version = version.map_or_else(newest, Ok)?;
    let program = format!("clang-{version}");
    let identity = output(Command::new(&program).arg("--version"))?;
    let number =
        identity.split_once("version ").and_then(|(_, rest)| rest.split_whitespace().next());
    let compiler = format!("clang {}", number.unwrap_or("of an unknown version"));
    let mut known = Command::new(&program);
    known.args(["--target=amdgcn-amd-amdhsa", "-nogpulib", "--print-supported-cpus"]);
    let known = known.output().map_err(|e| format!("{program}: {e}"))?;
    let known = String::from_utf8_lossy(&known.stderr).into_owned();
    let mut targets: Vec<Target<'a>> = Vec::new();
    for (arch, wave) in ARCHITECTURES.into_iter().filter(|(arch, _)| wanted(arch)) {
        if !known.split_whitespace().any(|name| name == arch) {
            println!("{program} does not know {arch}: left out");
            continue;
        }
        println!("{program}, {arch}: waves of {wave}, {:?}", MatrixUnit::of(arch));
        let identity = identity.clone();
        let compile = move |module: Module| {
            let options = options(arch, wave, module);
            let source = module.source();
            remembered(&identity, &options, &source, || {
                compile(version, dir, arch, &options, &source)
            })
        };
        targets.push(Target { arch, compiler: compiler.clone(), compile: Box::new(compile) });
    }
    Ok(targets)
}

fn options(arch: &str, wave: u32, module: Module) -> Vec<String> {
    let mut options: Vec<String> = [
        "-x",
        "hip",
        "--cuda-device-only",
        "--no-gpu-bundle-output",
        "-nogpulib",
        "-nogpuinc",
        "-O3",
        "-std=c++17",
        "-ffp-contract=fast",
        "-c",
    ]
    .map(str::to_owned)
    .into();
    options.extend([format!("--offload-arch={arch}"), format!("-DWAVE={wave}")]);
    options.extend(module.defines());
    if wave == 32 {
        options.push("-mcumode".to_owned());
    }
    options
}

fn compile(
    version: u32,
    dir: &Path,
    arch: &str,
    options: &[String],
    text: &str,
) -> Result<Compiled> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let unique = COUNT.fetch_add(1, Ordering::Relaxed);
    let (source, code) = ["hip", "co"].map(|end| dir.join(format!("{arch}-{unique}.{end}"))).into();
    fs::write(&source, text).map_err(|e| format!("{}: {e}", source.display()))?;
    let mut command = Command::new(format!("clang-{version}"));
    output(command.args(options).arg("-o").args([&code, &source]))?;
    Ok(read(&output(Command::new(format!("llvm-readelf-{version}")).arg("--notes").arg(&code))?))
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
fn read(notes: &str) -> Compiled {
    let mut kernels = Compiled::new();
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
