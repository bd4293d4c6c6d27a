//! Keepers: a guard and its worker, their journal, and what they do one thing at a time.

use std::collections::VecDeque;

use crate::backend::StartFailureKind;
use crate::job::ExitStatus;
use crate::store::conformance::random::Random;
use crate::time::Moment;

use super::super::Checked;
use super::super::owner::Fault;
use super::{KeeperIndex, Launch, Run, RunIndex, World};

#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Noted {
    /// By which child of the run.
    Started(u64),
    StartFailed(StartFailureKind),
    Exited(ExitStatus),
}

/// What a keeper has written into its journal.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Entry {
    pub(in super::super) run: RunIndex,
    pub(in super::super) noted: Noted,
    pub(in super::super) at: Moment,
    pub(in super::super) boot: u64,
    /// It cannot be read.
    pub(in super::super) is_bad: bool,
}

#[derive(Clone, Copy, Debug)]
pub(in super::super) enum Order {
    /// On this connection.
    Launch(RunIndex, u64),
    CallOff(RunIndex),
    Acknowledge(u64),
}

/// A guard and its worker, or what they have left.
#[derive(Debug)]
pub(in super::super) struct Keeper {
    pub(in super::super) worker: bool,
    pub(in super::super) guard: bool,
    pub(in super::super) worker_halted: bool,
    pub(in super::super) guard_halted: bool,
    /// Of which boot it is.
    pub(in super::super) boot: u64,
    /// Keepers of 0.1.0 have none: they stand still until a program is executed.
    pub(in super::super) has_gates: bool,
    pub(in super::super) launches: Vec<Launch>,
    /// What was asked for on an earlier connection passes no gate.
    pub(in super::super) fence: u64,
    pub(in super::super) page_is_damaged: bool,
    /// Counts whom it has spoken to: a connection that was cut is another one.
    pub(in super::super) connection: u64,
    /// Sent on the present connection and not read.
    pub(in super::super) inbox: VecDeque<Order>,
    /// Which launches were called off: told on the present connection and not heard.
    pub(in super::super) said: Vec<RunIndex>,
    pub(in super::super) journal: Vec<(u64, Entry)>,
    pub(in super::super) end: u64,
    pub(in super::super) acknowledged: u64,
    /// Its journal is removed.
    pub(in super::super) gone: bool,
}

impl Keeper {
    pub(in super::super) fn lives(&self) -> bool {
        !self.gone && (self.worker || self.guard)
    }

    /// Whether who speaks for it is not halted.
    pub(in super::super) fn speaks(&self) -> bool {
        self.lives() && !if self.worker { self.worker_halted } else { self.guard_halted }
    }

    pub(in super::super) fn takes_launches(&self) -> bool {
        !self.gone && self.worker && self.guard
    }

    /// Whether it cannot be read from its files what it has done.
    pub(in super::super) fn is_damaged(&self) -> bool {
        self.page_is_damaged || self.journal.iter().any(|(_, entry)| entry.is_bad)
    }

    /// Whether nothing in its journal is needed any more.
    pub(in super::super) fn is_settled(&self) -> bool {
        self.journal.iter().all(|(position, entry)| *position < self.acknowledged || entry.is_bad)
    }

    /// Whether a dead keeper's files are needed no more. One whose files cannot be read may have more to say than can be read.
    pub(in super::super) fn may_be_removed(&self) -> bool {
        self.is_settled() && !self.is_damaged() && !self.has_launches()
    }

    pub(super) fn append(&mut self, entry: Entry) {
        self.journal.push((self.end, entry));
        self.end += 1;
    }
}

impl World {
    pub(in super::super) fn start_keeper(&mut self, has_gates: bool) -> KeeperIndex {
        self.keepers.push(Keeper {
            worker: true,
            guard: true,
            worker_halted: false,
            guard_halted: false,
            boot: self.boot,
            has_gates,
            launches: Vec::new(),
            fence: 0,
            page_is_damaged: false,
            connection: 0,
            inbox: VecDeque::new(),
            said: Vec::new(),
            journal: Vec::new(),
            end: 0,
            acknowledged: 0,
            gone: false,
        });
        self.keepers.len() - 1
    }

    /// The runs that this keeper has launched and whose end it has not noted.
    pub(in super::super) fn uncollected(&self, keeper: KeeperIndex) -> Vec<RunIndex> {
        let its = |run: &Run| run.process.is_some() && run.keeper == Some(keeper) && !run.collected;
        let runs = (0..self.runs.len()).filter(|run| its(&self.runs[*run]));
        runs.collect()
    }

    /// A keeper does the next thing that it has to do.
    pub(in super::super) fn keeper_works(&mut self, keeper: KeeperIndex, random: &mut Random) -> Checked {
        let at = self.now;
        let hangs = self.keepers[keeper].launches.iter().any(|launch| launch.hangs);
        if !self.keepers[keeper].speaks() || (self.fault == Fault::StandsStill && hangs) {
            return Ok(());
        }
        if !self.keepers[keeper].worker {
            self.keepers[keeper].close_open_gates();
        }
        // Who ends is collected once its launch is settled.
        let is_settled = |run: &RunIndex| self.keepers[keeper].launch_of(*run).is_none();
        let mut settled = self.uncollected(keeper).into_iter().filter(is_settled);
        let ended = settled.find_map(|run| Some((run, self.runs[run].exit?)));
        let chance = random.below(3);
        if let (Some((run, exit)), 0) = (ended, chance) {
            self.runs[run].collected = true;
            let noted = Noted::Exited(exit);
            self.keepers[keeper].append(Entry { run, noted, at, boot: self.boot, is_bad: false });
        } else if chance != 1 || !self.settle(keeper) {
            match self.keepers[keeper].inbox.pop_front() {
                Some(Order::Launch(run, asked_on)) => self.begin_launch(keeper, run, asked_on, random)?,
                Some(Order::CallOff(run)) => {
                    if self.call_off(keeper, run) {
                        self.keepers[keeper].said.push(run);
                    }
                }
                Some(Order::Acknowledge(position)) => {
                    let keeper = &mut self.keepers[keeper];
                    keeper.acknowledged = keeper.acknowledged.max(position);
                }
                None => self.tidy(keeper, random),
            }
        }
        Ok(())
    }

    /// Rewrites its journal shorter, now and then, and leaves when nobody needs it.
    fn tidy(&mut self, index: KeeperIndex, random: &mut Random) {
        let running = self.uncollected(index);
        let keeper = &mut self.keepers[index];
        if random.below(4) == 0 && keeper.launches.is_empty() {
            let acknowledged = keeper.acknowledged;
            // It writes what it remembers.
            keeper.journal.iter_mut().for_each(|(_, entry)| entry.is_bad = false);
            keeper.journal.retain(|(position, entry)| match entry.noted {
                Noted::Started(_) => *position >= acknowledged || running.contains(&entry.run),
                _ => *position >= acknowledged,
            });
        }
        let is_idle = running.is_empty() && keeper.launches.is_empty();
        let is_told = keeper.journal.iter().all(|(position, _)| *position < keeper.acknowledged);
        keeper.gone = !keeper.takes_launches() && is_idle && is_told;
    }
}
