//! What is true: processes, and the keepers that launch and collect them. Knows nothing of the engine.
//!
//! Each execution that was ever asked for is a [`Run`], told apart by the job's place in the store and its attempt, so that
//! an id that is used again is another one.

use std::collections::VecDeque;

use crate::backend::StartFailureKind;
use crate::id::AttemptId;
use crate::job::{ExitStatus, Process};
use crate::signal::Signal;
use crate::status::Reason;
use crate::store::conformance::random::Random;
use crate::time::{BootTime, Moment, Timestamp};

use super::{Checked, ensure};

pub(super) type RunIndex = usize;
pub(super) type KeeperIndex = usize;

/// A process.
#[derive(Clone, Debug)]
pub(super) struct Body {
    pub(super) alive: bool,
    /// Whether it ends when it is asked to.
    pub(super) obeys: bool,
    /// Whether not even SIGKILL ends it, as in a system call that hangs.
    pub(super) stuck: bool,
    /// Whether SIGKILL waits for it.
    doomed: bool,
    pub(super) halted: bool,
}

impl Body {
    /// Whether the signal ends it.
    fn signal(&mut self, signal: Signal) -> bool {
        let ends = self.alive && !self.stuck && (signal == Signal::KILL || self.obeys);
        self.doomed |= signal == Signal::KILL;
        match signal {
            Signal::STOP => self.halted = true,
            Signal::CONT => self.halted = false,
            _ if ends => self.alive = false,
            // Whoever is ended is also let go on.
            _ => self.halted = false,
        }
        ends && !matches!(signal, Signal::STOP | Signal::CONT)
    }
}

/// An attempt as it really went.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) seq: u64,
    pub(super) attempt: AttemptId,
    pub(super) boot: u64,
    pub(super) keeper: Option<KeeperIndex>,
    /// Once it was executed.
    pub(super) process: Option<Process>,
    pub(super) main: Body,
    pub(super) code: i32,
    pub(super) runs_for_ever: bool,
    pub(super) exit: Option<ExitStatus>,
    /// Whether its keeper has noted its exit.
    pub(super) collected: bool,
    pub(super) children: Vec<Body>,
    /// Nobody can know how it ended.
    pub(super) may_be_lost: bool,
    /// Its tree may outlive it: by its policy, or because it was reported that it cannot be killed.
    pub(super) may_leave: bool,
}

impl Run {
    pub(super) fn living(&self) -> usize {
        usize::from(self.main.alive) + self.children.iter().filter(|child| child.alive).count()
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        if self.main.signal(signal) {
            self.exit = Some(ExitStatus::Signal { number: signal.number(), core_dumped: false });
        }
        for child in &mut self.children {
            let _ = child.signal(signal);
        }
    }

    /// Whoever hangs comes back from where it hung.
    pub(super) fn unstick(&mut self) {
        self.main.stuck = false;
        self.children.iter_mut().for_each(|child| child.stuck = false);
        if self.main.doomed {
            self.signal(Signal::KILL);
        }
        for child in self.children.iter_mut().filter(|child| child.doomed) {
            child.alive = false;
        }
    }

    pub(super) fn exit_by_itself(&mut self) {
        self.main.alive = false;
        self.exit = Some(ExitStatus::Code(self.code));
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Noted {
    Started,
    StartFailed(StartFailureKind),
    Exited(ExitStatus),
}

/// What a keeper has written into its journal.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) run: RunIndex,
    pub(super) noted: Noted,
    pub(super) at: Moment,
    pub(super) boot: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    Launch(RunIndex),
    Acknowledge(u64),
}

/// A guard and its worker, or what they have left.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) worker: bool,
    pub(super) guard: bool,
    /// Counts whom it has spoken to: a connection that was cut is another one.
    pub(super) connection: u64,
    /// Sent on the present connection and not read.
    pub(super) inbox: VecDeque<Order>,
    pub(super) journal: Vec<(u64, Entry)>,
    pub(super) end: u64,
    pub(super) acknowledged: u64,
    /// Its journal is removed.
    pub(super) gone: bool,
}

impl Keeper {
    pub(super) fn lives(&self) -> bool {
        !self.gone && (self.worker || self.guard)
    }

