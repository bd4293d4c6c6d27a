//! What the product does until its power is cut: jobs with all kinds of ends, and a follower that notes, beside the disk,
//! what was acknowledged and told, and when.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::recorder::Recording;
use super::site::{Site, outcome};
use crate::chaos::random::Random;

/// How many submit jobs at the same time.
const SUBMITTERS: u64 = 4;
/// Elements of an array.
const ELEMENTS: u32 = 12;
/// A group in which jobs wait for each other.
const NARROW: &str = "narrow";

/// What was said and done, each with the number of events that the disk had seen when it was known.
#[derive(Default)]
pub(crate) struct Story {
    /// Ids that were given out.
    pub(crate) acknowledged: BTreeMap<String, usize>,
    /// How jobs ended, by their ids, as the product said.
    pub(crate) told: BTreeMap<String, (String, usize)>,
    /// What was executed: lines of the evidence.
    pub(crate) executed: BTreeMap<String, usize>,
}

/// What follows the submit of a job.
#[derive(Clone, Copy)]
enum Then {
    Nothing,
    Wait,
    Stop,
    /// A second job that needs this one's success.
    Need,
}

/// Options of `run`, the script, and what follows.
type Kind = (&'static [&'static str], &'static str, Then);

const KINDS: &[Kind] = &[
    (&[], "exit 0", Then::Nothing),
    (&[], "exit 0", Then::Wait),
    (&[], "exit 7", Then::Wait),
    (&[], "echo out; echo err >&2; exit 42", Then::Wait),
    (&[], "kill -9 $$", Then::Wait),
    (&[], "seq 300; sleep 0.3; exit 3", Then::Nothing),
    (&["--timeout", "100ms"], "sleep 60", Then::Nothing),
    (&["--retries", "2", "--backoff", "20ms"], "exit 5", Then::Nothing),
    (&["--success-codes", "9"], "exit 9", Then::Need),
    (&[], "exit 1", Then::Need),
    (&["--group", NARROW], "sleep 0.2", Then::Nothing),
    (&["--delay", "10m"], "exit 0", Then::Nothing),
    (&[], "sleep 600", Then::Stop),
    (&[], "sleep 600", Then::Nothing),
    (&["--restart", "always", "--max-restarts", "3"], "sleep 0.5", Then::Nothing),
];

/// Submits jobs for this time.
pub(crate) fn run(site: &Site, recording: &Recording, time: Duration, seed: u64) -> Result<Story> {
    fs::write(site.evidence(), "").context("cannot write the evidence")?;
    site.call(&["group", "set", NARROW, "--slots", "1"])?;
    let load = Load { site, recording, end: Instant::now() + time, story: Mutex::default() };
    let seen = thread::scope(|scope| {
        let load = &load;
        let submitters: Vec<_> = (0..SUBMITTERS)
            .map(|number| scope.spawn(move || load.submit(&mut Random::new(seed, number))))
            .collect();
        let seen = load.follow();
        for submitter in submitters {
            submitter.join().expect("a submitter panicked")?;
        }
        seen
    })?;
    let mut story = load.story.into_inner().unwrap_or_else(PoisonError::into_inner);
    let evidence = fs::read_to_string(site.evidence()).context("cannot read the evidence")?;
    story.executed = executed(&evidence, &seen);
    Ok(story)
}

struct Load<'l> {
    site: &'l Site,
    recording: &'l Recording,
    end: Instant,
    story: Mutex<Story>,
}

impl Load<'_> {
    fn submit(&self, random: &mut Random) -> Result<()> {
        while Instant::now() < self.end {
            match random.below(24) {
                0 => {
                    self.acknowledge(self.site.call(&["run", "--", "/no/such/program"])?.trim());
                }
                1 => {
                    let range = format!("1-{ELEMENTS}");
                    let id = self.site.call(&[
                        "array",
                        "--range",
                        &range,
                        "--",
                        "sh",
                        "-c",
                        &script("exit {}"),
                    ])?;
                    // Its elements have records of their own only from their turns on.
                    self.acknowledge(id.trim());
                }
                _ => self.submit_one(random.pick(KINDS))?,
            }
        }
        Ok(())
    }

    fn submit_one(&self, (options, what, then): Kind) -> Result<()> {
        let script = script(what);
        let run = |options: &[&str]| {
            let id =
                self.site.call(&[&["run", "--shell"], options, &["--", &script]].concat())?.trim().to_owned();
            self.acknowledge(&id);
            anyhow::Ok(id)
        };
        let id = run(options)?;
        match then {
            Then::Nothing => {}
            Then::Wait => self.hear(&["wait", &id])?,
            Then::Stop => {
                self.site.call(&["stop", &id])?;
                self.hear(&["status", &id])?;
            }
            Then::Need => {
                let second = run(&["--after", &id])?;
                self.hear(&["wait", &second])?;
            }
        }
        Ok(())
    }

    /// Lists the jobs again and again; how long the evidence was, and when.
    fn follow(&self) -> Result<Vec<(usize, usize)>> {
        let mut seen = Vec::new();
        while Instant::now() < self.end {
            let length = fs::metadata(self.site.evidence()).context("cannot look at the evidence")?.len();
            seen.push((usize::try_from(length)?, self.recording.count()));
            self.hear(&["ls", "--all", "--elements"])?;
            self.neighbour()?;
        }
        Ok(seen)
    }

    /// Another program that uses the disk: what it syncs has the names and lengths of all files written, not their content.
    fn neighbour(&self) -> Result<()> {
        let written = File::create(self.site.disk().join("neighbour"))
            .and_then(|mut file| file.write_all(b"something else").and_then(|()| file.sync_all()));
        written.context("cannot write beside the product")
    }

    /// Notes the ends that this command tells of.
    fn hear(&self, arguments: &[&str]) -> Result<()> {
        let records = self.site.records(arguments)?;
        let events = self.recording.count();
        let mut story = self.story();
        for record in &records {
            if let (id, Some(end)) = outcome(record)? {
                story.told.entry(id.to_owned()).or_insert((end, events));
            }
        }
        Ok(())
    }

    fn acknowledge(&self, id: &str) {
        let events = self.recording.count();
        self.story().acknowledged.insert(id.to_owned(), events);
    }

    fn story(&self) -> MutexGuard<'_, Story> {
        self.story.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A script that says, before anything else, that it is executed.
fn script(what: &str) -> String {
    format!("echo \"$JOB_ID $NODEJOBS_ATTEMPT\" >> evidence; {what}")
}

/// Each line, with the first number of events of which it is certain that the line was there.
fn executed(evidence: &str, seen: &[(usize, usize)]) -> BTreeMap<String, usize> {
    let mut end = 0;
    let mut lines = BTreeMap::new();
    for line in evidence.split_inclusive('\n') {
        end += line.len();
        let known = seen.iter().find(|(length, _)| *length >= end).map_or(usize::MAX, |(_, events)| *events);
        lines.insert(line.trim().to_owned(), known);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_evidence_is_known_once_it_was_seen_whole() {
        let known = executed("a 1\nb 1\nc 2\n", &[(3, 10), (4, 20), (9, 30)]);
        let expected = [("a 1", 20), ("b 1", 30), ("c 2", usize::MAX)];
        assert_eq!(known, expected.map(|(line, events)| (line.to_owned(), events)).into());
    }
}
