//! Compiling in another process of the same program. It has its own `main`, which takes part in that.

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod common;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn main() {}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
fn main() {
    inference_rocm::compile::compile_if_asked();
    if let Ok(how) = std::env::var("FAKE_HIP_COMPILE") {
        return tests::with_compiler_that(&how);
    }
    tests::in_another_process_it_compiles();
    tests::again_with("abort");
    tests::again_with("fail");
    tests::a_real_compiler_that_dies_is_told();
    println!("ok");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tests {
    use super::common::{ADD, Fake};
    use inference_rocm::{
        compile::{CompileError, Compiler},
        hip::{DeviceInfo, Hip, HipModule, Places},
    };
    use std::{env, path::Path, process::Command};

    /// A card that no release is known to know.
    fn unknown() -> Option<Fake> {
        let fake = Fake::new()?;
        fake.arch("gfx1310");
        Some(fake)
    }

    fn compile(fake: &Fake, source: &str) -> Result<Vec<u8>, CompileError> {
        let device = fake.device();
        Compiler::with_cache_in(device.hip(), device.info(), None).compile(
            source,
            &["-DX=1".to_owned()],
            |_| true,
        )
    }

    pub(super) fn in_another_process_it_compiles() {
        let Some(fake) = unknown() else { return };
        let code = compile(&fake, ADD).expect("it compiles");
        assert_eq!(fake.compiled(), 0, "not in this one");
        let module = HipModule::load(&fake.device(), code).expect("it is for this card");
        module.function("add").expect("it is in there");
    }

    /// Runs this test again, with a compiler that fails in some way in every process.
    pub(super) fn again_with(how: &str) {
        let itself = env::current_exe().expect("it has a file");
        let status = Command::new(itself).env("FAKE_HIP_COMPILE", how).status();
        assert!(status.expect("it starts").success(), "with a compiler that {how}s");
    }

    pub(super) fn with_compiler_that(how: &str) {
        let Some(fake) = unknown() else { return };
        let error = compile(&fake, "nonsense").expect_err("it fails");
        match (how, &error) {
            ("abort", CompileError::Died { arch, how, .. }) => {
                assert!(arch == "gfx1310" && how.contains("LLVM ERROR"), "{error}");
                assert!(how.contains("signal: 6"), "{error}");
            }
            ("fail", CompileError::Process(words)) => {
                assert!(words.contains("nonsense"), "{error}")
            }
            _ => panic!("{how}: {error}"),
        }
    }

    /// Debian 12's hiprtc ends its process when asked for MI300's architecture.
    pub(super) fn a_real_compiler_that_dies_is_told() {
        let hip = match Hip::open(&Places::new(&|_| None, Path::new("/"))) {
            Ok(hip) if hip.version.major == 5 && hip.compiler.is_ok() => hip,
            other => return println!("skipped: no HIP 5, but {other:?}"),
        };
        let device = DeviceInfo {
            ordinal: 0,
            name: String::new(),
            target: "gfx942".to_owned(),
            pci: String::new(),
            uuid: None,
            wave: 64,
            multiprocessors: 304,
            shared_bytes: 65_536,
            max_block: 1024,
            integrated: false,
            memory: 0,
        };
        let compiler = Compiler::with_cache_in(hip, &device, None);
        match compiler.compile(ADD, &[], |_| true).expect_err("it does not know this card") {
            error @ CompileError::Died { .. } => println!("as it should: {error}"),
            other => panic!("{other}"),
        }
    }
}
