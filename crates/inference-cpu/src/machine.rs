//! What the machine has: cores and memory.

use inference_engine::device::Memory;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, System};

/// Physical cores that this process may use: a second thread on a core only gets in the first one's way.
pub(crate) fn cores() -> usize {
    let allowed = std::thread::available_parallelism().map_or(1, usize::from);
    System::physical_core_count().map_or(allowed, |cores| cores.min(allowed)).max(1)
}

/// The processor's name.
pub(crate) fn processor() -> String {
    let name = System::new().ok().and_then(|mut system| {
        system.refresh_cpu_list(sysinfo::CpuRefreshKind::nothing());
        system.cpus().first().map(|c| c.brand().trim().to_owned())
    });
    name.filter(|n| !n.is_empty()).unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// Bytes of memory: in all, and free for new work (what the system would take back from its caches included).
/// Where the system does not say, nothing is refused.
pub(crate) fn total_and_available() -> (u64, u64) {
    let Ok(mut system) = System::new() else { return (0, u64::MAX) };
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let limits = system.cgroup_limits();
    let total = limits.as_ref().map_or(system.total_memory(), |l| l.total_memory);
    let free = limits.as_ref().map_or(system.available_memory(), |l| l.free_memory);
    (total, system.available_memory().min(free.max(1)).min(total))
}

/// What this process holds, mapped files included as far as they are in memory.
pub(crate) fn memory() -> Memory {
    /// The most that was seen, where the system does not say.
    static PEAK: AtomicU64 = AtomicU64::new(0);
    let active = resident();
    let seen = PEAK.fetch_max(active, Relaxed).max(active);
    let (_, available) = total_and_available();
    Memory { active, peak: peak_resident().unwrap_or(seen).max(active), available }
}

fn resident() -> u64 {
    let Ok(pid) = sysinfo::get_current_pid() else { return 0 };
    let Ok(mut system) = System::new() else { return 0 };
    let kind = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, kind);
    system.process(pid).map_or(0, sysinfo::Process::memory)
}

/// The most that this process ever held, as Linux counts it.
fn peak_resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| kib * 1024)
}