    pub(super) fn takes_launches(&self) -> bool {
        !self.gone && self.worker && self.guard
    }

    /// Whether nothing in its journal is needed any more.
    pub(super) fn is_settled(&self) -> bool {
        self.journal.iter().all(|(position, _)| *position < self.acknowledged)
    }

    fn append(&mut self, entry: Entry) {
        self.journal.push((self.end, entry));
        self.end += 1;
    }
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Moment,
    pub(super) boot: u64,
    pub(super) runs: Vec<Run>,
    pub(super) keepers: Vec<Keeper>,
}

impl World {
    pub(super) fn new() -> Self {
        let wall = Timestamp::from_millis(1_784_000_000_000);
        Self { now: Moment { wall, boot: BootTime(1_000) }, boot: 1, runs: Vec::new(), keepers: Vec::new() }
    }

    pub(super) fn pass(&mut self, millis: u64) {
        self.now.boot = self.now.boot.plus_millis(millis);
        self.set_wall(millis.cast_signed());
    }

    pub(super) fn set_wall(&mut self, by: i64) {
        self.now.wall = Timestamp::from_millis(self.now.wall.as_millis() + by);
    }

    pub(super) fn find(&self, seq: u64, attempt: u32) -> Option<RunIndex> {
        self.runs.iter().position(|run| run.seq == seq && run.attempt.attempt == attempt)
    }

    pub(super) fn run_of(&mut self, seq: u64, attempt: &AttemptId) -> RunIndex {
        self.find(seq, attempt.attempt).unwrap_or_else(|| {
            let body = Body { alive: false, obeys: true, stuck: false, doomed: false, halted: false };
            self.runs.push(Run {
                seq,
                attempt: attempt.clone(),
                boot: self.boot,
                keeper: None,
                process: None,
                main: body,
                code: 0,
                runs_for_ever: false,
                exit: None,
                collected: false,
                children: Vec::new(),
                may_be_lost: false,
                may_leave: false,
            });
            self.runs.len() - 1
        })
    }

    pub(super) fn by_process(&self, process: &Process) -> Option<RunIndex> {
        self.runs.iter().position(|run| run.process.as_ref() == Some(process))
    }

    pub(super) fn start_keeper(&mut self) -> KeeperIndex {
        self.keepers.push(Keeper {
            worker: true,
            guard: true,
            connection: 0,
            inbox: VecDeque::new(),
            journal: Vec::new(),
            end: 0,
            acknowledged: 0,
            gone: false,
        });
        self.keepers.len() - 1
    }

    /// The runs that this keeper has executed and whose end it has not noted.
    pub(super) fn uncollected(&self, keeper: KeeperIndex) -> Vec<RunIndex> {
        let its = |run: &Run| run.process.is_some() && run.keeper == Some(keeper) && !run.collected;
        let runs = (0..self.runs.len()).filter(|run| its(&self.runs[*run]));
        runs.collect()
    }

    /// A keeper does the next thing that it has to do.
    pub(super) fn keeper_works(&mut self, keeper: KeeperIndex, random: &mut Random) -> Checked {
        let at = self.now;
        if !self.keepers[keeper].lives() {
            return Ok(());
        }
        let ended = self.uncollected(keeper).into_iter().find_map(|run| Some((run, self.runs[run].exit?)));
        match (ended, random.below(2)) {
            (Some((run, exit)), 0) => {
                self.runs[run].collected = true;
                self.keepers[keeper].append(Entry { run, noted: Noted::Exited(exit), at, boot: self.boot });
            }
            _ => match self.keepers[keeper].inbox.pop_front() {
                Some(Order::Launch(run)) => self.execute(keeper, run, random)?,
                Some(Order::Acknowledge(position)) => {
                    let keeper = &mut self.keepers[keeper];
                    keeper.acknowledged = keeper.acknowledged.max(position);
                }
                None => self.tidy(keeper, random),
            },
        }
        Ok(())
    }

