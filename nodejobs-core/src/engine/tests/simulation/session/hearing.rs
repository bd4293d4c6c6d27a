//! What keepers tell and have noted, as reports. A start is told once it is settled, or with the end.

use std::collections::BTreeMap;

use crate::backend::{BackendEvent, Receipt, StartFailure, StartFailureKind};
use crate::id::AttemptId;
use crate::logs::LogStart;
use crate::store::conformance::random::Random;

use super::super::Checked;
use super::super::owner::Fault;
use super::super::world::{Entry, KeeperIndex, Noted, RunIndex, World, process};
use super::{Session, leftovers};

impl Session {
    pub(super) fn hear(&mut self, index: KeeperIndex, world: &mut World, random: &mut Random) -> Checked {
        let Some((connection, heard)) = self.heard.get(&index).copied() else { return Ok(()) };
        let keeper = &mut world.keepers[index];
        if !keeper.lives() || keeper.connection != connection {
            return self.attach(index, world, random);
        }
        if !keeper.speaks() {
            return Ok(());
        }
        for run in std::mem::take(&mut keeper.said) {
            self.in_flight.retain(|launch| launch.run != run || launch.keeper != index);
            self.not_started(world.runs[run].attempt.clone(), StartFailureKind::CalledOff, world);
        }
        let news = world.keepers[index].journal.iter().filter(|(position, _)| *position >= heard).copied();
        let news: Vec<_> = news.take(usize::try_from(random.below(4)).unwrap_or(0)).collect();
        if let Some((position, _)) = news.last() {
            self.heard.insert(index, (connection, position + 1));
        }
        self.take_in(index, news, world, Some(random));
        self.release(index, world);
        Ok(())
    }

    /// Tells the starts that are settled by now.
    fn release(&mut self, keeper: KeeperIndex, world: &World) {
        let Some(held) = self.held.get_mut(&keeper) else { return };
        let is_settled = |entry: &Entry| !world.keepers[keeper].is_unsettled(entry.run);
        let settled: Vec<u64> =
            held.iter().filter(|(_, entry)| is_settled(entry)).map(|(position, _)| *position).collect();
        for position in settled {
            let entry = self.held.get_mut(&keeper).and_then(|held| held.remove(&position));
            if let Some(entry) = entry {
                self.started(keeper, position, &entry, world);
            }
        }
    }

    /// Nobody will say any more that they are settled, and what was heard may not be readable any more.
    pub(super) fn release_all(&mut self, keeper: KeeperIndex, world: &World) {
        while let Some((position, entry)) = self.held.get_mut(&keeper).and_then(BTreeMap::pop_first) {
            self.started(keeper, position, &entry, world);
        }
    }

    /// What a keeper may forget once a report is on disk: nothing that is not told yet.
    fn receipt(&self, keeper: KeeperIndex) -> Receipt {
        let told = self.told.get(&keeper).copied().unwrap_or(0);
        let held = self.held.get(&keeper).and_then(|held| held.keys().next());
        let position = match held {
            Some(held) if self.fault != Fault::AcknowledgesWhatIsHeld => told.min(*held),
            _ => told,
        };
        Receipt { source: keeper.to_string(), position }
    }

    fn started(&mut self, keeper: KeeperIndex, position: u64, entry: &Entry, world: &World) {
        let Noted::Started(child) = entry.noted else { return };
        let heard = self.heard.get(&keeper).map_or(0, |(_, heard)| *heard);
        let mut later = world.keepers[keeper].journal.iter().filter(|(at, _)| *at > position);
        let takes_back =
            |later: &Entry| later.run == entry.run && matches!(later.noted, Noted::StartFailed(_));
        if later.any(|(at, later)| takes_back(later) && (!later.is_bad || *at < heard)) {
            // It could not be executed after all, which follows.
            return;
        }
        let run = &world.runs[entry.run];
        let process = process(entry.boot, entry.run, child);
        let attempt = run.attempt.clone();
        let asked = self.asked.get(&attempt).is_some_and(|asked| entry.at.boot < *asked);
        let is_earlier = asked || self.running.get(&attempt).is_some_and(|later| *later > entry.run);
        if !run.given_up && !is_earlier {
            self.running.insert(attempt.clone(), entry.run);
        }
        let event = BackendEvent::Started { process, log_start: LogStart::default(), at: entry.at };
        self.tell(keeper, run.given_up, attempt, event);
    }

