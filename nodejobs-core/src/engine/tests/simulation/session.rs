//! The backend of one owner, by the contract of [`ProcessBackend`](crate::backend::ProcessBackend) and in the way of the
//! real one: it hands launches to a keeper, hears journals, watches what has no keeper any more, and ends trees. It dies
//! with its owner.

mod hearing;
mod recovery;
mod silence;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::backend::{
    BackendEvent, BackendReport, EndPlan, Receipt, StartFailure, StartFailureKind, TreeMember,
};
use crate::id::AttemptId;
use crate::job::Process;
use crate::signal::Signal;
use crate::store::JobStore;
use crate::store::conformance::random::Random;
use crate::store::memory::MemoryStore;
use crate::time::BootTime;

use super::Checked;
use super::owner::Fault;
use super::world::{Entry, KeeperIndex, Order, Run, RunIndex, World};

/// How long a killed process may still be there before it is reported.
const KILL_PATIENCE_MS: u64 = 2_000;

#[derive(Clone, Debug)]
pub(super) enum Command {
    Launch(AttemptId),
    EndTree(AttemptId, Option<Process>, EndPlan),
    Signal(Process, Signal),
    Acknowledge(Vec<Receipt>),
}

#[derive(Debug, PartialEq)]
enum Phase {
    New,
    Asked,
    Killed,
    Survived,
}

#[derive(Debug)]
struct Ending {
    run: RunIndex,
    plan: EndPlan,
    phase: Phase,
    deadline: BootTime,
    killed: bool,
}

/// A launch that a keeper was told of and has not answered.
#[derive(Debug)]
struct InFlight {
    run: RunIndex,
    keeper: KeeperIndex,
    /// What is before this in its journal is about an earlier launch.
    from: u64,
    asked: BootTime,
}

/// A launch that nothing is known of as long as keepers without gates do not answer.
#[derive(Debug)]
struct Unanswered {
    run: RunIndex,
    asked: BootTime,
}

#[derive(Debug, Default)]
pub(super) struct Session {
    fault: Fault,
    pub(super) commands: VecDeque<Command>,
    pub(super) reports: Vec<BackendReport>,
    waiting: VecDeque<AttemptId>,
    in_flight: Vec<InFlight>,
    /// Up to where the journals of the living were heard, and on which connection.
    heard: BTreeMap<KeeperIndex, (u64, u64)>,
    /// Keepers that live and do not answer.
    silent: BTreeSet<KeeperIndex>,
    unanswered: Vec<Unanswered>,
    /// Launches that are to be called off, also if the connection on which that was said is cut.
    called_off: BTreeSet<RunIndex>,
    /// Starts that are noted and not settled, by their places in the journals of the living.
    held: BTreeMap<KeeperIndex, BTreeMap<u64, Entry>>,
    /// Up to where each journal was told, or is held.
    told: BTreeMap<KeeperIndex, u64>,
    /// Up to where the journals of the dead were read.
    buried: BTreeMap<KeeperIndex, u64>,
    /// Passed their gates and cannot be known to be executed or not.
    unresolved: Vec<RunIndex>,
    running: BTreeMap<AttemptId, RunIndex>,
    /// During the recovery: when launches were last asked for.
    asked: BTreeMap<AttemptId, BootTime>,
    /// Main processes that no keeper collects.
    orphans: Vec<RunIndex>,
    endings: BTreeMap<AttemptId, Ending>,
}

impl Session {
    pub(super) fn new(fault: Fault) -> Self {
        Self { fault, ..Self::default() }
    }

    /// One round of the backend's loop.
    pub(super) fn works(&mut self, world: &mut World, store: &MemoryStore, random: &mut Random) -> Checked {
        self.takes_in(world);
        self.advance_endings(world);
        self.send_launches(world, store, random)?;
        for keeper in 0..world.keepers.len() {
            self.hear(keeper, world, random)?;
        }
        self.look_for_the_silent(world, random)?;
        self.read_on(world);
        self.look_after_orphans(world, random);
        Ok(())
    }

