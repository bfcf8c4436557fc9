//! NVIDIA's architectures, by NVRTC: no driver, no card.

use super::{Compiled, NVIDIA, Takes, Target, remembered};
use inference_cuda::nvrtc::{Nvrtc, options};
use inference_gpu::Module;

/// The newest NVRTC that is there, whatever the driver.
const NEWEST: u32 = 13;

/// The wanted architectures, if there is an NVRTC; says so if there is none. It is looked for where the backend does.
pub(super) fn targets(wanted: &dyn Fn(&str) -> bool) -> Vec<Target<'static>> {
    let wanted: Vec<_> = NVIDIA.into_iter().filter(|arch| wanted(arch)).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let nvrtc = match Nvrtc::open(NEWEST, 80) {
        Ok(nvrtc) => nvrtc,
        Err(error) => {
            println!("{} are left out: {error}", wanted.join(" and "));
            return Vec::new();
        }
    };
    let (major, minor) = nvrtc.version;
    let identity = format!("NVRTC {}", nvrtc.identity());
    let target = |arch: &'static str| -> Target<'static> {
        println!("NVRTC {major}.{minor}, {arch}");
        let identity = identity.clone();
        let compile = move |module: Module| {
            let mut options = options(arch, &module.defines());
            options.push("--ptxas-options=-v".to_owned());
            let source = module.source();
            remembered(&identity, &options, &source, || {
                let compiled = nvrtc.compile_and_log(&source, &options);
                let (_, log) = compiled.map_err(|error| error.to_string())?;
                Ok(read(&log))
            })
        };
        Target { arch, compiler: format!("NVRTC {major}.{minor}"), compile: Box::new(compile) }
    };
    wanted.into_iter().map(target).collect()
}

/// What the assembler says of each kernel.
fn read(log: &str) -> Compiled {
    let mut kernels = Compiled::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let name = rest.split('\'').next().unwrap_or_default();
            kernels.push((name.to_owned(), Takes::default()));
        }
        let Some((_, takes)) = kernels.last_mut() else { continue };
        // Such as `Used 26 registers, 32 bytes smem` and `0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads`.
        let line = line.rsplit(':').next().unwrap_or_default();
        for part in line.split(',') {
            let number = part.split_whitespace().find_map(|word| word.parse().ok()).unwrap_or(0);
            match part {
                _ if part.contains("registers") => takes.registers = number,
                _ if part.contains("bytes smem") => takes.shared = number,
                _ if part.contains("bytes stack frame") => takes.scratch = number,
                _ if part.contains("bytes spill") => takes.spills += number,
                _ => {}
            }
        }
    }
    kernels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_assembler_s_words_are_read() {
        let log = "ptxas info    : 0 bytes gmem\n\
                   ptxas info    : Compiling entry function 'norm' for 'sm_80'\n\
                   ptxas info    : Function properties for norm\n    \
                   8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n\
                   ptxas info    : Used 26 registers, used 1 barriers, 32 bytes smem, 400 bytes cmem[0]\n\
                   ptxas info    : Compiling entry function 'add' for 'sm_80'\n\
                   ptxas info    : Function properties for add\n    \
                   0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
                   ptxas info    : Used 8 registers, 372 bytes cmem[0]\n";
        let norm = Takes { registers: 26, shared: 32, scratch: 8, spills: 16 };
        let add = Takes { registers: 8, ..Takes::default() };
        assert_eq!(read(log), [("norm".to_owned(), norm), ("add".to_owned(), add)]);
    }
}
