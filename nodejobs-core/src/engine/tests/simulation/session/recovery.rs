//! Taking over from an earlier owner, from keepers that died and from those that do not answer, and watching what no keeper
//! collects.

use std::collections::BTreeSet;

use crate::backend::{BackendEvent, BackendReport, KnownAttempt};
use crate::id::AttemptId;
use crate::status::Reason;
use crate::store::JobStore;
use crate::store::conformance::random::Random;
use crate::store::memory::MemoryStore;

use super::super::owner::Fault;
use super::super::world::{Gate, KeeperIndex, Order, Run, RunIndex, World};
use super::super::{Checked, ensure};
use super::{InFlight, Session, Unanswered, leftovers};

impl Session {
    pub(in super::super) fn recover(
        &mut self,
        known: &[KnownAttempt],
        is_other_boot: bool,
        world: &mut World,
        store: &MemoryStore,
        random: &mut Random,
    ) -> Checked {
        // The last owner has settled what is of another boot than its own.
        let of_interest = [world.boot, world.settled_boot];
        world.keepers.iter_mut().for_each(|keeper| keeper.gone |= !of_interest.contains(&keeper.boot));
        self.asked = known.iter().map(|known| (known.attempt.clone(), known.launch_asked)).collect();
        for keeper in 0..world.keepers.len() {
            if !world.keepers[keeper].gone {
                self.attach(keeper, world, random)?;
            }
        }
        self.asked.clear();
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
        // An entry of an earlier launch says nothing about this one.
        let is_stale = |attempt: &AttemptId| {
            known.iter().any(|known| {
                let mut reports = self.reports.iter();
                let is_it = known.attempt == *attempt && known.process.is_none();
                is_it && !reports.any(|report| answers(report, known))
            })
        };
        self.running.retain(|attempt, _| !is_stale(attempt));
        for known in known {
            let answered = self.reports.iter().any(|report| answers(report, known));
            if answered || self.running.contains_key(&known.attempt) {
                continue;
            }
            match known.process.as_ref() {
                _ if known.ended => {}
                Some(process) => {
                    let run = world.by_process(process).ok_or("a process that was never made")?;
                    self.running.insert(known.attempt.clone(), run);
                    // Of what a living keeper has, it tells the end.
                    let keeper = world.runs[run].keeper.filter(|_| world.runs[run].boot == world.boot);
                    if !keeper.is_some_and(|keeper| world.keepers[keeper].lives()) {
                        self.watch(run, world);
                    }
                }
                None => self.without_process(known, is_other_boot, world, store)?,
            }
        }
        Ok(())
    }

    /// Answers for an attempt that no journal has.
    fn without_process(
        &mut self,
        known: &KnownAttempt,
        is_other_boot: bool,
        world: &mut World,
        store: &MemoryStore,
    ) -> Checked {
        let seq = store.job(&known.attempt.id).ok().flatten().map_or(0, |job| job.seq);
        let run = world.run_of(seq, &known.attempt);
        let mut held = self.held.values().flat_map(|held| held.values());
        let is_in_flight = self.in_flight.iter().any(|launch| launch.run == run)
            && self.fault != Fault::ForgetsWhatIsInFlight;
        if is_in_flight || held.any(|entry| entry.run == run) {
            // It is told when it is settled.
            return Ok(());
        }
        if is_other_boot {
            // What was noted just before the power went may be in no journal.
            let event = BackendEvent::Lost { reason: Reason::Reboot, at: world.now };
            self.report(known.attempt.clone(), event, None);
            return Ok(());
        }
        let may_have_it = |keeper: &KeeperIndex| !world.keepers[*keeper].has_gates;
        if self.silent.iter().any(may_have_it) && self.fault != Fault::DecidesForTheSilent {
            self.unanswered.push(Unanswered { run, asked: known.launch_asked });
            return Ok(());
        }
        if self.unresolved.contains(&run) {
            self.give_up(run, world);
            return Ok(());
        }
        self.answer_without_trace(run, self.reads_damage(world), world)
    }

