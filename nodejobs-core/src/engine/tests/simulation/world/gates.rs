//! Launches on their way: the gate that each passes at most once, and what may stand still on either side of it.

use crate::backend::StartFailureKind;
use crate::signal::Signal;
use crate::status::Reason;
use crate::store::conformance::random::Random;

use super::super::owner::Fault;
use super::super::{Checked, ensure};
use super::{Body, Entry, Keeper, KeeperIndex, Noted, RunIndex, World, process};

/// Of 24 calls that a child makes on its way, one does not return for a while.
const ONE_HANGS_OF: u64 = 24;

/// How far a launch has come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in super::super) enum Gate {
    /// The child has not come to it.
    Open,
    /// The child has passed it, and is writing its entry.
    Noting,
    /// The entry is there, and the program is executed now.
    Noted,
    /// Nothing was executed, and nothing will be.
    Closed,
}

/// A launch, from the opening of its gate until its keeper has settled it.
#[derive(Clone, Debug)]
pub(in super::super) struct Launch {
    pub(in super::super) run: RunIndex,
    /// The connection on which it was asked for.
    asked_on: u64,
    pub(in super::super) gate: Gate,
    /// Its child is in a call that does not return.
    pub(in super::super) hangs: bool,
    /// Its child lives and has not executed the program.
    pub(in super::super) child: bool,
    /// Its start is told before it is settled, for somebody has to know whom to kill.
    pub(in super::super) is_told: bool,
}

impl Keeper {
    /// A launch of this run whose gate is not closed.
    pub(in super::super) fn launch_of(&self, run: RunIndex) -> Option<&Launch> {
        self.launches.iter().rfind(|launch| launch.run == run && launch.gate != Gate::Closed)
    }

    /// Whether a start that is in the journal is not to be told yet.
    pub(in super::super) fn is_unsettled(&self, run: RunIndex) -> bool {
        self.launch_of(run).is_some_and(|launch| !launch.is_told)
    }

    pub(in super::super) fn close_open_gates(&mut self) {
        let open = self.launches.iter_mut().filter(|launch| launch.gate == Gate::Open);
        open.for_each(|launch| launch.gate = Gate::Closed);
    }

    /// What was forbidden is not in flight, also if its order was read since.
    pub(in super::super) fn close_forbidden_gates(&mut self) {
        let fence = self.fence;
        let open = self.launches.iter_mut().filter(|launch| launch.gate == Gate::Open);
        open.filter(|launch| launch.asked_on < fence).for_each(|launch| launch.gate = Gate::Closed);
    }

    /// Whether something may yet be executed by it.
    pub(in super::super) fn has_launches(&self) -> bool {
        self.launches.iter().any(|launch| launch.child && launch.gate != Gate::Closed)
    }
}

impl World {
    pub(super) fn begin_launch(
        &mut self,
        keeper: KeeperIndex,
        run: RunIndex,
        asked_on: u64,
        random: &mut Random,
    ) -> Checked {
        let hangs = self.keepers[keeper].has_gates && self.hangs(random);
        let launch = Launch { run, asked_on, gate: Gate::Open, hangs, child: true, is_told: false };
        self.keepers[keeper].launches.push(launch);
        if self.keepers[keeper].has_gates {
            return Ok(());
        }
        // It stands still until the program is executed.
        let index = self.keepers[keeper].launches.len() - 1;
        while self.keepers[keeper].launches[index].child {
            self.child_works(keeper, index, random)?;
        }
        self.keepers[keeper].launches.remove(index);
        Ok(())
    }

    fn hangs(&self, random: &mut Random) -> bool {
        self.calls_may_hang && random.below(ONE_HANGS_OF) == 0
    }

    /// Every child that can move goes on, or some do.
    pub(in super::super) fn children_work(&mut self, keeper: KeeperIndex, random: &mut Random) -> Checked {
        for index in 0..self.keepers[keeper].launches.len() {
            if random.below(3) > 0 {
                self.child_works(keeper, index, random)?;
            }
        }
        Ok(())
    }

