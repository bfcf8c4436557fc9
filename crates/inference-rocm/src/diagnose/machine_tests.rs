use super::*;

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
        self.pci("0000:03:00.0", "0x1002\n", "0x030000\n")
    }

    fn driver(self) -> Self {
        self.file("sys/module/amdgpu/version", "")
    }

    fn nodes(self) -> Self {
        let nodes = "sys/class/kfd/kfd/topology/nodes";
        self.file(&format!("{nodes}/0/properties"), "cpu_cores_count 16\nsimd_count 0\n")
            .file(&format!("{nodes}/1/properties"), "simd_count 192\ngfx_target_version 110000\n")
    }

    /// As in a container that may not use the card: reading a GPU's properties fails.
    fn hidden_nodes(self) -> Self {
        let nodes = "sys/class/kfd/kfd/topology/nodes";
        self.file(&format!("{nodes}/0/properties"), "cpu_cores_count 16\nsimd_count 0\n")
            .file(&format!("{nodes}/1/properties/unreadable"), "")
    }

    fn devices(self) -> Self {
        self.file("dev/kfd", "").file("dev/dri/card0", "").file("dev/dri/renderD128", "")
    }

    fn whole() -> Self {
        Self::new().card().driver().nodes().devices()
    }

    fn read(&self, refused: &[(&str, i32)]) -> Machine {
        let open = |path: &Path| {
            let error = refused.iter().find(|(name, _)| path.ends_with(name));
            error.map_or(Ok(()), |(_, code)| Err(io::Error::from_raw_os_error(*code)))
        };
        Machine::read(self.0.path(), &open)
    }

    fn sentence(&self, refused: &[(&str, i32)]) -> String {
        self.read(refused).problem().map(|p| p.to_string()).unwrap_or_default()
    }
}

#[test]
fn each_fault_of_a_machine_has_its_sentence() {
    let nvidia = || Tree::new().pci("0000:01:00.0", "0x10de\n", "0x030000\n");
    // A bridge and a sound card of AMD's are no GPU.
    let board = || {
        nvidia().pci("0000:00:01.0", "0x1002", "0x060400").pci("0000:03:00.1", "0x1002", "0x040300")
    };
    for (tree, sentence) in [
        (Tree::new(), "there is no AMD GPU in this machine: use the backend cpu"),
        (board(), "there is no AMD GPU in this machine: use the backend cpu"),
        (board().driver(), "there is no AMD GPU in this machine: use the backend cpu"),
        (Tree::new().card(), "an AMD GPU at 0000:03:00.0, but its kernel driver is not loaded"),
        (Tree::new().pci("0000:c1:00.0", "0x1002", "0x120000"), "an AMD GPU at 0000:c1:00.0, but"),
        (Tree::new().card().driver().devices(), "does not offer it for computing"),
        (
            Tree::new().card().driver().nodes(),
            "no /dev/kfd: start the container with `--device=/dev/kfd",
        ),
        (Tree::new().nodes().file("dev/kfd", ""), "no /dev/dri/renderD*: start the container"),
        (Tree::new().card().driver(), "does not offer it for computing"),
        (Tree::new().card().driver().hidden_nodes(), "no /dev/kfd: start the container"),
        (
            Tree::new().card().driver().hidden_nodes().file("dev/kfd", ""),
            "no /dev/dri/renderD*: start the container",
        ),
        (
            Tree::new().card().driver().file("sys/class/kfd/kfd/dev", "").file("dev/kfd", ""),
            "no /dev/dri/renderD*: start the container",
        ),
        (
            Tree::new().hidden_nodes().devices(),
            "/sys/class/kfd/kfd/topology/nodes/1/properties can't be opened (Is a directory",
        ),
    ] {
        let found = tree.sentence(&[]);
        assert!(found.contains(sentence), "{found:?} has no {sentence:?}");
    }
    assert_eq!(Tree::whole().sentence(&[]), "");
    assert_eq!(Tree::new().nodes().devices().sentence(&[]), "", "a container without PCI");
    assert_eq!(Tree::new().file("dev/dxg", "").sentence(&[]), "", "HIP has the word on Windows");
}

#[test]
fn who_may_not_open_a_file_is_told_which_group_to_join() {
    let tree = Tree::whole();
    let gid = fs::metadata(tree.0.path().join("dev/kfd")).expect("it is there").gid();
    let named = group(tree.0.path(), gid);
    let denied = tree.sentence(&[("dev/kfd", 13)]);
    assert!(
        denied.contains(&format!("may not open /dev/kfd: run `sudo usermod -aG {named} $USER`")),
        "{denied}"
    );

    let tree = tree.file("etc/group", &format!("root:x:99999:\nrender:x:{gid}:somebody\n"));
    let denied = tree.sentence(&[("dev/kfd", 13)]);
    assert!(denied.contains("`sudo usermod -aG render $USER` and log in again"), "{denied}");
    let denied = tree.sentence(&[("dev/dri/renderD128", 13)]);
    assert!(denied.contains("may not open /dev/dri/renderD128"), "{denied}");
    let refused = tree.sentence(&[("dev/kfd", 1)]);
    assert!(refused.contains("/dev/kfd can't be opened (Operation not permitted"), "{refused}");

    let tree = tree.file("dev/dri/renderD129", "");
    assert_eq!(tree.sentence(&[("dev/dri/renderD128", 13)]), "", "another card can be opened");
}

#[test]
fn groups_have_their_names_but_nobody_is_to_join_root() {
    let tree = Tree::new().file("etc/group", "root:x:0:\ngpu:x:109:somebody\n");
    for (gid, name) in [(109, "gpu"), (110, "110"), (0, "render")] {
        assert_eq!(group(tree.0.path(), gid), name);
    }
}

#[test]
fn architectures_are_named_as_compilers_name_them() {
    assert_eq!(Tree::whole().read(&[]).offered, ["gfx1100"]);
    for (version, name) in [
        (90_006, "gfx906"),
        (90_010, "gfx90a"),
        (90_402, "gfx942"),
        (90_500, "gfx950"),
        (100_300, "gfx1030"),
        (110_501, "gfx1151"),
        (120_001, "gfx1201"),
    ] {
        assert_eq!(arch_name(version), name);
    }
}