    /// Rewrites its journal shorter, now and then, and leaves when nobody needs it.
    fn tidy(&mut self, index: KeeperIndex, random: &mut Random) {
        let running = self.uncollected(index);
        let keeper = &mut self.keepers[index];
        if random.below(4) == 0 {
            let acknowledged = keeper.acknowledged;
            keeper.journal.retain(|(position, entry)| match entry.noted {
                Noted::Started => *position >= acknowledged || running.contains(&entry.run),
                _ => *position >= acknowledged,
            });
        }
        keeper.gone = !keeper.takes_launches() && running.is_empty() && keeper.is_settled();
    }

    fn execute(&mut self, keeper: KeeperIndex, index: RunIndex, random: &mut Random) -> Checked {
        let (at, boot) = (self.now, self.boot);
        let run = &self.runs[index];
        ensure(run.process.is_none(), || format!("{} is executed a second time", run.attempt))?;
        let noted = match random.below(16) {
            0 => Noted::StartFailed(StartFailureKind::Permanent(Reason::Exec)),
            1 | 2 => Noted::StartFailed(StartFailureKind::NoRoom),
            _ => {
                let shares_id = |other: &Run| other.attempt.id == run.attempt.id && !other.may_leave;
                let other = self.runs.iter().find(|other| shares_id(other) && other.living() > 0);
                ensure(other.is_none(), || format!("{} is executed while {other:?} lives", run.attempt))?;
                let run = &mut self.runs[index];
                let pid = u32::try_from(index + 100).ok();
                run.process = Some(Process { handle: format!("{boot}:{index}"), pid });
                (run.boot, run.keeper) = (boot, Some(keeper));
                run.main = Self::body(random);
                run.code = [0, 0, 1, 7][usize::try_from(random.below(4)).unwrap_or(0)];
                run.runs_for_ever = random.below(8) == 0;
                let children = random.below(4).saturating_sub(1);
                run.children = (0..children).map(|_| Self::body(random)).collect();
                Noted::Started
            }
        };
        self.keepers[keeper].append(Entry { run: index, noted, at, boot });
        Ok(())
    }

    fn body(random: &mut Random) -> Body {
        let (obeys, stuck) = (random.below(3) > 0, random.below(6) == 0);
        Body { alive: true, obeys, stuck, doomed: false, halted: false }
    }

    /// Some process ends by itself, or lets itself be killed again.
    pub(super) fn process_works(&mut self, random: &mut Random) {
        let living: Vec<RunIndex> = (0..self.runs.len()).filter(|run| self.runs[*run].living() > 0).collect();
        let Some(run) = pick(&living, random).copied() else { return };
        let run = &mut self.runs[run];
        if random.below(8) == 0 {
            run.unstick();
        } else if run.main.alive && !run.main.halted && !run.runs_for_ever {
            run.exit_by_itself();
        } else if let Some(child) = run.children.iter_mut().find(|child| child.alive && !child.halted) {
            child.alive = false;
        }
    }

    /// One of a keeper's two processes is killed; without both, nobody collects what has not been.
    pub(super) fn kill_keeper(&mut self, index: KeeperIndex, worker: bool) {
        let keeper = &mut self.keepers[index];
        let process = if worker { &mut keeper.worker } else { &mut keeper.guard };
        if !std::mem::replace(process, false) {
            return;
        }
        // A worker that drains cuts its connections, and those of a dead one are cut.
        keeper.connection += 1;
        keeper.inbox.clear();
        if !keeper.lives() {
            for run in self.uncollected(index) {
                self.runs[run].may_be_lost = true;
            }
        }
    }

    pub(super) fn reboot(&mut self, random: &mut Random) {
        for keeper in 0..self.keepers.len() {
            self.kill_keeper(keeper, true);
            self.kill_keeper(keeper, false);
        }
        for run in &mut self.runs {
            run.main.alive = false;
            run.children.clear();
        }
        self.boot += 1;
        self.now.boot = BootTime(random.below(20_000));
        self.set_wall(30_000);
    }
}

pub(super) fn pick<'a, T>(from: &'a [T], random: &mut Random) -> Option<&'a T> {
    let length = u64::try_from(from.len()).ok().filter(|length| *length > 0)?;
    from.get(usize::try_from(random.below(length)).ok()?)
}
