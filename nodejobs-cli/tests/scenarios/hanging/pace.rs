//! How long calls take that have nothing to do with what hangs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::{Home, Said, text};

/// Because of what hangs, a call may be slower by this.
const SLOWER: Duration = Duration::from_millis(100);
/// So many calls of each kind are made.
const ROUNDS: usize = 5;

/// The median of each kind of call.
pub(crate) struct Pace(BTreeMap<&'static str, Duration>);

impl Pace {
    /// As it is now: with everything that a user does beside. Each answer is checked.
    pub(crate) fn of(home: &Home) -> Self {
        let mut times: BTreeMap<&'static str, Vec<Duration>> = BTreeMap::new();
        let mut time = |what: &'static str, arguments: &[&str]| -> Said {
            let begin = Instant::now();
            let said = home.nodejobs(arguments);
            times.entry(what).or_default().push(begin.elapsed());
            said
        };
        for _ in 0..ROUNDS {
            let other = home.ok(["run", "--", "sleep", "1000"]);
            home.running(&other);
            let quick = time("run --wait", &["run", "--wait", "exit 7"]);
            assert_eq!(quick.code, 7, "{quick:?}");
            for (what, arguments) in [
                ("ls", vec!["ls", "--all"]),
                ("status", vec!["status", &other]),
                ("explain", vec!["explain", &other]),
                ("daemon status", vec!["daemon", "status"]),
                ("logs", vec!["logs", &other]),
                ("stop --force", vec!["stop", "--force", &other]),
            ] {
                let said = time(what, &arguments);
                assert_eq!(said.code, 0, "{said:?}");
            }
            assert_eq!(text(&home.record(&other), "status"), "stopped");
            // What hangs is a problem, and there may be others of this machine's.
            let doctor = time("doctor", &["doctor"]);
            assert!(doctor.code <= 1, "{doctor:?}");
        }
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            times[times.len() / 2]
        };
        Self(times.into_iter().map(|(what, times)| (what, median(times))).collect())
    }

    /// Checks that everything goes on as before while something hangs.
    pub(crate) fn is_kept(&self, home: &Home) {
        let during = Self::of(home);
        for (what, before) in &self.0 {
            let now = during.0[what];
            assert!(now <= *before + SLOWER, "`{what}` took {now:?}, and {before:?} before");
        }
    }
}
