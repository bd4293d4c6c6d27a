//! Whether a keeper answers. It is asked only while something is waited for, and the less often the longer that takes.

use nodejobs_core::time::BootTime;

use crate::failpoint;

/// With something to wait for, a keeper is first asked after so long, in milliseconds.
pub(super) const FIRST_MS: u64 = 500;
/// At the longest it is asked so often.
const LONGEST_MS: u64 = 60_000;
/// A worker that is halted is let go on when it has not answered for so long.
const CONTINUE_MS: u64 = 500;
/// So long a keeper may take to answer.
const PATIENCE_MS: u64 = 2_000;
/// After so long its guard takes over.
const KILL_MS: u64 = 10_000;

/// What is to be done about a keeper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Care {
    Nothing,
    /// Ask whether it is there.
    Ask,
    /// Let a halted worker go on.
    Continue,
    /// It is silent: its gates are closed, and it is not waited for any more.
    Fence,
    /// Its worker is killed, so that the guard takes over.
    Kill,
}

/// The answers of one keeper.
#[derive(Debug)]
pub(super) struct Pulse {
    /// Since when an answer is waited for.
    asked: Option<BootTime>,
    /// What was done about it last.
    last: Care,
    /// When to ask next, and how long after that again.
    next: BootTime,
    pause: u64,
}

impl Pulse {
    /// Of a keeper that is being asked.
    pub(super) fn asked(now: BootTime) -> Self {
        Self { asked: Some(now), last: Care::Ask, next: now, pause: FIRST_MS }
    }

    /// It has said something.
    pub(super) fn beats(&mut self, now: BootTime) {
        if self.asked.take().is_some() {
            self.next = now.plus_millis(self.pause);
        }
        self.last = Care::Nothing;
    }

    /// Something is waited for that was not before.
    pub(super) fn quicken(&mut self, now: BootTime) {
        if self.asked.is_none() && (self.pause > FIRST_MS || self.next < now) {
            self.pause = FIRST_MS;
            self.next = now.plus_millis(FIRST_MS);
        }
    }

    /// Since when it is silent, if it is.
    pub(super) fn silent_since(&self) -> Option<BootTime> {
        self.asked.filter(|_| matches!(self.last, Care::Fence | Care::Kill))
    }

    /// Since when an answer is waited for.
    pub(super) fn unanswered_since(&self) -> Option<BootTime> {
        self.asked
    }

    /// What is to be done now, each thing once.
    pub(super) fn care(&mut self, now: BootTime) -> Care {
        let care = match self.asked {
            None if now >= self.next => {
                self.asked = Some(now);
                self.pause = (self.pause * 2).min(LONGEST_MS);
                Care::Ask
            }
            None => Care::Nothing,
            Some(asked) => {
                let waited = now.millis_since(asked);
                match self.last {
                    Care::Nothing | Care::Ask if waited >= patience(CONTINUE_MS) => Care::Continue,
                    Care::Continue if waited >= patience(PATIENCE_MS) => Care::Fence,
                    Care::Fence if waited >= patience(KILL_MS) => Care::Kill,
                    _ => Care::Nothing,
                }
            }
        };
        if care != Care::Nothing {
            self.last = care;
        }
        care
    }

    /// When to look at it again; `None` if only its answer would change anything.
    pub(super) fn deadline(&self) -> Option<BootTime> {
        let Some(asked) = self.asked else { return Some(self.next) };
        let waited = match self.last {
            Care::Nothing | Care::Ask => CONTINUE_MS,
            Care::Continue => PATIENCE_MS,
            Care::Fence => KILL_MS,
            Care::Kill => return None,
        };
        Some(asked.plus_millis(patience(waited)))
    }
}

/// A test that halts a process at a failpoint means it to stay so.
fn patience(millis: u64) -> u64 {
    if failpoint::halts_keepers() { millis * 100 } else { millis }
}

/// How long a keeper may take to answer, in milliseconds.
pub(super) fn patience_ms() -> u64 {
    patience(PATIENCE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_that_is_silent_is_cared_for_step_by_step() {
        let mut pulse = Pulse::asked(BootTime(0));
        let mut done = Vec::new();
        for at in (0..60_000).step_by(100) {
            let care = pulse.care(BootTime(at));
            if care != Care::Nothing {
                done.push((at, care));
            }
        }
        let expected = [(CONTINUE_MS, Care::Continue), (PATIENCE_MS, Care::Fence), (KILL_MS, Care::Kill)];
        assert_eq!(done, expected);
        assert_eq!((pulse.deadline(), pulse.silent_since()), (None, Some(BootTime(0))));
        pulse.beats(BootTime(60_000));
        assert_eq!(pulse.silent_since(), None);
    }

    #[test]
    fn a_keeper_that_answers_is_asked_less_and_less() {
        let mut pulse = Pulse::asked(BootTime(0));
        pulse.beats(BootTime(0));
        let asked: Vec<u64> = (0..200_000)
            .step_by(500)
            .filter(|at| {
                let care = pulse.care(BootTime(*at));
                pulse.beats(BootTime(*at));
                care == Care::Ask
            })
            .collect();
        assert!(asked.starts_with(&[500, 1500, 3500, 7500]), "{asked:?}");
        assert!(asked.windows(2).all(|pair| pair[1] - pair[0] <= LONGEST_MS), "{asked:?}");
        pulse.quicken(BootTime(200_000));
        assert_eq!(pulse.deadline(), Some(BootTime(200_000 + FIRST_MS)));
    }
}
