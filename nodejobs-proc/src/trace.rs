//! The trace: a number that every process of a job carries and that no ordinary act of it takes off.
//!
//! A process that leaves the session of its job, clears its environment and loses its parent has nothing left that ties it to
//! the job, but its resource limits: they are inherited by all children and kept by every program. One of them means
//! nothing to Linux (since 2.4.30): that of the resident set, `RLIMIT_RSS`. So each job gets a hard limit of its own there,
//! higher than any machine has memory. Its highest bit says how deep the job is nested, since nobody without rights may
//! raise a limit; its lower bits are made of the job's mark.
//!
//! A job that sets this very limit (`ulimit -m`) takes it off.

use crate::sys;

/// Bits that are made of the mark.
const BITS: u32 = 50;
/// The highest bit of jobs that are not nested.
const OUTERMOST: u32 = 62;

/// What of a trace is made of a mark.
pub(crate) fn of_mark(mark: &str) -> u64 {
    // FNV-1a: the same in every version.
    let hash = mark
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    (hash ^ (hash >> BITS)) & ((1 << BITS) - 1)
}

/// The hard limit for a job, below that of its keeper; `None` where the keeper's leaves no room for it.
pub(crate) fn hard_limit(of_mark: u64, of_keeper: u64) -> Option<u64> {
    let depth = match of_keeper.checked_ilog2()? {
        highest if highest > OUTERMOST => OUTERMOST,
        highest => highest - 1,
    };
    (depth >= BITS).then(|| (1 << depth) | of_mark)
}

/// What of a process's trace is made of a mark; `None` if it has none, or if we may not know.
pub(crate) fn of_process(pid: u32) -> Option<u64> {
    let limit = sys::resident_set_limit(pid).ok()?;
    let depth = limit.checked_ilog2()?;
    (BITS..=OUTERMOST).contains(&depth).then_some(limit & ((1 << BITS) - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_of_nesting_has_room_below_the_one_above() {
        let mut keeper = u64::MAX;
        for depth in (BITS..=OUTERMOST).rev() {
            let limit = hard_limit(of_mark(&format!("d:a:{depth}")), keeper).expect("room");
            assert!(limit < keeper && limit.ilog2() == depth, "{limit:x}");
            keeper = limit;
        }
        assert_eq!(hard_limit(1, keeper), None, "there is an end to it");
        assert_eq!(hard_limit(1, 4 << 30), None, "somebody means it");
        assert_eq!(hard_limit(1, 0), None);
        assert_eq!(hard_limit(5, 1 << 63), Some((1 << 62) | 5));
    }

    #[test]
    fn different_marks_have_different_traces_in_every_version() {
        assert_eq!(of_mark("3f0c9a5b7d21e864:nightly:1"), 0x1fee825c9e724);
        let traces: std::collections::HashSet<u64> =
            (0..10_000).map(|attempt| of_mark(&format!("3f0c9a5b7d21e864:a:{attempt}"))).collect();
        assert_eq!(traces.len(), 10_000);
    }
}
