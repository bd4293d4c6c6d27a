//! What processes use: memory and processor time, read from `/proc` when somebody asks.

use std::io;

use crate::identity::{ProcStat, if_there};

/// What a process has in memory, in KiB, with its part of what it shares with others. Where that may not be read, as of
/// a program that runs with another user's rights, all of what it shares counts.
///
/// # Errors
/// When there is no room to look.
pub(crate) fn proportional_kib(pid: u32) -> io::Result<u64> {
    let rollup = if_there(std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")))?;
    match rollup.as_deref().and_then(pss_of_rollup) {
        Some(kib) => Ok(kib),
        None => resident_kib(pid),
    }
}

/// What a process has in memory, in KiB, with all of what it shares: quick to read, and never less than its
/// [part](proportional_kib).
///
/// # Errors
/// When there is no room to look.
pub(crate) fn resident_kib(pid: u32) -> io::Result<u64> {
    let statm = if_there(std::fs::read_to_string(format!("/proc/{pid}/statm")))?.unwrap_or_default();
    let pages: u64 = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or(0);
    Ok(pages * (rustix::param::page_size() as u64 / 1024))
}

/// Processor time of these processes so far, in milliseconds.
pub(crate) fn cpu_ms(processes: &[ProcStat]) -> u64 {
    let ticks: u64 = processes.iter().map(|stat| stat.cpu_ticks).sum();
    ticks * 1000 / rustix::param::clock_ticks_per_second()
}

fn pss_of_rollup(text: &str) -> Option<u64> {
    let size = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    size.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_of_what_is_shared_is_read_and_nothing_like_it() {
        let text = "00400000-7ffe ---p 00000000 00:00 0    [rollup]\nRss:  884 kB\nPss:    385 kB\nPss_Dirty: 7 kB\n";
        assert_eq!(pss_of_rollup(text), Some(385));
        assert_eq!(pss_of_rollup("Rss:  884 kB\nPss_Dirty: 7 kB\n"), None);
    }

    #[test]
    fn this_process_has_memory_and_its_part_is_no_more_than_all_of_it() {
        let own = std::process::id();
        let (part, all) = (proportional_kib(own).expect("room"), resident_kib(own).expect("room"));
        assert!(part > 100 && part <= all + 1024, "{part} of {all}");
        assert_eq!(resident_kib(u32::MAX).expect("room"), 0, "nobody");
    }
}
