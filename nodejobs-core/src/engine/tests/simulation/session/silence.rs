//! Keepers that do not answer: what they may yet execute is forbidden through their gates, and what they have is left to
//! them.

use crate::backend::{BackendEvent, StartFailureKind};
use crate::id::AttemptId;
use crate::status::Reason;
use crate::store::conformance::random::Random;

use super::super::Checked;
use super::super::owner::Fault;
use super::super::world::{Gate, KeeperIndex, Order, RunIndex, World};
use super::{InFlight, Session, Unanswered};

impl Session {
    /// Calls off a launch that a keeper was told of, if the attempt is one.
    pub(super) fn call_off(&mut self, attempt: &AttemptId, world: &mut World) -> bool {
        let held =
            self.held.iter().flat_map(|(keeper, held)| held.values().map(|entry| (*keeper, entry.run)));
        let in_flight = self.in_flight.iter().map(|launch| (launch.keeper, launch.run));
        let found = in_flight.chain(held).find(|(_, run)| world.runs[*run].attempt == *attempt);
        let Some((index, run)) = found else { return false };
        let is_before_gate = |world: &World| {
            world.keepers[index].launch_of(run).is_some_and(|launch| launch.gate == Gate::Open)
        };
        // Everybody who has its page can close a gate.
        if !world.keepers[index].speaks() && !world.keepers[index].page_is_damaged && is_before_gate(world) {
            let _ = world.call_off(index, run);
            self.in_flight.retain(|launch| launch.run != run);
            self.not_started(attempt.clone(), StartFailureKind::CalledOff, world);
        } else {
            self.called_off.insert(run);
            world.keepers[index].inbox.push_back(Order::CallOff(run));
        }
        true
    }

    /// Takes note of who speaks again or is dead, and gives up waiting for those who do not.
    pub(super) fn look_for_the_silent(&mut self, world: &mut World, random: &mut Random) -> Checked {
        for keeper in self.silent.clone() {
            if world.keepers[keeper].speaks() || !world.keepers[keeper].lives() {
                self.attach(keeper, world, random)?;
            }
        }
        for keeper in self.heard.keys().copied().collect::<Vec<_>>() {
            let is_owing = self.in_flight.iter().any(|launch| launch.keeper == keeper);
            let waits = world.keepers[keeper].speaks() || !is_owing || !world.keepers[keeper].has_gates;
            if !waits && random.below(4) == 0 {
                self.fence(keeper, world, random)?;
            }
        }
        if self.silent.iter().all(|keeper| world.keepers[*keeper].has_gates) {
            for Unanswered { run, .. } in std::mem::take(&mut self.unanswered) {
                let is_in_flight = self.in_flight.iter().any(|launch| launch.run == run);
                if self.unresolved.contains(&run) {
                    self.give_up(run, world);
                } else if !is_in_flight {
                    let is_damaged = self.reads_damage(world);
                    self.answer_without_trace(run, is_damaged, world)?;
                }
            }
        }
        Ok(())
    }

    /// Forbids a living keeper that does not answer to execute what it was told to.
    pub(super) fn fence(&mut self, index: KeeperIndex, world: &mut World, random: &mut Random) -> Checked {
        self.release_all(index, world);
        self.heard.remove(&index);
        self.silent.insert(index);
        if !world.keepers[index].has_gates {
            // Nothing is decided for it.
            let (its, others): (Vec<_>, Vec<_>) =
                std::mem::take(&mut self.in_flight).into_iter().partition(|launch| launch.keeper == index);
            self.in_flight = others;
            let unanswered = its.into_iter().map(|InFlight { run, asked, .. }| Unanswered { run, asked });
            self.unanswered.extend(unanswered);
            return Ok(());
        }
        world.fence(index);
        self.read_without_it(index, world, random)
    }

    /// Reads the journal of a keeper that cannot be asked; what it was told to launch is decided by its gates.
    pub(super) fn read_without_it(
        &mut self,
        index: KeeperIndex,
        world: &mut World,
        random: &mut Random,
    ) -> Checked {
        let unresolved = world.close_gates(index, random)?;
        let past = world.keepers[index].journal.iter().filter(|(_, entry)| !entry.is_bad).copied().collect();
        self.take_in(index, past, world, None);
        let (its, others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.in_flight).into_iter().partition(|launch| launch.keeper == index);
        self.in_flight = others;
        for launch in its {
            if unresolved.contains(&launch.run) {
                self.give_up(launch.run, world);
            } else {
                self.answer_without_trace(launch.run, world.keepers[index].is_damaged(), world)?;
            }
        }
        self.unresolved.extend(unresolved);
        Ok(())
    }

    /// Whether something that was launched in this boot may have left no trace that can be read.
    pub(super) fn reads_damage(&self, world: &World) -> bool {
        let mut keepers = world.keepers.iter().enumerate();
        keepers.any(|(index, keeper)| {
            let is_read = !keeper.lives() || self.silent.contains(&index);
            !keeper.gone && is_read && keeper.boot == world.boot && keeper.is_damaged()
        })
    }

    /// Nothing says that the run was launched.
    pub(super) fn answer_without_trace(
        &mut self,
        run: RunIndex,
        is_damaged: bool,
        world: &mut World,
    ) -> Checked {
        if is_damaged && self.fault != Fault::TrustsDamagedFiles {
            self.give_up(run, world);
            return Ok(());
        }
        self.never_launched(run, world)
    }

    /// Nobody can know whether it was executed, or will be.
    pub(super) fn give_up(&mut self, run: RunIndex, world: &mut World) {
        let run = &mut world.runs[run];
        (run.may_be_lost, run.is_doubtful) = (true, true);
        let event = BackendEvent::Lost { reason: Reason::Unknown, at: world.now };
        self.report(run.attempt.clone(), event, None);
    }
}
