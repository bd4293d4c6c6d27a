//! The end of a run: nothing goes wrong any more, and all that can move comes to its end; what hangs holds up nobody else.

use std::collections::BTreeSet;

use crate::job::{Job, WaitingOn};
use crate::status::Status;

use super::{Checked, Simulation, all_jobs, ensure, world};

/// Rounds in which everything comes to its end once nothing goes wrong any more.
const LAST_ROUNDS: u64 = 150;

impl Simulation {
    /// Nothing goes wrong any more: what was begun comes to its end.
    pub(super) fn finish(&mut self) -> Checked {
        self.faults = false;
        self.disk_is_full = false;
        self.note(|| "from here on nothing goes wrong".to_owned());
        // One that could not look, and writes nothing any more, leaves sooner or later.
        self.owner.take_if(|owner| owner.was_deceived);
        if self.owner.is_none() {
            self.clients.owner_died(&mut self.random);
        }
        self.world.calls_may_hang = false;
        self.world.all_go_on();
        // What hangs holds up nobody else.
        self.come_to_rest(true)?;
        self.is_finished()?;
        self.nobody_waits_for_nothing()?;
        if self.world.calls_return() {
            self.come_to_rest(false)?;
            self.is_finished()?;
            self.nobody_waits_for_nothing()?;
        }
        let waiting = &self.clients.waiting;
        ensure(waiting.is_empty(), || format!("nobody answers {waiting:?}"))?;
        self.checks.at_the_end(&self.store, &self.world)
    }

    fn come_to_rest(&mut self, some_hang: bool) -> Checked {
        for _ in 0..LAST_ROUNDS {
            if self.owner.is_none() {
                self.take_over()?;
            }
            self.resume_groups();
            for index in 0..self.world.runs.len() {
                let hangs = some_hang && self.world.is_hung(index);
                let run = &mut self.world.runs[index];
                if hangs {
                    continue;
                }
                run.unstick();
                if run.executed && run.main.alive && !run.main.halted && !run.runs_for_ever {
                    run.exit_by_itself();
                }
            }
            for _ in 0..4 {
                self.backend_works()?;
                for keeper in 0..self.world.keepers.len() {
                    for _ in 0..4 {
                        self.world.keeper_works(keeper, &mut self.random)?;
                        self.world.children_work(keeper, &mut self.random)?;
                    }
                }
                self.owner_works(usize::MAX)?;
            }
            if self.is_quiet() {
                break;
            }
            self.world.pass(700);
            self.until_something_is_due();
        }
        Ok(())
    }

    fn is_quiet(&self) -> bool {
        let Some(owner) = &self.owner else { return false };
        let is_kept = |run: &world::Run| run.keeper.is_some_and(|keeper| self.world.keepers[keeper].lives());
        let ends_soon = |index: &usize| {
            let run = &self.world.runs[*index];
            match run.main.alive {
                true => !run.main.halted && !run.runs_for_ever,
                false => run.process.is_some() && !run.collected && is_kept(run),
            }
        };
        let moves = |index: &usize| !self.world.is_hung(*index) && ends_soon(index);
        owner.engine.next_deadline().is_none()
            && owner.inbox.is_empty()
            && owner.session.is_quiet(&self.world)
            && !self.world.launches_go_on()
            && !(0..self.world.runs.len()).any(|run| moves(&run))
    }

    fn is_finished(&self) -> Checked {
        let jobs = all_jobs(&self.store);
        let hung: BTreeSet<&str> = jobs
            .iter()
            .filter(|job| self.hangs_rightly(job))
            .flat_map(|job| [job.id.as_str(), job.id.as_str().split('.').next().unwrap_or_default()])
            .collect();
        for job in &jobs {
            let run = self.world.find(job.seq, job.state.attempt).map(|run| &self.world.runs[run]);
            let is_hung = hung.contains(job.id.as_str());
            let runs = run.is_some_and(|run| run.main.alive);
            let goes_on = matches!(job.state.status, Status::Running | Status::Paused) && runs;
            // Those that have the places run for ever.
            let waits = job.state.waiting_on == Some(WaitingOn::Slot)
                || self.is_held_up(job)
                || self.is_hungry(job)
                || self.waits_for_somebody(job);
            let is_settled = job.state.status.is_terminal() || goes_on || waits || is_hung;
            ensure(is_settled, || format!("{} stays as it is: {:?}, in truth {run:?}", job.id, job.state))?;
        }
        let kept = self.world.keepers.iter().find(|keeper| !keeper.gone && !keeper.is_settled());
        // Also by one whose child was paused on its way.
        let is_held = |keeper: &world::Keeper| keeper.launches.iter().any(|launch| launch.child);
        let kept = kept.filter(|keeper| !is_held(keeper));
        ensure(kept.is_none(), || format!("nothing acknowledges what {kept:?} keeps"))
    }

    /// Whether it stays as it is because its launch hangs: if it is to be stopped, only behind its gate.
    fn hangs_rightly(&self, job: &Job) -> bool {
        let Some(run) = self.world.find(job.seq, job.state.attempt) else { return false };
        let hung = self.world.keepers.iter().filter_map(|keeper| keeper.launch_of(run));
        let is_stopped = matches!(job.state.status, Status::Stopping | Status::FailedStop);
        self.world.is_hung(run)
            && hung.into_iter().all(|launch| launch.gate != world::Gate::Open || !is_stopped)
    }
}