    /// Whether it waits for nothing but the processes themselves.
    pub(super) fn is_quiet(&self, world: &World) -> bool {
        let waits = |launch: &InFlight| world.is_hung(launch.run);
        let is_told = self.commands.is_empty() && self.waiting.is_empty() && self.in_flight.iter().all(waits);
        let hears_all = self.heard.iter().all(|(keeper, (_, heard))| {
            let keeper = &world.keepers[*keeper];
            *heard == keeper.end && keeper.inbox.is_empty() && keeper.said.is_empty()
        });
        let mut held = self.held.values().flat_map(|held| held.values());
        let hears_all = hears_all
            && held.all(|entry| world.is_hung(entry.run))
            && self.silent.is_empty()
            && self.unanswered.is_empty();
        let sees_all = self.orphans.iter().all(|run| world.runs[*run].main.alive);
        is_told && hears_all && sees_all && self.reports.is_empty() && self.endings.is_empty()
    }

    /// When an ending goes on, if one waits for that.
    pub(super) fn next_deadline(&self) -> Option<BootTime> {
        let waiting = self.endings.values().filter(|ending| ending.phase != Phase::Survived);
        waiting.map(|ending| ending.deadline).min()
    }

    /// Some job is found to use more memory than it may.
    pub(super) fn finds_over_memory(&mut self) {
        if let Some(attempt) = self.running.keys().next().cloned() {
            self.report(attempt, BackendEvent::OverMemory { detail: "too much".to_owned() }, None);
        }
    }

    pub(super) fn takes_in(&mut self, world: &mut World) {
        while let Some(command) = self.commands.pop_front() {
            self.carry_out(command, world);
        }
    }

    fn report(&mut self, attempt: AttemptId, event: BackendEvent, receipt: Option<Receipt>) {
        self.reports.push(BackendReport { attempt, event, receipt });
    }

    fn carry_out(&mut self, command: Command, world: &mut World) {
        match command {
            Command::Launch(attempt) => self.waiting.push_back(attempt),
            Command::EndTree(attempt, process, plan) => {
                self.begin_ending(attempt, process.as_ref(), plan, world);
            }
            Command::Signal(process, signal) => {
                if let Some(run) = world.by_process(&process) {
                    world.runs[run].signal(signal);
                }
            }
            Command::Acknowledge(receipts) => {
                for Receipt { source, position } in receipts {
                    let Some(index) =
                        source.parse::<KeeperIndex>().ok().filter(|index| *index < world.keepers.len())
                    else {
                        continue;
                    };
                    let keeper = &mut world.keepers[index];
                    if !keeper.lives() {
                        keeper.acknowledged = keeper.acknowledged.max(position);
                        keeper.gone = keeper.may_be_removed();
                    } else if self.heard.get(&index).is_some_and(|(on, _)| *on == keeper.connection) {
                        keeper.inbox.push_back(Order::Acknowledge(position));
                    }
                }
            }
        }
    }

    fn begin_ending(
        &mut self,
        attempt: AttemptId,
        process: Option<&Process>,
        plan: EndPlan,
        world: &mut World,
    ) {
        if let Some(index) = self.waiting.iter().position(|waiting| *waiting == attempt) {
            self.waiting.remove(index);
            return self.not_started(attempt, StartFailureKind::CalledOff, world);
        }
        if process.is_none() && self.call_off(&attempt, world) {
            return;
        }
        let known = self.running.get(&attempt).copied();
        // Where no entry can be read that tells of its process, its mark does.
        let is_marked = |run: &Run| run.attempt == attempt && run.process.is_some();
        let marked = || world.runs.iter().rposition(is_marked);
        let named = || world.by_process(process?);
        let found = known.or_else(named).or_else(marked);
        world.runs.iter_mut().filter(|run| run.attempt == attempt).for_each(|run| run.is_looked_for = true);
        let Some(run) = found else {
            let (killed, ended, survivors, usage) = (false, Vec::new(), Vec::new(), None);
            let event = BackendEvent::TreeEnded { killed, ended, survivors, usage };
            return self.report(attempt, event, None);
        };
        let (phase, deadline) = (Phase::New, plan.deadline);
        match self.endings.get_mut(&attempt) {
            Some(ending) => (ending.plan, ending.phase, ending.deadline) = (plan, phase, deadline),
            None => {
                let ending = Ending { run, plan, phase, deadline, killed: false };
                self.endings.insert(attempt, ending);
            }
        }
    }

