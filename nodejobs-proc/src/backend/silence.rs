//! Keepers that do not answer: halted, or stuck themselves. Nobody waits for them.

use std::path::Path;

use nodejobs_core::backend::BackendReport;
use nodejobs_core::signal::Signal;
use nodejobs_core::time::BootTime;

use super::Loop;
use super::pulse::Care;
use crate::failpoint::{Failpoint, is_chosen};
use crate::gates::{Gates, KeeperProcess};
use crate::identity::{ProcStat, open_pidfd, send_signal};
use crate::keeper::KeeperFiles;
use crate::look::is_keeper;
use crate::machine::now;

/// How often a keeper of the first version is looked at again that left a child standing, in milliseconds.
const MUTE_MS: u64 = 2_000;
/// How long before a keeper is tried again that could not be reached, at first and at last, in milliseconds.
const UNREACHED_MS: (u64, u64) = (50, 2_000);

impl Loop {
    /// Whether something is waited for that only this keeper can tell.
    fn waits_for(&self, name: &str) -> bool {
        let is_its = |keeper: &str| keeper == name;
        self.links.get(name).is_some_and(super::link::Link::is_greeting)
            || self.in_flight.values().any(|flight| is_its(&flight.keeper))
            || self.awaited.iter().any(|attempt| {
                self.running.get(attempt).is_some_and(|running| running.keeper.as_deref() == Some(name))
            })
    }

    /// Something was asked of a keeper.
    pub(super) fn quicken(&mut self, name: &str) {
        if let Some(link) = self.links.get_mut(name) {
            link.pulse.quicken(now().boot);
        }
    }

    /// When to look after keepers next; never as long as nobody waits for one.
    pub(super) fn care_deadline(&self) -> Option<BootTime> {
        let waited = self.links.iter().filter(|(name, link)| {
            let may_be_asked = link.is_greeting() || link.has_gates();
            may_be_asked && (link.pulse.unanswered_since().is_some() || self.waits_for(name))
        });
        let mute = self.mute.iter().any(|name| !self.links.contains_key(name));
        let mute = mute.then(|| now().boot.plus_millis(MUTE_MS));
        let unreached = self.unreached.values().map(|since| retry_at(*since)).min();
        waited.filter_map(|(_, link)| link.pulse.deadline()).chain(mute).chain(unreached).min()
    }

    /// Connects again to keepers that could not be reached.
    fn try_unreached(&mut self, reports: &mut Vec<BackendReport>) {
        for name in self.unreached.keys().cloned().collect::<Vec<_>>() {
            self.reattach(&name, reports);
        }
    }

    /// Asks keepers that are waited for whether they are there, and acts where one does not answer.
    pub(super) fn care_for_keepers(&mut self, reports: &mut Vec<BackendReport>) {
        self.try_unreached(reports);
        if self.links.is_empty() && self.mute.is_empty() {
            return;
        }
        let at = now().boot;
        let due: Vec<String> = self
            .links
            .iter()
            .filter(|(name, link)| {
                let may_be_asked = link.is_greeting() || link.has_gates();
                let is_due = link.pulse.deadline().is_some_and(|deadline| deadline <= at);
                may_be_asked && is_due && (link.pulse.unanswered_since().is_some() || self.waits_for(name))
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            let Some(link) = self.links.get_mut(&name) else { continue };
            let files = KeeperFiles { directory: self.config.keepers.clone(), name: name.clone() };
            match link.pulse.care(at) {
                Care::Nothing => {}
                Care::Ask => drop(link.ping()),
                // A test means it to stay so.
                Care::Continue if is_chosen(Failpoint::OwnerFencedSilent) => {}
                Care::Continue => continue_worker(&files),
                Care::Fence => self.fence(&name, reports),
                Care::Kill => self.kill_worker(&files),
            }
        }
        let left: Vec<String> =
            self.mute.iter().filter(|name| !self.links.contains_key(*name)).cloned().collect();
        for name in left {
            if let Err(error) = self.bury(&name, reports) {
                self.host.warn(format!("keeper {name}: {error}"));
            }
        }
    }

    /// A worker that has not answered for long, and whose guard can: that takes its jobs over.
    fn kill_worker(&self, files: &KeeperFiles) {
        let Ok(gates) = Gates::open(&files.gates()) else { return };
        let is_ready = |guard: KeeperProcess| {
            let stat = ProcStat::read(guard.pid).ok().flatten();
            stat.is_some_and(|stat| {
                stat.start_ticks == guard.start_ticks && matches!(stat.state, b'S' | b'R')
            })
        };
        if !gates.guard().is_some_and(is_ready) {
            return;
        }
        if let Some(worker) = gates.worker()
            && let Ok(pidfd) = open_pidfd(worker.pid)
            && ProcStat::read(worker.pid).ok().flatten().is_some_and(|s| s.start_ticks == worker.start_ticks)
            && is_keeper(worker.pid, files)
        {
            self.host.warn(format!("keeper {}: its worker does not answer; its guard goes on", files.name));
            let _ = send_signal(&pidfd, Signal::KILL);
        }
    }
}

fn retry_at(since: BootTime) -> BootTime {
    let at = now().boot;
    at.plus_millis((at.millis_since(since) / 8).clamp(UNREACHED_MS.0, UNREACHED_MS.1))
}

/// Lets the worker of a keeper go on, if it is halted.
fn continue_worker(files: &KeeperFiles) {
    let worker = Gates::open(&files.gates()).ok().and_then(|gates| gates.worker());
    let worker = worker.map(|worker| worker.pid).or_else(|| find_worker(files));
    let Some(pid) = worker else { return };
    let Ok(pidfd) = open_pidfd(pid) else { return };
    let is_halted = ProcStat::read(pid).ok().flatten().is_some_and(|stat| stat.state == b'T');
    if is_halted && is_keeper(pid, files) {
        let _ = send_signal(&pidfd, Signal::CONT);
    }
}

/// The worker of a keeper that does not say who it is.
fn find_worker(files: &KeeperFiles) -> Option<u32> {
    let entries = std::fs::read_dir(Path::new("/proc")).ok()?.flatten();
    let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid| {
        let stat = ProcStat::read(*pid).ok().flatten();
        stat.is_some_and(|stat| stat.name == "nodejobs-worker" && stat.state == b'T')
            && is_keeper(*pid, files)
    })
}
