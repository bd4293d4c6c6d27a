//! One state of the disk: mounted, opened by the product, and compared with what had been said before the cut.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, File};

use anyhow::{Context as _, Result};

use super::disk::{FileSystem, path};
use super::load::Story;
use super::site::{Site, outcome};
use super::state::Cut;

/// What may be wrong after a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The directory does not open.
    Refused,
    /// An acknowledged id is not there.
    Missing,
    /// An end that was told is not there, or is another one.
    Gone,
    /// An attempt that was executed is executed again, or a job that had ended.
    Again,
    /// A job of before the cut is said to run.
    Alive,
    /// A new job does not run.
    Idle,
    /// `store check` finds something.
    Unsound,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Refused => "refused to open",
            Self::Missing => "acknowledged id missing",
            Self::Gone => "told end gone",
            Self::Again => "executed again",
            Self::Alive => "said to run",
            Self::Idle => "new job does not run",
            Self::Unsound => "store unsound",
        })
    }
}

/// What was looked at in one state, and found.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) ids: usize,
    pub(crate) ends: usize,
    /// Attempts that were executed.
    pub(crate) executions: usize,
    pub(crate) faults: Vec<(Fault, String)>,
}

/// Opens the directory on this image, as after a start of the machine, and looks at everything.
pub(crate) fn open(
    site: &Site,
    system: &FileSystem,
    image: &File,
    cut: Cut,
    story: &Story,
    is_blank: bool,
) -> Result<Found> {
    fs::write(site.evidence(), "").context("cannot write the evidence")?;
    let mounted = system.mount(&path(image), site.disk())?;
    if is_blank {
        site.blank_journals()?;
    }
    let found = look(site, cut, story);
    site.kill_all()?;
    let mut found = found?;
    if !found.has(Fault::Refused) {
        let check = site.finish(&["store", "check"])?;
        if !check.status.success() {
            found.fault(Fault::Unsound, format!("{}{}", check.stdout, check.stderr));
        }
    }
    mounted.unmount(|| site.kill_all())?;
    Ok(found)
}

fn look(site: &Site, cut: Cut, story: &Story) -> Result<Found> {
    let mut found = Found::default();
    let listed = site.finish(&["-o", "json", "ls", "--all", "--elements"])?;
    if !listed.status.success() {
        found.fault(Fault::Refused, listed.stderr);
        return Ok(found);
    }
    let records: Vec<_> = serde_json::from_str(&listed.stdout).context("`ls -o json` gave no array")?;
    let jobs = records.iter().map(outcome).collect::<Result<BTreeMap<_, _>>>()?;
    let is_known = |events: &usize| *events <= cut.events;
    for id in story.acknowledged.iter().filter(|(_, events)| is_known(events)).map(|(id, _)| id) {
        found.ids += 1;
        if !jobs.contains_key(id.as_str()) {
            found.fault(Fault::Missing, id.clone());
        }
    }
    for (id, (end, _)) in story.told.iter().filter(|(_, (_, events))| is_known(events)) {
        found.ends += 1;
        let now = jobs.get(id.as_str()).cloned().flatten();
        if now.as_ref() != Some(end) {
            let now = now.unwrap_or_else(|| "no end".to_owned());
            found.fault(Fault::Gone, format!("{id}: was {end}, is {now}"));
        }
    }
    let executed: BTreeSet<_> =
        story.executed.iter().filter(|(_, events)| is_known(events)).map(|(line, _)| line.as_str()).collect();
    for record in records.iter().filter(|record| record["status"] == "running") {
        let line = format!("{} {}", record["self_id"].as_str().unwrap_or_default(), record["attempt"]);
        if executed.contains(line.as_str()) {
            found.fault(Fault::Alive, format!("{line}: {record}"));
        }
    }
    let new = site.finish(&["run", "--wait", "--", "true"])?;
    if !new.status.success() {
        found.fault(Fault::Idle, new.stderr);
    }
    let evidence = fs::read_to_string(site.evidence()).context("cannot read the evidence")?;
    for line in evidence.lines() {
        found.executions += 1;
        let id = line.split(' ').next().unwrap_or_default();
        let had_ended = story.told.get(id).is_some_and(|(_, events)| is_known(events));
        if had_ended || executed.contains(line) {
            found.fault(Fault::Again, line.to_owned());
        }
    }
    Ok(found)
}

impl Found {
    pub(crate) fn has(&self, fault: Fault) -> bool {
        self.faults.iter().any(|(found, _)| *found == fault)
    }

    fn fault(&mut self, fault: Fault, what: String) {
        self.faults.push((fault, what));
    }
}
