//! What running jobs were seen to use, for those who ask again and again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use nodejobs_core::backend::TreeUsage;
use nodejobs_core::id::AttemptId;
use nodejobs_core::time::BootTime;

/// Processor use is what was used between two looks, in milliseconds: with less between them it is not exact, as the
/// kernel counts in hundredths of a second, and with more it says nothing about now.
pub(crate) const LEAST_MS: u64 = 200;
const MOST_MS: u64 = 10_000;

/// The last looks, for those who ask again and again.
#[derive(Default)]
pub(crate) struct LastLooks(Mutex<HashMap<AttemptId, TreeUsage>>);

impl LastLooks {
    /// What was seen long enough ago, and not too long.
    pub(crate) fn before(&self, now: BootTime) -> HashMap<AttemptId, TreeUsage> {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.retain(|_, look| now.millis_since(look.at) <= MOST_MS);
        let old = looks.iter().filter(|(_, look)| now.millis_since(look.at) >= LEAST_MS);
        old.map(|(attempt, look)| (attempt.clone(), *look)).collect()
    }

    pub(crate) fn keep(&self, seen: impl Iterator<Item = (AttemptId, TreeUsage)>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend(seen);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodejobs_core::JobId;

    fn look(cpu_ms: u64, at: u64) -> TreeUsage {
        TreeUsage { memory_kib: 0, cpu_ms, at: BootTime(at) }
    }

    #[test]
    fn only_looks_of_a_certain_age_are_of_use_and_old_ones_are_forgotten() {
        let looks = LastLooks::default();
        let attempt = |name: &str| AttemptId { id: JobId::new(name).expect("valid"), attempt: 1 };
        let ages = [("new", 9_900), ("used", 9_000), ("old", 0)];
        looks.keep(ages.into_iter().map(|(name, at)| (attempt(name), look(0, at))));
        let of_use: Vec<_> = looks.before(BootTime(10_050)).into_keys().collect();
        assert_eq!(of_use, [attempt("used")]);
        assert_eq!(looks.0.lock().expect("a lock").len(), 2);
    }
}