    fn child_works(&mut self, keeper: KeeperIndex, index: usize, random: &mut Random) -> Checked {
        let (fence, has_gates) = (self.keepers[keeper].fence, self.keepers[keeper].has_gates);
        let may_hang = has_gates && self.hangs(random);
        let passes_closed = self.fault == Fault::PassesClosedGates;
        let ignores_fence = self.fault == Fault::IgnoresFences;
        let launch = &mut self.keepers[keeper].launches[index];
        if !launch.child || launch.hangs {
            return Ok(());
        }
        launch.hangs = may_hang;
        match launch.gate {
            Gate::Closed if !passes_closed => launch.child = false,
            Gate::Open if launch.asked_on < fence && !ignores_fence => {
                (launch.gate, launch.child) = (Gate::Closed, false);
            }
            Gate::Open | Gate::Closed => launch.gate = Gate::Noting,
            Gate::Noting => self.note(keeper, index, random)?,
            Gate::Noted => {
                launch.hangs = false;
                self.execute(keeper, index, random)?;
            }
        }
        Ok(())
    }

    /// The child writes its entry: that it executes the program next, or why it cannot.
    fn note(&mut self, keeper: KeeperIndex, launch: usize, random: &mut Random) -> Checked {
        let (at, boot) = (self.now, self.boot);
        let hangs = self.keepers[keeper].launches[launch].hangs;
        let index = self.keepers[keeper].launches[launch].run;
        self.keepers[keeper].launches[launch].gate = Gate::Noted;
        let run = &self.runs[index];
        ensure(!run.executed, || format!("{} is executed a second time", run.attempt))?;
        let failure = match random.below(16) {
            0 => Some(StartFailureKind::Permanent(Reason::Exec)),
            1 | 2 => Some(StartFailureKind::NoRoom),
            _ => None,
        };
        if let Some(kind) = failure {
            (self.keepers[keeper].launches[launch].child, self.keepers[keeper].launches[launch].hangs) =
                (false, false);
            self.keepers[keeper].append(Entry {
                run: index,
                noted: Noted::StartFailed(kind),
                at,
                boot,
                is_bad: false,
            });
            return Ok(());
        }
        let shares_id = |other: &super::Run| other.attempt.id == run.attempt.id && !other.may_leave;
        let other = self.runs.iter().find(|other| shares_id(other) && other.living() > 0);
        // What was given up can wait for nobody.
        let other = other.filter(|other| !run.given_up && !other.given_up);
        ensure(other.is_none(), || format!("{} is executed while {other:?} lives", run.attempt))?;
        let run = &mut self.runs[index];
        run.tries += 1;
        run.process = Some(process(boot, index, run.tries));
        (run.boot, run.keeper) = (boot, Some(keeper));
        run.may_be_lost |= !self.keepers[keeper].lives();
        run.main = Body::any(random);
        run.main.stuck |= hangs;
        let noted = Noted::Started(run.tries);
        self.keepers[keeper].append(Entry { run: index, noted, at, boot, is_bad: false });
        Ok(())
    }

    fn execute(&mut self, keeper: KeeperIndex, launch: usize, random: &mut Random) -> Checked {
        let (at, boot) = (self.now, self.boot);
        let index = self.keepers[keeper].launches[launch].run;
        let run = &mut self.runs[index];
        if run.main.alive && run.main.halted {
            return Ok(());
        }
        self.keepers[keeper].launches[launch].child = false;
        if !run.main.alive {
            // It was killed on its way.
            return Ok(());
        }
        ensure(!run.executed, || format!("{} is executed a second time", run.attempt))?;
        if random.below(12) == 0 {
            let missing = StartFailureKind::Permanent(Reason::Exec);
            let kind = if random.below(3) == 0 { StartFailureKind::NoRoom } else { missing };
            (run.main.alive, run.process) = (false, None);
            self.keepers[keeper].append(Entry {
                run: index,
                noted: Noted::StartFailed(kind),
                at,
                boot,
                is_bad: false,
            });
            return Ok(());
        }
        run.executed = true;
        run.code = [0, 0, 1, 7][usize::try_from(random.below(4)).unwrap_or(0)];
        run.runs_for_ever = random.below(8) == 0;
        let children = random.below(4).saturating_sub(1);
        run.children = (0..children).map(|_| Body::any(random)).collect();
        Ok(())
    }

    /// The thread of a launch has returned: the program was executed, or it is known why not.
    pub(super) fn settle(&mut self, keeper: KeeperIndex) -> bool {
        let (at, boot) = (self.now, self.boot);
        let keeper = &mut self.keepers[keeper];
        let Some(index) = keeper.launches.iter().position(|launch| !launch.child) else { return false };
        let launch = keeper.launches.remove(index);
        if matches!(launch.gate, Gate::Open | Gate::Noting) {
            // Its child was killed before it had noted anything.
            let noted = Noted::StartFailed(StartFailureKind::Permanent(Reason::Exec));
            keeper.append(Entry { run: launch.run, noted, at, boot, is_bad: false });
        }
        true
    }

