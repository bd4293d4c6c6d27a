//! What the jobs wrote themselves: that they began, and that they came to their last act.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};

/// What one attempt left.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Trace {
    /// The processes that began it, and where in the file they say so.
    pub(crate) starts: Vec<(u32, usize)>,
    /// The codes that it was about to end with, and where.
    pub(crate) ends: Vec<(u8, usize)>,
}

/// The traces of all attempts.
#[derive(Debug, Default)]
pub(crate) struct Evidence(BTreeMap<String, BTreeMap<u32, Trace>>);

impl Evidence {
    /// Lines `S ID ATTEMPT PID` and `E ID ATTEMPT CODE`, in the order in which they were written.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut all: BTreeMap<String, BTreeMap<u32, Trace>> = BTreeMap::new();
        for (place, line) in text.lines().enumerate() {
            let [kind, id, attempt, value] = line.split(' ').collect::<Vec<_>>()[..] else {
                bail!("line {} of the evidence is spoilt: {line}", place + 1)
            };
            let spoilt = || format!("line {} of the evidence is spoilt: {line}", place + 1);
            let attempt = attempt.parse().with_context(spoilt)?;
            let trace = all.entry(id.to_owned()).or_default().entry(attempt).or_default();
            match kind {
                "S" => trace.starts.push((value.parse().with_context(spoilt)?, place)),
                "E" => trace.ends.push((value.parse().with_context(spoilt)?, place)),
                _ => bail!(spoilt()),
            }
        }
        Ok(Self(all))
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The attempts of a job that left something.
    pub(super) fn attempts(&self, id: &str) -> impl Iterator<Item = u32> {
        self.0.get(id).into_iter().flat_map(|attempts| attempts.keys().copied())
    }

    pub(super) fn of(&self, id: &str, attempt: u32) -> Trace {
        self.0.get(id).and_then(|attempts| attempts.get(&attempt)).cloned().unwrap_or_default()
    }

    pub(super) fn lines_of(&self, id: &str) -> Vec<String> {
        let attempts = self.0.get(id).into_iter().flatten();
        attempts.map(|(attempt, trace)| format!("evidence of attempt {attempt}: {trace:?}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_order() {
        let evidence = Evidence::parse("S a 1 10\nS b 1 11\nE a 1 7\nS a 2 12\n").unwrap();
        assert_eq!(evidence.of("a", 1), Trace { starts: vec![(10, 0)], ends: vec![(7, 2)] });
        assert_eq!(evidence.attempts("a").collect::<Vec<_>>(), [1, 2]);
        assert_eq!(evidence.of("c", 1), Trace::default());
        assert_eq!(evidence.ids().collect::<Vec<_>>(), ["a", "b"]);
        for spoilt in ["S a 1", "X a 1 2", "S a one 2", "E a 1 256"] {
            assert!(Evidence::parse(spoilt).is_err(), "{spoilt}");
        }
    }
}
