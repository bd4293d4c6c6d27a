//! The first of all jobs by something other than the order of submission, without holding all of them.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use clap::ValueEnum;
use nodejobs::record::JobRecord;
use nodejobs::{Status, Timestamp};

/// By what jobs are sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum SortKey {
    // Documented variants would make a long list of the help page.
    Id,
    Name,
    Status,
    Created,
    Started,
    Ended,
    LastUpdate,
    Runtime,
    ExitCode,
    CpuTime,
    PeakMemory,
    LogSize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Value {
    Text(String),
    Number(i64),
}

impl SortKey {
    /// What the job has of it.
    fn value(self, record: &JobRecord) -> Option<Value> {
        let time = |time: Timestamp| Value::Number(time.as_millis());
        let number = |number: u64| Value::Number(i64::try_from(number).unwrap_or(i64::MAX));
        match self {
            SortKey::Id => Some(Value::Text(record.self_id.to_string())),
            SortKey::Name => record.name.clone().map(Value::Text),
            SortKey::Status => {
                let place = Status::ALL.iter().position(|status| *status == record.status)?;
                i64::try_from(place).ok().map(Value::Number)
            }
            SortKey::Created => Some(time(record.created_at)),
            SortKey::Started => record.started_at.map(time),
            SortKey::Ended => record.ended_at.map(time),
            SortKey::LastUpdate => Some(time(record.last_update)),
            SortKey::Runtime => record.runtime_ms.map(number),
            SortKey::ExitCode => record.exit_code.map(|code| Value::Number(code.into())),
            SortKey::CpuTime => record.cpu_ms.map(number),
            // The bits of sizes, which are not negative, are in the order of the sizes.
            SortKey::PeakMemory => record.peak_memory_mb.map(|size| number(size.to_bits())),
            SortKey::LogSize => record.log_bytes.map(number),
        }
    }
}

/// The first so many jobs of those it was given; it holds no more.
#[derive(Debug)]
pub(super) struct Top {
    key: SortKey,
    reverse: bool,
    limit: usize,
    given: u64,
    /// With the last of them on top.
    first: BinaryHeap<Ranked>,
}

impl Top {
    /// The smallest first, or with `reverse` the largest. What has no value comes last either way, and equals stay in
    /// the order in which they are given.
    pub(super) fn new(key: SortKey, reverse: bool, limit: usize) -> Self {
        Self { key, reverse, limit, given: 0, first: BinaryHeap::new() }
    }

    /// One more job.
    pub(super) fn push(&mut self, record: JobRecord) {
        let value = self.key.value(&record);
        let (up, down) = if self.reverse { (None, value.map(Reverse)) } else { (value, None) };
        let is_absent = up.is_none() && down.is_none();
        self.first.push(Ranked { rank: (is_absent, up, down, self.given), record });
        self.given += 1;
        if self.first.len() > self.limit {
            self.first.pop();
        }
    }

    /// Whether there were more than it holds.
    pub(super) fn left_some_out(&self) -> bool {
        usize::try_from(self.given).is_ok_and(|given| given > self.first.len())
    }

    /// Those it holds, in order.
    pub(super) fn into_sorted(self) -> Vec<JobRecord> {
        self.first.into_sorted_vec().into_iter().map(|ranked| ranked.record).collect()
    }
}

#[derive(Debug)]
struct Ranked {
    /// Absent or not, the value in the direction that is wanted, and which one it was: no two are equal.
    rank: (bool, Option<Value>, Option<Reverse<Value>>, u64),
    record: JobRecord,
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Ranked {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl Eq for Ranked {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::record;

    /// Jobs `j0`, `j1` … with these run times.
    fn jobs(runtimes: &[Option<u64>]) -> Vec<JobRecord> {
        let job = |(index, runtime): (usize, &Option<u64>)| {
            let mut record = record(&format!("j{index}"));
            record.runtime_ms = *runtime;
            record
        };
        runtimes.iter().enumerate().map(job).collect()
    }

    fn top(jobs: &[JobRecord], key: SortKey, reverse: bool, limit: usize) -> (Vec<String>, bool) {
        let mut top = Top::new(key, reverse, limit);
        for job in jobs {
            top.push(job.clone());
            assert!(top.first.len() <= limit, "no more than is shown is held");
        }
        let left_out = top.left_some_out();
        (top.into_sorted().into_iter().map(|job| job.self_id.to_string()).collect(), left_out)
    }

    #[test]
    fn absent_values_are_last_and_equals_keep_their_order() {
        let jobs = jobs(&[Some(5), None, Some(3), Some(5), None, Some(9)]);
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<Vec<_>>();
        let runtime = |reverse, limit| top(&jobs, SortKey::Runtime, reverse, limit);
        assert_eq!(runtime(false, 9), (ids(&["j2", "j0", "j3", "j5", "j1", "j4"]), false));
        assert_eq!(runtime(true, 6), (ids(&["j5", "j0", "j3", "j2", "j1", "j4"]), false));
        assert_eq!(runtime(true, 2), (ids(&["j5", "j0"]), true));
        assert_eq!(runtime(false, 5), (ids(&["j2", "j0", "j3", "j5", "j1"]), true));
    }

    #[test]
    fn the_first_of_many_are_those_of_a_whole_sort() {
        // A fixed walk through the residues, with repetitions and gaps.
        let runtimes: Vec<Option<u64>> =
            (0..500_u64).map(|n| (n % 7 != 0).then_some(n * 7919 % 101)).collect();
        let jobs = jobs(&runtimes);
        for reverse in [false, true] {
            let whole = top(&jobs, SortKey::Runtime, reverse, usize::MAX).0;
            for limit in [1, 10, 101, 499] {
                let first = top(&jobs, SortKey::Runtime, reverse, limit);
                assert_eq!(first, (whole[..limit].to_vec(), true), "{limit} {reverse}");
            }
            let values: Vec<_> =
                whole.iter().map(|id| runtimes[id[1..].parse::<usize>().expect("its place")]).collect();
            let present: Vec<_> = values.iter().map_while(|value| *value).collect();
            let in_order = |pair: &[u64]| if reverse { pair[0] >= pair[1] } else { pair[0] <= pair[1] };
            assert!(present.windows(2).all(in_order), "{present:?}");
            assert!(values[present.len()..].iter().all(Option::is_none), "{values:?}");
        }
    }

    #[test]
    fn every_key_tells_records_apart() {
        let (mut small, mut large) = (record("a"), record("b"));
        small.status = Status::Running;
        (small.name, large.name) = (Some("x".to_owned()), Some("y".to_owned()));
        (small.runtime_ms, small.cpu_ms, small.peak_memory_mb) = (Some(1), Some(1), Some(2.4));
        (small.log_bytes, large.log_bytes, large.exit_code) = (Some(9), Some(10), Some(1));
        let later = Timestamp::from_millis(large.last_update.as_millis() + 1);
        (large.created_at, large.started_at, large.ended_at, large.last_update) =
            (later, Some(later), Some(later), later);
        for key in SortKey::value_variants() {
            assert!(key.value(&small).expect("a value") < key.value(&large).expect("a value"), "{key:?}");
        }
    }
}
