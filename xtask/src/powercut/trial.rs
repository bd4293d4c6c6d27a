//! A load that is recorded, and the power cuts that are tried on the recording.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::disk::{FileSystem, copy, path};
use super::load::{self, Story};
use super::recorder::{Event, Recorder};
use super::replay::{self, Fault};
use super::site::Site;
use super::state::{Cut, Disk, draw};
use crate::chaos::random::Random;

/// How many images are kept of those in which something is wrong.
pub(crate) const KEPT: usize = 3;
/// What is shown of the faults.
const SHOWN: usize = 10;
/// The stream of choices for cuts; smaller ones are the submitters'.
const CUTS: u64 = 1000;

pub(crate) struct Trial<'t> {
    pub(crate) system: &'static FileSystem,
    pub(crate) seed: u64,
    pub(crate) states: usize,
    /// Where images go in which something is wrong.
    pub(crate) failed: &'t Path,
}

/// What one disk has seen.
pub(crate) struct Recorded {
    /// The disk before everything.
    image: File,
    events: Vec<(Duration, Event)>,
    story: Story,
}

/// What the power cuts of one recording came to.
#[derive(Default)]
pub(crate) struct Verdict {
    states: usize,
    ids: usize,
    ends: usize,
    /// The kinds of faults that each state has, of those that have any.
    faulty: Vec<BTreeSet<Fault>>,
    /// How often each of them was met.
    faults: BTreeMap<Fault, usize>,
    /// How many attempts were executed afterwards.
    executions: usize,
    took: Duration,
}

impl Trial<'_> {
    /// Has the product work on a disk that is recorded, and cuts its power.
    pub(crate) fn record(&self, site: &Site, fuse: &Path, seconds: u64) -> Result<Recorded> {
        let image = self.system.make(seconds)?;
        let recorder = Recorder::serve(copy(&image)?, fuse)?;
        let mounted = self.system.mount(&recorder.image, site.disk())?;
        let story = load::run(site, &recorder.recording, Duration::from_secs(seconds), self.seed);
        let events = recorder.recording.end();
        let unmounted = mounted.unmount(|| site.kill_all());
        let story = story.context("the load failed")?;
        unmounted?;
        Ok(Recorded { image, events, story })
    }

    /// Opens the directory as power cuts would have left it.
    pub(crate) fn replay(&self, site: &Site, recorded: &Recorded) -> Result<Verdict> {
        let started = Instant::now();
        let mut random = Random::new(self.seed, CUTS);
        let mut disk = Disk::new(copy(&recorded.image)?, &recorded.events);
        let mut verdict = Verdict::default();
        let mut shown = 0;
        let first = recorded.story.acknowledged.values().min().copied().unwrap_or_default();
        for cut in draw(&recorded.events, first, self.states, &mut random) {
            let image = disk.after(cut, &mut random)?;
            let untouched = copy(&image)?;
            // In every second state, and in each with a fault that may show only there.
            let is_blank = site.is_mutant() || verdict.states % 2 == 1;
            let found = replay::open(site, self.system, &image, cut, &recorded.story, is_blank)
                .with_context(|| format!("state {} ({cut})", verdict.states))?;
            verdict.states += 1;
            verdict.ids += found.ids;
            verdict.ends += found.ends;
            verdict.executions += found.executions;
            for (fault, what) in &found.faults {
                if !site.is_mutant() && shown < SHOWN {
                    shown += 1;
                    eprintln!("powercut: state {} ({cut}): {fault}: {}", verdict.states, what.trim());
                }
                *verdict.faults.entry(*fault).or_default() += 1;
            }
            if !found.faults.is_empty() {
                verdict.faulty.push(found.faults.iter().map(|(fault, _)| *fault).collect());
                if !site.is_mutant() && verdict.faulty.len() <= KEPT {
                    self.keep(&untouched, verdict.states)?;
                }
            }
        }
        verdict.took = started.elapsed();
        Ok(verdict)
    }

    fn keep(&self, image: &File, number: usize) -> Result<()> {
        let to = self.failed.join(format!("state-{number}.img"));
        fs::copy(path(image), &to).with_context(|| format!("cannot write {}", to.display()))?;
        Ok(())
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "after event {}, of what was not flushed {:?}", self.events, self.rest)
    }
}

impl fmt::Display for Recorded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flushes = self.events.iter().filter(|(_, event)| matches!(event, Event::Flush)).count();
        write!(
            formatter,
            "{} writes, {flushes} flushes, {} ids, {} told ends",
            self.events.len() - flushes,
            self.story.acknowledged.len(),
            self.story.told.len()
        )
    }
}

impl Verdict {
    pub(crate) fn is_sound(&self) -> bool {
        self.faults.is_empty()
    }

    /// How many states have one of these faults.
    pub(crate) fn states_with(&self, faults: &[Fault]) -> usize {
        self.faulty.iter().filter(|found| faults.iter().any(|fault| found.contains(fault))).count()
    }

    /// Whether jobs were executed where a directory opened: if none was, none could have been executed twice.
    pub(crate) fn has_executed(&self) -> bool {
        self.executions > 0
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, ids, ends, executions, faults, took, .. } = self;
        write!(
            formatter,
            "{states} power cuts, {ids} ids and {ends} ends looked for, {executions} attempts afterwards, {:.1} s: ",
            took.as_secs_f64()
        )?;
        if faults.is_empty() {
            return formatter.write_str("nothing is wrong");
        }
        let words: Vec<_> = faults
            .iter()
            .map(|(fault, times)| {
                format!("{fault} after {} of them ({times} times)", self.states_with(&[*fault]))
            })
            .collect();
        formatter.write_str(&words.join(", "))
    }
}
