//! The page that says what kernels take, and whether it still does.

use super::{Table, Takes, all};
use std::{collections::BTreeMap, fmt::Write};

/// What begins the line that names the compilers.
const COMPILED: &str = "Compiled by ";

/// The page.
pub(super) fn page(table: &Table, compilers: &BTreeMap<&'static str, String>) -> String {
    let mut names: Vec<_> = compilers.values().map(String::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let mut page = format!(
        "# What the GPU kernels take\n\n\
         Made by `cargo xtask kernels`; `cargo xtask kernels --check` compares.\n\
         {COMPILED}{}.\n\n\
         By architecture: vector registers of a lane (of gfx90a and later with those that accumulate, of gfx908 without; of \
         NVIDIA's, registers of a thread); nothing where no compiler for it was there.\n\
         Of all architectures the most: KiB of shared memory of a block, registers that are spilled (vector and scalar ones, to \
         memory or to others; of NVIDIA's, bytes), and bytes of scratch memory of a lane.\n\n\
         | kernel | shared | spilled | scratch |",
        names.join(" and ")
    );
    for arch in all() {
        write!(page, " {arch} |").expect("a string takes all");
    }
    page.push_str("\n| --- | --- | --- | --- |");
    page.push_str(&" --- |".repeat(all().count()));
    for (name, row) in table {
        let most = |of: fn(&Takes) -> u32| row.values().map(of).max().unwrap_or(0);
        let (shared, spills, scratch) =
            (most(|t| t.shared), most(|t| t.spills), most(|t| t.scratch));
        write!(page, "\n| `{name}` | {:.1} | {spills} | {scratch} |", f64::from(shared) / 1024.0)
            .expect("a string takes all");
        for arch in all() {
            let registers = row.get(arch).map_or(String::new(), |t| t.registers.to_string());
            write!(page, " {registers} |").expect("a string takes all");
        }
    }
    page.push('\n');
    page
}

/// What a page says that isn't so: of the architectures whose compiler is of the page's version. Says which are not compared.
pub(super) fn differences(
    old: &str,
    table: &Table,
    compilers: &BTreeMap<&'static str, String>,
) -> Vec<String> {
    let of_page = old.lines().find_map(|line| line.strip_prefix(COMPILED)).unwrap_or_default();
    let of_page: Vec<_> = of_page.trim_end_matches('.').split(" and ").collect();
    let (known, other): (Vec<_>, Vec<_>) =
        compilers.iter().partition(|(_, compiler)| of_page.contains(&compiler.as_str()));
    for (arch, compiler) in other {
        println!(
            "{arch} is not compared: the table is of {}, here is {compiler}",
            of_page.join(" and ")
        );
    }
    let new = page(table, compilers);
    let (old, new) = (columns(old), columns(&new));
    let mut names: Vec<&str> = known.iter().map(|(arch, _)| **arch).collect();
    // The most of all are known if all are.
    if all().all(|arch| names.contains(&arch)) {
        names.extend(["shared", "spilled", "scratch"]);
    }
    let empty = BTreeMap::new();
    let mut faults = Vec::new();
    for name in names {
        let (old, new) = (old.get(name).unwrap_or(&empty), new.get(name).unwrap_or(&empty));
        for kernel in old.keys().chain(new.keys().filter(|kernel| !old.contains_key(*kernel))) {
            let (was, is) = (old.get(kernel), new.get(kernel));
            if was != is {
                let told = |n: Option<&&str>| n.map_or("nothing", |n| *n).to_owned();
                faults.push(format!(
                    "{kernel}, {name}: the table says {}, it is {}; `cargo xtask kernels` writes the table",
                    told(was),
                    told(is)
                ));
            }
        }
    }
    faults
}

/// The columns of the table in a page by their names, and in each what stands there by the first cell of the line.
fn columns(page: &str) -> BTreeMap<&str, BTreeMap<&str, &str>> {
    let mut lines = page.lines().filter_map(cells);
    let Some(names) = lines.next() else { return BTreeMap::new() };
    let mut columns: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
    for line in lines.skip(1) {
        for (name, cell) in names.iter().zip(&line).skip(1).filter(|(_, cell)| !cell.is_empty()) {
            columns.entry(name).or_default().insert(line[0], cell);
        }
    }
    columns
}

/// The cells of a table's line.
fn cells(line: &str) -> Option<Vec<&str>> {
    let line = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(line.split('|').map(str::trim).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(registers: u32) -> Takes {
        Takes { registers, shared: 512, scratch: 0, spills: 0 }
    }

    fn table(registers: u32) -> Table {
        let row = |n| all().map(|arch| (arch, takes(n))).collect();
        Table::from([("add".to_owned(), row(registers)), ("norm".to_owned(), row(7))])
    }

    fn compilers(clang: &str) -> BTreeMap<&'static str, String> {
        let of = |arch: &str| if arch.starts_with("gfx") { clang } else { "NVRTC 12.9" };
        all().map(|arch| (arch, of(arch).to_owned())).collect()
    }

    #[test]
    fn the_page_says_what_kernels_take() {
        let mut table = table(24);
        table.get_mut("add").and_then(|row| row.get_mut("gfx906")).expect("is there").spills = 3;
        let page = page(&table, &compilers("clang 22.1.0"));
        assert!(page.contains("Compiled by NVRTC 12.9 and clang 22.1.0.\n"), "{page}");
        assert!(page.contains("| `add` | 0.5 | 3 | 0 | 24 |"), "{page}");
    }

    #[test]
    fn a_page_is_compared_where_the_compiler_is_the_same() {
        let old = page(&table(24), &compilers("clang 22.1.0"));
        let found = |table: &Table, clang| differences(&old, table, &compilers(clang));
        assert_eq!(found(&table(24), "clang 22.1.0"), [""; 0]);
        let faults = found(&table(25), "clang 22.1.0");
        assert_eq!(faults.len(), all().count(), "{faults:?}");
        assert!(faults[0].contains("`add`, ") && faults[0].contains("24, it is 25"), "{faults:?}");
        // Of another clang only NVIDIA's are known.
        assert_eq!(found(&table(25), "clang 19.1.7").len(), 2);
        let mut spilled = table(24);
        spilled.get_mut("norm").and_then(|row| row.get_mut("sm_80")).expect("is there").spills = 4;
        assert_eq!(found(&spilled, "clang 22.1.0").len(), 1);
        let mut fewer = table(24);
        fewer.remove("norm");
        assert!(found(&fewer, "clang 22.1.0")[0].contains("it is nothing"));
    }
}