    /// What `recover` reported is on disk: files of earlier boots are needed no more, nor are those that cannot be read, unless
    /// some attempt has had no answer.
    pub(in super::super) fn settled(&self, world: &mut World) {
        let boot = world.boot;
        let is_answered = self.unanswered.is_empty();
        for keeper in &mut world.keepers {
            let is_bad = !keeper.lives() && keeper.is_damaged();
            let is_told = keeper.is_settled() && !keeper.has_launches();
            keeper.gone |= keeper.boot != boot || (is_bad && is_answered && is_told);
        }
    }

    /// Connects to a keeper, which fences it, or reads what a dead one has left; either way, all of its past. One that does not
    /// answer is fenced from outside.
    pub(super) fn attach(&mut self, index: KeeperIndex, world: &mut World, random: &mut Random) -> Checked {
        if world.keepers[index].speaks() {
            return self.connect(index, world);
        }
        if world.keepers[index].lives() {
            return self.fence(index, world, random);
        }
        self.release_all(index, world);
        self.heard.remove(&index);
        self.silent.remove(&index);
        self.read_without_it(index, world, random)?;
        let keeper = &mut world.keepers[index];
        keeper.gone = keeper.may_be_removed();
        if !keeper.gone {
            self.buried.insert(index, keeper.end);
        }
        let of_it = |run: &Run| run.keeper == Some(index);
        let left: Vec<_> = self.running.values().filter(|run| of_it(&world.runs[**run])).copied().collect();
        for run in left {
            self.watch(run, world);
        }
        Ok(())
    }

    /// The keeper's welcome tells its past, and what is in flight.
    fn connect(&mut self, index: KeeperIndex, world: &mut World) -> Checked {
        let keeper = &mut world.keepers[index];
        keeper.close_forbidden_gates();
        if !keeper.worker {
            keeper.close_open_gates();
        }
        keeper.connection += 1;
        keeper.inbox.clear();
        keeper.said.clear();
        let (past, end) = (keeper.journal.clone(), keeper.end);
        self.heard.insert(index, (keeper.connection, end));
        self.held.remove(&index);
        self.silent.remove(&index);
        self.take_in(index, past, world, None);
        let (its, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.in_flight).into_iter().partition(|launch| launch.keeper == index);
        self.in_flight = others;
        let launches = world.keepers[index].launches.iter();
        let open = launches.filter(|launch| matches!(launch.gate, Gate::Open | Gate::Noting));
        let open: Vec<RunIndex> = open.map(|launch| launch.run).collect();
        self.unanswered.retain(|launch| !open.contains(&launch.run));
        let held = self.held.get(&index).into_iter().flat_map(|held| held.values().map(|entry| entry.run));
        for run in open.iter().copied().chain(held).filter(|run| self.called_off.contains(run)) {
            world.keepers[index].inbox.push_back(Order::CallOff(run));
        }
        for launch in its.iter().filter(|launch| !open.contains(&launch.run)) {
            self.never_launched(launch.run, world)?;
        }
        let asked = world.now.boot;
        self.in_flight.extend(open.into_iter().map(|run| InFlight { run, keeper: index, from: end, asked }));
        Ok(())
    }

    pub(super) fn never_launched(&mut self, run: RunIndex, world: &World) -> Checked {
        let attempt = world.runs[run].attempt.clone();
        if self.fault == Fault::None {
            let is_executed = world.runs[run].process.is_some();
            ensure(!is_executed, || format!("the simulation is wrong: {attempt} was executed"))?;
            let may_be = world.may_be_executed(run);
            ensure(!may_be, || format!("the simulation is wrong: {attempt} may yet be executed"))?;
            let mut orders = world
                .keepers
                .iter()
                .flat_map(|keeper| keeper.inbox.iter().map(move |order| (keeper.fence, order)));
            let may_be = orders.any(|(fence, order)| {
                matches!(order, Order::Launch(other, asked_on) if *other == run && *asked_on >= fence)
            });
            ensure(!may_be, || format!("the simulation is wrong: {attempt} may yet be launched"))?;
        }
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
