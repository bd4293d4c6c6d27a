//! Which occurrences of a schedule run now, and which were missed. Pure: what is due depends on the schedule, its calendar
//! and the time.

use std::collections::VecDeque;
use std::fmt;

use super::{Calendar, CatchUp, Schedule};
use crate::time::Timestamp;

/// What is to be decided of a schedule at one time.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Due {
    /// Those that were missed and do not run. All of them are before those that run.
    pub skipped: Option<Skipped>,
    /// Those that run, or would if the one before has ended; the first one first.
    pub run: Vec<Timestamp>,
}

/// Occurrences that do not run, for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// How many.
    pub count: u64,
    /// Whether they were too many to be counted; then there are more.
    pub or_more: bool,
    /// The first of them.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, or_more, first, last } = self;
        let more = if *or_more { "at least " } else { "" };
        match count {
            1 => write!(f, "1 occurrence, due {last},"),
            count => write!(f, "{more}{count} occurrences, due {first} to {last},"),
        }
    }
}

/// So many missed ones are counted one by one.
const MAX_COUNTED: u64 = 100_000;

/// What is due of a schedule that runs by this calendar. One that is paused skips everything.
pub fn due(schedule: &Schedule, calendar: &dyn Calendar, now: Timestamp) -> Due {
    let end = schedule.until.map_or(now, |until| until.min(now));
    let wanted = if schedule.is_paused { 0 } else { schedule.catch_up.most().max(1) };
    // One more than may run, so that the last skipped one is among them.
    let passed = Passed::between(calendar, schedule.decided_until, end, wanted + 1);
    let Some(last) = passed.newest.back().copied() else { return Due::default() };
    let is_kept = now.as_millis() - last.as_millis() <= Schedule::LATE_MS;
    let runs = match schedule.catch_up {
        _ if schedule.is_paused => 0,
        CatchUp::Skip => usize::from(is_kept),
        CatchUp::One | CatchUp::All(_) => wanted.min(passed.newest.len()),
    };
    let split = passed.newest.len() - runs;
    let run: Vec<Timestamp> = passed.newest.iter().skip(split).copied().collect();
    let count = passed.count - u64::try_from(runs).unwrap_or(0);
    let skipped = passed.newest.iter().take(split).next_back().map(|last| Skipped {
        count,
        or_more: passed.or_more,
        first: passed.first.unwrap_or(*last),
        last: *last,
    });
    Due { skipped, run }
}

/// The times of a calendar in a span.
#[derive(Default)]
struct Passed {
    count: u64,
    or_more: bool,
    first: Option<Timestamp>,
    /// The last of them.
    newest: VecDeque<Timestamp>,
}

impl Passed {
    /// Those after one time and not after another, with so many of the last ones.
    fn between(calendar: &dyn Calendar, after: Timestamp, end: Timestamp, keep: usize) -> Self {
        let mut passed = Self::default();
        passed.go_on(calendar, after, end, keep, MAX_COUNTED);
        let Some(reached) = passed.newest.back().copied().filter(|_| passed.count == MAX_COUNTED) else {
            return passed;
        };
        if calendar.next_after(reached).is_none_or(|next| next > end) {
            return passed;
        }
        // The clock was years behind, most likely. The last ones are found from the end, by ever longer spans.
        passed.or_more = true;
        let mut span = 60_000;
        loop {
            let from = Timestamp::from_millis(end.as_millis() - span).max(reached);
            let mut newest = Self::default();
            newest.go_on(calendar, from, end, keep, u64::MAX);
            if newest.newest.len() >= keep || from == reached {
                passed.newest.extend(newest.newest);
                let surplus = passed.newest.len().saturating_sub(keep);
                passed.newest.drain(..surplus);
                return passed;
            }
            span *= 2;
        }
    }

