//! Taking over from an earlier owner and from keepers that died, and watching what no keeper collects.

use std::collections::BTreeSet;

use crate::backend::{BackendEvent, BackendReport, KnownAttempt};
use crate::id::AttemptId;
use crate::status::Reason;
use crate::store::JobStore;
use crate::store::conformance::random::Random;
use crate::store::memory::MemoryStore;

use super::super::world::{KeeperIndex, Order, Run, RunIndex, World};
use super::super::{Checked, ensure};
use super::{Session, leftovers};

impl Session {
    pub(in super::super) fn recover(
        &mut self,
        known: &[KnownAttempt],
        world: &mut World,
        store: &MemoryStore,
    ) -> Checked {
        for keeper in 0..world.keepers.len() {
            if !world.keepers[keeper].gone {
                self.attach(keeper, world)?;
            }
        }
        let answers = |report: &BackendReport, known: &KnownAttempt| {
            let is_late = report.event.at().is_some_and(|at| at.boot >= known.launch_asked);
            report.attempt == known.attempt && is_late
        };
        // Of an attempt that has ended, or of an earlier job of its id.
        let is_known = |attempt: &AttemptId| {
            known.iter().any(|known| {
                let mut reports = self.reports.iter();
                known.attempt == *attempt && reports.any(|report| answers(report, known))
            })
        };
        let strange = |run: &RunIndex| !is_known(&world.runs[*run].attempt);
        let strangers: Vec<RunIndex> = self.orphans.iter().copied().filter(strange).collect();
        let is_of_one = |report: &BackendReport| {
            matches!(report.event, BackendEvent::Lost { .. }) && !is_known(&report.attempt)
        };
        let told: Vec<bool> = self.reports.iter().map(|report| !is_of_one(report)).collect();
        let mut told = told.into_iter();
        self.reports.retain(|_| told.next() == Some(true));
        self.orphans.retain(|run| !strangers.contains(run));
        self.running.retain(|_, run| !strangers.contains(run));
        for known in known {
            let answered = self.reports.iter().any(|report| answers(report, known));
            if answered || self.running.contains_key(&known.attempt) {
                continue;
            }
            match known.process.as_ref() {
                Some(_) if known.ended => {}
                Some(process) => {
                    let run = world.by_process(process).ok_or("a process that was never made")?;
                    self.running.insert(known.attempt.clone(), run);
                    self.watch(run, world);
                }
                None => {
                    let seq = store.job(&known.attempt.id).ok().flatten().map_or(0, |job| job.seq);
                    let run = world.run_of(seq, &known.attempt);
                    self.never_launched(run, world)?;
                }
            }
        }
        Ok(())
    }

    /// Connects to a keeper, which fences it, or reads what a dead one has left; either way, all of its past.
    pub(super) fn attach(&mut self, index: KeeperIndex, world: &mut World) -> Checked {
        let keeper = &mut world.keepers[index];
        let past = keeper.journal.clone();
        if keeper.lives() {
            keeper.connection += 1;
            keeper.inbox.clear();
            self.heard.insert(index, (keeper.connection, keeper.end));
            self.take_in(index, past, world, None);
        } else {
            self.heard.remove(&index);
            keeper.gone = keeper.is_settled();
            self.take_in(index, past, world, None);
            let of_it = |run: &Run| run.keeper == Some(index);
            let left: Vec<_> =
                self.running.values().filter(|run| of_it(&world.runs[**run])).copied().collect();
            for run in left {
                self.watch(run, world);
            }
        }
        let (given_up, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.in_flight).into_iter().partition(|launch| launch.keeper == index);
        self.in_flight = left;
        given_up.iter().try_for_each(|launch| self.never_launched(launch.run, world))
    }

    pub(super) fn never_launched(&mut self, run: RunIndex, world: &World) -> Checked {
        let attempt = world.runs[run].attempt.clone();
        let is_executed = world.runs[run].process.is_some();
        ensure(!is_executed, || format!("the simulation is wrong: {attempt} was executed"))?;
        let mut inboxes = world.keepers.iter().flat_map(|keeper| &keeper.inbox);
        let may_be = inboxes.any(|order| matches!(order, Order::Launch(other) if *other == run));
        ensure(!may_be, || format!("the simulation is wrong: {attempt} may yet be executed"))?;
        self.report(attempt, BackendEvent::NeverLaunched, None);
        Ok(())
    }

    pub(super) fn watch(&mut self, index: RunIndex, world: &World) {
        let run = &world.runs[index];
        if run.boot == world.boot {
            return self.orphans.push(index);
        }
        self.running.remove(&run.attempt);
        let event = BackendEvent::Lost { reason: Reason::Reboot, at: world.now };
        self.report(run.attempt.clone(), event, None);
    }

    pub(super) fn look_after_orphans(&mut self, world: &World, random: &mut Random) {
        let orphans: BTreeSet<RunIndex> = self.orphans.drain(..).collect();
        for index in orphans {
            let run = &world.runs[index];
            if run.main.alive {
                self.orphans.push(index);
                continue;
            }
            self.running.remove(&run.attempt);
            let at = world.now;
            let event = match run.exit.filter(|_| random.below(2) == 0) {
                Some(exit) => {
                    BackendEvent::Exited { exit, usage: None, at, leftovers: Some(leftovers(run, world)) }
                }
                None => BackendEvent::Lost { reason: Reason::Unknown, at },
            };
            self.report(run.attempt.clone(), event, None);
        }
    }
}
