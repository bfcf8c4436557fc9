use super::*;
use std::os::unix::fs::symlink;

/// A made-up machine.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    fn file(self, path: &str, text: &str) -> Self {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("it is in a folder")).expect("it can be made");
        fs::write(path, text).expect("it can be written");
        self
    }

    fn pci(self, address: &str, vendor: &str, class: &str) -> Self {
        let folder = format!("sys/bus/pci/devices/{address}");
        self.file(&format!("{folder}/vendor"), vendor).file(&format!("{folder}/class"), class)
    }

    fn card(self) -> Self {
        self.pci("0000:01:00.0", "0x10de\n", "0x030200\n")
    }

    fn driven_by(self, name: &str) -> Self {
        let link = self.0.path().join("sys/bus/pci/devices/0000:01:00.0/driver");
        symlink(format!("../../../bus/pci/drivers/{name}"), link).expect("it can be made");
        self
    }

    fn driver(self) -> Self {
        self.file(
            "proc/driver/nvidia/version",
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.14  Thu Feb 22 01:44:30 UTC 2024\nGCC version: 12.2.0\n",
        )
    }

    fn control(self) -> Self {
        self.file("dev/nvidiactl", "")
    }

    fn read(&self, refused: Option<i32>) -> Machine {
        let open = |path: &Path| {
            assert!(path.ends_with("dev/nvidiactl"));
            refused.map_or(Ok(()), |code| Err(io::Error::from_raw_os_error(code)))
        };
        Machine::read(self.0.path(), &open)
    }

    fn sentence(&self, refused: Option<i32>) -> String {
        self.read(refused).problem().map(|p| p.to_string()).unwrap_or_default()
    }
}

#[test]
fn each_fault_of_a_machine_has_its_sentence() {
    // AMD's card, and NVIDIA's sound card and switch, are no GPU of NVIDIA's.
    let board = || {
        Tree::new()
            .pci("0000:03:00.0", "0x1002", "0x030000")
            .pci("0000:01:00.1", "0x10de", "0x040300")
            .pci("0000:05:00.0", "0x10de", "0x068000")
    };
    for (tree, refused, sentence) in [
        (Tree::new(), None, "there is no NVIDIA GPU in this machine: use the backend cpu"),
        (board(), None, "there is no NVIDIA GPU in this machine: use the backend cpu"),
        (board().driver(), None, "there is no NVIDIA GPU in this machine: use the backend cpu"),
        (
            board().card(),
            None,
            "at 0000:01:00.0, but NVIDIA's kernel driver is not loaded: install",
        ),
        (Tree::new().card().driven_by("nouveau"), None, "not loaded (nouveau has the GPU)"),
        (Tree::new().card().driven_by("vfio-pci"), None, "(vfio-pci has the GPU)"),
        (Tree::new().card().driver(), None, "`--gpus all`"),
        (Tree::new().card().driver().control(), Some(13), "may not open /dev/nvidiactl"),
        (Tree::new().card().driver().control(), Some(1), "opened (Operation not permitted"),
        (Tree::new().control(), Some(1), "opened (Operation not permitted"),
    ] {
        let found = tree.sentence(refused);
        assert!(found.contains(sentence), "{found:?} has no {sentence:?}");
    }
    assert_eq!(Tree::new().card().driver().control().sentence(None), "");
    assert_eq!(Tree::new().control().sentence(None), "", "a sandbox without /sys and /proc");
    assert_eq!(Tree::new().file("dev/dxg", "").sentence(None), "", "CUDA has the word on Windows");
    assert_eq!(Tree::new().file("dev/nvgpu/igpu0/ctrl", "").sentence(None), "", "a Jetson");
}

#[test]
fn what_opening_cuda_mends_is_told_only_if_it_does_not() {
    let no_library = || Problem::NoLibrary { driver: None };
    for (tree, refused, stays) in [
        (Tree::new(), None, true),
        (Tree::new().card(), None, false),
        (Tree::new().card().driven_by("nouveau"), None, true),
        (Tree::new().card().driver(), None, false),
        (Tree::new().card().driver().control(), Some(13), true),
        (Tree::new().card().driver().control(), Some(1), true),
    ] {
        let machine = tree.read(refused);
        let problem = machine.problem().expect("it has one");
        assert_eq!(problem.stays(), stays, "{problem}");
        assert_eq!(machine.explain(no_library()).to_string(), problem.to_string());
        let hidden = machine.explain(Problem::Hidden { value: String::new() });
        assert!(matches!(hidden, Problem::Hidden { .. }), "{hidden}");
    }
    let machine = Tree::new().card().driver().control().read(None);
    assert!(matches!(machine.explain(no_library()), Problem::NoLibrary { .. }));
}

#[test]
fn linux_on_windows_has_a_sentence_of_its_own() {
    let machine = Tree::new().file("dev/dxg", "").read(None);
    for problem in [Problem::NoLibrary { driver: None }, Problem::NotSeen] {
        let sentence = machine.explain(problem).to_string();
        assert!(sentence.starts_with("no NVIDIA GPU reaches this WSL"), "{sentence}");
    }
    let old = machine.explain(Problem::OldDriver((11, 0)));
    assert!(matches!(old, Problem::OldDriver(_)), "{old}");
}

#[test]
fn the_driver_s_version_is_read_from_either_module() {
    let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  575.57.08  Release Build  (user@host)\n";
    for (tree, version) in [
        (Tree::new(), None),
        (Tree::new().driver(), Some("550.54.14")),
        (Tree::new().file("proc/driver/nvidia/version", open), Some("575.57.08")),
        (Tree::new().file("proc/driver/nvidia/version", ""), Some("")),
    ] {
        assert_eq!(tree.read(None).driver.as_deref(), version);
    }
}