    fn tell(&mut self, keeper: KeeperIndex, given_up: bool, attempt: AttemptId, event: BackendEvent) {
        let receipt = Some(self.receipt(keeper));
        // Launches have no numbers, so what was given up would be taken for another job of that id.
        let attempt = if given_up { AttemptId { attempt: u32::MAX, ..attempt } } else { attempt };
        self.report(attempt, event, receipt);
    }

    pub(super) fn take_in(
        &mut self,
        keeper: KeeperIndex,
        entries: Vec<(u64, Entry)>,
        world: &World,
        mut random: Option<&mut Random>,
    ) {
        for (position, entry) in entries {
            let Entry { run: index, noted, at, boot, .. } = entry;
            if matches!(noted, Noted::Exited(_)) {
                // Before it is its start.
                self.release(keeper, world);
            }
            self.told.insert(keeper, position + 1);
            self.in_flight
                .retain(|launch| launch.run != index || launch.keeper != keeper || position < launch.from);
            let is_old = |asked| at.boot < asked || boot != world.boot;
            self.unanswered.retain(|launch| launch.run != index || is_old(launch.asked));
            let run = &world.runs[index];
            let attempt = run.attempt.clone();
            let event = match noted {
                Noted::Started(_) => {
                    let is_connected = self.heard.contains_key(&keeper);
                    if is_connected && world.keepers[keeper].is_unsettled(index) {
                        self.held.entry(keeper).or_default().insert(position, entry);
                    } else {
                        self.started(keeper, position, &entry, world);
                    }
                    continue;
                }
                Noted::StartFailed(kind) => {
                    if let Some(held) = self.held.get_mut(&keeper) {
                        held.retain(|_, held| held.run != index);
                    }
                    if self.running.get(&attempt) == Some(&index) && run.process.is_none() {
                        self.running.remove(&attempt);
                        self.orphans.retain(|orphan| *orphan != index);
                    }
                    let failure = StartFailure { kind, detail: "why".to_owned() };
                    BackendEvent::NotStarted { failure, at }
                }
                Noted::Exited(exit) => {
                    if self.running.get(&attempt) == Some(&index) {
                        self.running.remove(&attempt);
                        self.orphans.retain(|orphan| *orphan != index);
                    }
                    let cannot_look = random.as_mut().is_some_and(|random| random.below(16) == 0);
                    let leftovers = (!cannot_look).then(|| leftovers(run, world));
                    BackendEvent::Exited { exit, usage: None, at, leftovers }
                }
            };
            self.tell(keeper, run.given_up, attempt, event);
        }
    }

    /// What children have noted in journals of dead keepers since those were read.
    pub(super) fn read_on(&mut self, world: &mut World) {
        for (keeper, read) in self.buried.clone() {
            let journal = world.keepers[keeper].journal.iter();
            let news: Vec<_> =
                journal.filter(|(position, entry)| *position >= read && !entry.is_bad).copied().collect();
            self.buried.insert(keeper, world.keepers[keeper].end);
            self.take_in(keeper, news, world, None);
            let is_unwatched =
                |run: &RunIndex| world.runs[*run].keeper == Some(keeper) && !self.orphans.contains(run);
            let unwatched: Vec<_> = self.running.values().copied().filter(is_unwatched).collect();
            unwatched.into_iter().for_each(|run| self.watch(run, world));
        }
    }
}