    fn go_on(
        &mut self,
        calendar: &dyn Calendar,
        after: Timestamp,
        end: Timestamp,
        keep: usize,
        at_most: u64,
    ) {
        let mut at = after;
        while self.count < at_most
            && let Some(next) = calendar.next_after(at).filter(|next| *next <= end)
        {
            self.count += 1;
            self.first.get_or_insert(next);
            if self.newest.len() == keep {
                self.newest.pop_front();
            }
            self.newest.push_back(next);
            at = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::schedule;
    use super::super::{Every, Overlap};
    use super::*;

    /// What is due so long after the schedule was added that is due each minute, and how many are skipped.
    fn after(millis: i64, catch_up: CatchUp) -> (u64, Vec<i64>) {
        let mut schedule = schedule();
        (schedule.catch_up, schedule.overlap) = (catch_up, Overlap::Queue);
        let from = schedule.created_at;
        let now = Timestamp::from_millis(from.as_millis() + millis);
        let due = due(&schedule, &Every { every_ms: 60_000, from }, now);
        let minutes = due.run.iter().map(|due| (due.as_millis() - from.as_millis()) / 60_000).collect();
        (due.skipped.map_or(0, |skipped| skipped.count), minutes)
    }

    #[test]
    fn what_is_in_time_runs_and_what_was_missed_is_caught_up_with_as_asked() {
        for catch_up in [CatchUp::Skip, CatchUp::One, CatchUp::All(3)] {
            assert_eq!(after(59_999, catch_up), (0, vec![]), "{catch_up}");
            assert_eq!(after(60_000, catch_up), (0, vec![1]), "{catch_up}");
            assert_eq!(after(70_000, catch_up), (0, vec![1]), "{catch_up}");
        }
        // The last one is too late as well.
        assert_eq!(after(315_000, CatchUp::Skip), (5, vec![]));
        assert_eq!(after(315_000, CatchUp::One), (4, vec![5]));
        assert_eq!(after(315_000, CatchUp::All(3)), (2, vec![3, 4, 5]));
        assert_eq!(after(315_000, CatchUp::All(9)), (0, vec![1, 2, 3, 4, 5]));
        // The last one is in time.
        assert_eq!(after(305_000, CatchUp::Skip), (4, vec![5]));
        assert_eq!(after(305_000, CatchUp::One), (4, vec![5]));
        assert_eq!(after(305_000, CatchUp::All(3)), (2, vec![3, 4, 5]));
    }

    #[test]
    fn nothing_is_due_after_its_end_and_a_paused_one_skips_everything() {
        let mut schedule = schedule();
        let from = schedule.created_at;
        let (every, now) =
            (Every { every_ms: 60_000, from }, Timestamp::from_millis(from.as_millis() + 185_000));
        schedule.until = Some(Timestamp::from_millis(from.as_millis() + 120_000));
        schedule.catch_up = CatchUp::One;
        let found = due(&schedule, &every, now);
        assert_eq!(
            (found.run, found.skipped.map(|it| it.count)),
            (vec![schedule.until.expect("set")], Some(1))
        );
        schedule.is_paused = true;
        let found = due(&schedule, &every, now);
        assert_eq!((found.run.len(), found.skipped.map(|it| it.count)), (0, Some(2)));
        let said = found.skipped.expect("some").to_string();
        assert_eq!(said, "2 occurrences, due 2026-07-14T03:34:20.000Z to 2026-07-14T03:35:20.000Z,");
    }

    #[test]
    fn a_clock_that_was_decades_behind_takes_no_time_to_catch_up_with() {
        let mut schedule = schedule();
        let from = Timestamp::from_millis(0);
        schedule.decided_until = from;
        schedule.catch_up = CatchUp::All(3);
        let every = Every { every_ms: 1_000, from };
        let now = Timestamp::from_millis(1_784_000_000_500);
        let found = due(&schedule, &every, now);
        let expected = [1_783_999_998_000, 1_783_999_999_000, 1_784_000_000_000].map(Timestamp::from_millis);
        assert_eq!(found.run, expected);
        let skipped = found.skipped.expect("many");
        assert!(skipped.or_more && skipped.count >= MAX_COUNTED - 3, "{skipped:?}");
        assert_eq!(skipped.last, Timestamp::from_millis(1_783_999_997_000));
        assert!(skipped.to_string().starts_with("at least "));
    }

    proptest::proptest! {
        /// Compared with a list of all of them.
        #[test]
        fn each_is_skipped_or_runs_and_those_that_run_are_the_last(
            passed in 0_i64..400_000, every in 1_000_u64..90_000, most in 1_u32..6, kind in 0..3, until in 0_i64..500_000,
        ) {
            let mut schedule = schedule();
            let from = schedule.created_at;
            let at = |millis| Timestamp::from_millis(from.as_millis() + millis);
            schedule.catch_up = [CatchUp::Skip, CatchUp::One, CatchUp::All(most)][usize::try_from(kind).unwrap_or(0)];
            schedule.until = (until < 400_000).then(|| at(until));
            let now = at(passed);
            let found = due(&schedule, &Every { every_ms: every, from }, now);
            let end = schedule.until.map_or(now, |until| until.min(now));
            let all: Vec<Timestamp> = (1..).map(|n| at(n * every.cast_signed())).take_while(|due| *due <= end).collect();
            let skipped = usize::try_from(found.skipped.map_or(0, |skipped| skipped.count)).expect("few");
            proptest::prop_assert_eq!(&all[skipped..], &found.run[..]);
            if let Some(found) = found.skipped {
                proptest::prop_assert_eq!((found.first, found.last), (all[0], all[skipped - 1]));
            }
            let is_kept = all.last().is_some_and(|last| now.as_millis() - last.as_millis() <= Schedule::LATE_MS);
            let expected = match schedule.catch_up {
                CatchUp::Skip => usize::from(is_kept),
                other => other.most().min(all.len()),
            };
            proptest::prop_assert_eq!(found.run.len(), expected);
        }
    }
}
