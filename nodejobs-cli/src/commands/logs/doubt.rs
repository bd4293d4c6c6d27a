//! Says what cannot be told: output of which nobody knows whether it is from the time that was asked for.

use nodejobs::Timestamp;
use nodejobs::api::{BindEvent, Bound, Written};

use crate::exit::say;

/// Which times are asked for, and what was said about them.
#[derive(Debug, Default)]
pub(super) struct Doubts {
    pub(super) since: Option<Timestamp>,
    pub(super) until: Option<Timestamp>,
    pub(super) timestamps: bool,
    said: Option<Written>,
}

impl Doubts {
    pub(super) fn new(since: Option<Timestamp>, until: Option<Timestamp>, timestamps: bool) -> Self {
        Self { since, until, timestamps, said: None }
    }

    /// Looks at an event of the job, and says what it leaves open, once for each span of time.
    pub(super) fn hear(&mut self, job: &str, event: &BindEvent) {
        if let Bound::Output(chunk) = &event.what
            && let Some(written) = chunk.written.filter(|written| self.said != Some(*written))
            && let Some(what) = self.doubt(written)
        {
            self.said = Some(written);
            say(&format_args!(
                "note: some output of '{job}' was written between {} and {}, and nobody noted when: {what}",
                written.after, written.before
            ));
        }
    }

    fn doubt(&self, written: Written) -> Option<&'static str> {
        if written.exactly().is_some() {
            return None;
        }
        let is_inside =
            |time: Option<Timestamp>| time.is_some_and(|time| written.after < time && time < written.before);
        match (is_inside(self.since), is_inside(self.until)) {
            (true, _) => Some("all of it is shown, also what is older than --since"),
            (_, true) => Some("all of it is shown, also what is newer than --until"),
            _ => self.timestamps.then_some("it is shown without a time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nobody_knows_is_doubted() {
        let at = Timestamp::from_millis;
        let written = |after, before| Written { after: at(after), before: at(before) };
        let doubts = Doubts::new(Some(at(5_000)), Some(at(9_000)), false);
        assert!(doubts.doubt(written(4_000, 6_000)).is_some_and(|what| what.contains("--since")));
        assert!(doubts.doubt(written(8_000, 10_000)).is_some_and(|what| what.contains("--until")));
        for known in [written(4_900, 5_050), written(5_000, 9_000), written(1_000, 5_000)] {
            assert_eq!(doubts.doubt(known), None, "{known:?}");
        }
        let times = Doubts::new(None, None, true);
        assert!(times.doubt(written(4_000, 6_000)).is_some_and(|what| what.contains("without a time")));
        assert_eq!(times.doubt(written(4_000, 4_100)), None);
    }
}
