//! What this machine has for applications, unless a user says otherwise.

use std::fs;
use std::thread::available_parallelism;

/// Left to the system and to us.
const RESERVED_MIB: u64 = 1024;
/// Where nothing can be learnt.
const FALLBACK_MIB: u64 = 1024;

/// All cores that this process may use.
pub(crate) fn cores() -> u32 {
    available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX))
}

/// The memory of the machine but 1 GiB.
pub(crate) fn memory_mib() -> u64 {
    fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total_mib(&text))
        .map_or(FALLBACK_MIB, |total| {
            total.saturating_sub(RESERVED_MIB).max(FALLBACK_MIB)
        })
}

fn total_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib >> 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_is_read_in_mebibytes() {
        assert_eq!(
            total_mib("MemTotal:       24680340 kB\nMemFree: 1 kB\n"),
            Some(24_101)
        );
        assert_eq!(total_mib("MemFree: 1 kB\n"), None);
    }
}