    fn not_started(&mut self, attempt: AttemptId, kind: StartFailureKind, world: &World) {
        let failure = StartFailure { kind, detail: "why".to_owned() };
        self.report(attempt, BackendEvent::NotStarted { failure, at: world.now }, None);
    }

    fn advance_endings(&mut self, world: &mut World) {
        let mut endings = std::mem::take(&mut self.endings);
        endings.retain(|attempt, ending| {
            let run = &mut world.runs[ending.run];
            let is_up = world.now.boot >= ending.deadline;
            let is_here = run.boot == world.boot && run.living() > 0;
            if is_here && ending.phase != Phase::New && (!is_up || ending.phase == Phase::Survived) {
                return true;
            }
            if is_here && !(ending.phase == Phase::Killed && is_up) {
                let kill = is_up || ending.plan.signal == Signal::KILL;
                if kill {
                    ending.phase = Phase::Killed;
                    ending.killed |= ending.plan.signal != Signal::KILL;
                    ending.deadline = world.now.boot.plus_millis(KILL_PATIENCE_MS);
                } else {
                    ending.phase = Phase::Asked;
                }
                run.signal(if kill { Signal::KILL } else { ending.plan.signal });
                return true;
            }
            ending.phase = Phase::Survived;
            let survivors = if is_here { vec![survivor(); run.living()] } else { Vec::new() };
            let event =
                BackendEvent::TreeEnded { killed: ending.killed, ended: Vec::new(), survivors, usage: None };
            self.report(attempt.clone(), event, None);
            is_here
        });
        self.endings = endings;
    }

    fn send_launches(&mut self, world: &mut World, store: &MemoryStore, random: &mut Random) -> Checked {
        while let Some(attempt) = self.waiting.pop_front() {
            let job = store.job(&attempt.id).ok().flatten();
            let job = job.filter(|job| job.state.attempt == attempt.attempt);
            let job = job.ok_or_else(|| format!("{attempt} is launched and not in the store"))?;
            let run = world.run_of(job.seq, &attempt);
            let willing = |index: &KeeperIndex| {
                let keeper = &world.keepers[*index];
                keeper.takes_launches()
                    && self.heard.get(index).is_some_and(|(on, _)| *on == keeper.connection)
            };
            let known = (0..world.keepers.len()).rev().find(willing);
            let keeper = match known {
                Some(keeper) if random.below(20) > 0 => keeper,
                _ if random.below(8) == 0 => {
                    self.not_started(attempt, StartFailureKind::NoRoom, world);
                    continue;
                }
                _ => {
                    let keeper = world.start_keeper(random.below(6) > 0);
                    self.heard.insert(keeper, (0, 0));
                    keeper
                }
            };
            let from = world.keepers[keeper].end;
            self.in_flight.push(InFlight { run, keeper, from, asked: world.now.boot });
            let asked_on = world.keepers[keeper].connection;
            world.keepers[keeper].inbox.push_back(Order::Launch(run, asked_on));
        }
        Ok(())
    }
}

fn leftovers(run: &Run, world: &World) -> Vec<TreeMember> {
    if run.boot == world.boot { vec![survivor(); run.living()] } else { Vec::new() }
}

fn survivor() -> TreeMember {
    TreeMember { pid: 9, name: "left".to_owned() }
}
