//! An interval as a calendar.

use super::Calendar;
use crate::time::Timestamp;

/// Times that are as far apart as an interval is long, counted from one time on the wall clock.
///
/// ```
/// use nodejobs_core::Timestamp;
/// use nodejobs_core::schedule::{Calendar as _, Every};
///
/// let every = Every { every_ms: 60_000, from: Timestamp::from_millis(1_000) };
/// assert_eq!(every.next_after(Timestamp::from_millis(61_000)), Some(Timestamp::from_millis(121_000)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Every {
    /// The interval, in milliseconds, at least 1.
    pub every_ms: u64,
    /// One interval before the first time.
    pub from: Timestamp,
}

impl Calendar for Every {
    fn next_after(&self, after: Timestamp) -> Option<Timestamp> {
        let every = i64::try_from(self.every_ms.max(1)).ok()?;
        let passed = after.as_millis().checked_sub(self.from.as_millis())?;
        let intervals = if passed < 0 { 1 } else { passed / every + 1 };
        let next = self.from.as_millis().checked_add(intervals.checked_mul(every)?)?;
        let next = Timestamp::from_millis(next);
        (next > after).then_some(next)
    }

    fn is_fixed(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_goes_on_from_where_it_began_and_ends_with_time() {
        let every = Every { every_ms: 1_000, from: Timestamp::from_millis(500) };
        let next = |after| every.next_after(Timestamp::from_millis(after)).map(Timestamp::as_millis);
        for (after, expected) in [(-9_000, 1_500), (0, 1_500), (500, 1_500), (1_499, 1_500), (1_500, 2_500)] {
            assert_eq!(next(after), Some(expected), "{after}");
        }
        assert_eq!(next(i64::MAX), None);
        let long = Every { every_ms: u64::MAX, from: Timestamp::from_millis(0) };
        assert_eq!(long.next_after(Timestamp::from_millis(0)), None);
    }
}