    /// Whether a launch is called off; if not, its start is to be told at once.
    pub(in super::super) fn call_off(&mut self, keeper: KeeperIndex, run: RunIndex) -> bool {
        let only_says_so = self.fault == Fault::CallsOffWithoutGate;
        let launches = self.keepers[keeper].launches.iter_mut();
        // The newest: the child of an earlier one may still be on its way out.
        let mut launches = launches.rev();
        let Some(launch) = launches.find(|launch| launch.run == run && launch.gate != Gate::Closed) else {
            return false;
        };
        if launch.gate == Gate::Open {
            if !only_says_so {
                launch.gate = Gate::Closed;
            }
            return true;
        }
        launch.is_told = true;
        false
    }

    /// An owner forbids what was asked on earlier connections, of a keeper that does not answer.
    pub(in super::super) fn fence(&mut self, keeper: KeeperIndex) {
        let keeper = &mut self.keepers[keeper];
        keeper.connection += 1;
        keeper.fence = keeper.connection;
    }

    /// An owner closes the gates of a keeper that is dead or does not answer, and waits a little for those that are through.
    /// Gives the runs of which it cannot be known whether they will be executed.
    pub(in super::super) fn close_gates(
        &mut self,
        keeper: KeeperIndex,
        random: &mut Random,
    ) -> Result<Vec<RunIndex>, String> {
        if self.keepers[keeper].page_is_damaged {
            return Ok(Vec::new());
        }
        self.keepers[keeper].close_open_gates();
        let mut unresolved = Vec::new();
        for index in 0..self.keepers[keeper].launches.len() {
            let is_noting = |world: &Self| world.keepers[keeper].launches[index].gate == Gate::Noting;
            if is_noting(self) {
                self.child_works(keeper, index, random)?;
            }
            let launch = &mut self.keepers[keeper].launches[index];
            if launch.gate == Gate::Noting && launch.child {
                unresolved.push(launch.run);
            } else if launch.gate == Gate::Noting {
                launch.gate = Gate::Closed;
            }
        }
        Ok(unresolved)
    }

    /// Somebody kills a child between clone and execve.
    pub(in super::super) fn kill_child(&mut self, keeper: KeeperIndex) {
        let mut launches = self.keepers[keeper].launches.iter_mut();
        // What hangs is not killed either.
        let Some(launch) = launches.find(|launch| launch.child && !launch.hangs) else { return };
        if launch.gate == Gate::Noted {
            return self.runs[launch.run].signal(Signal::KILL);
        }
        launch.child = false;
    }

    /// Whatever hangs on its way goes on; says whether something did.
    pub(in super::super) fn calls_return(&mut self) -> bool {
        let mut some_hung = false;
        let Self { keepers, runs, .. } = self;
        for launch in keepers.iter_mut().flat_map(|keeper| &mut keeper.launches) {
            let hung = std::mem::replace(&mut launch.hangs, false);
            if hung && launch.gate == Gate::Noted {
                runs[launch.run].unstick();
            }
            some_hung |= hung;
        }
        some_hung
    }

    /// Whether the launch of this run hangs behind its gate or before it.
    pub(in super::super) fn is_hung(&self, run: RunIndex) -> bool {
        let launches = self.keepers.iter().filter_map(|keeper| keeper.launch_of(run));
        let mut hung = launches.filter(|launch| launch.hangs && launch.child);
        hung.next().is_some()
    }

    /// Whether some launch goes on by itself.
    pub(in super::super) fn launches_go_on(&self) -> bool {
        let is_halted = |launch: &Launch| launch.gate == Gate::Noted && self.runs[launch.run].main.halted;
        self.keepers.iter().any(|keeper| {
            let goes_on = |launch: &Launch| match launch.child {
                true => !launch.hangs && !is_halted(launch),
                false => keeper.lives(),
            };
            keeper.launches.iter().any(goes_on)
        })
    }

    /// Whether it may yet be executed.
    pub(in super::super) fn may_be_executed(&self, run: RunIndex) -> bool {
        self.keepers.iter().any(|keeper| keeper.launch_of(run).is_some_and(|launch| launch.child))
    }
}
