//! What is true: processes, and the keepers that launch and collect them. Knows nothing of the engine.
//!
//! Each execution that was ever asked for is a [`Run`], told apart by the job's place in the store and its attempt, so that
//! an id that is used again is another one.

mod gates;
mod harm;
mod keeper;

use crate::id::AttemptId;
use crate::job::{ExitStatus, Process};
use crate::signal::Signal;
use crate::store::conformance::random::Random;
use crate::time::{BootTime, Moment, Timestamp};

use super::owner::Fault;

pub(super) use gates::{Gate, Launch};
pub(super) use keeper::{Entry, Keeper, Noted, Order};

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
    fn any(random: &mut Random) -> Self {
        let (obeys, stuck) = (random.below(3) > 0, random.below(6) == 0);
        Self { alive: true, obeys, stuck, doomed: false, halted: false }
    }

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
    /// Once its child has noted itself, and until it is known that it could not be executed.
    pub(super) process: Option<Process>,
    /// Whether the program was executed.
    pub(super) executed: bool,
    /// How often a child has noted itself.
    tries: u64,
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
    /// It cannot be known whether it was executed, or will be: a backend has reported it as lost.
    pub(super) is_doubtful: bool,
    /// A backend has searched for processes with its mark, and ended them.
    pub(super) is_looked_for: bool,
    /// That is on disk.
    pub(super) given_up: bool,
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

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Moment,
    pub(super) boot: u64,
    /// The boot in which an owner has last answered for everything that was live.
    pub(super) settled_boot: u64,
    pub(super) runs: Vec<Run>,
    pub(super) keepers: Vec<Keeper>,
    /// Whether a call that a child makes may hang.
    pub(super) calls_may_hang: bool,
    pub(super) fault: Fault,
}

impl World {
    pub(super) fn new(fault: Fault) -> Self {
        let wall = Timestamp::from_millis(1_784_000_000_000);
        let now = Moment { wall, boot: BootTime(1_000) };
        let (runs, keepers) = (Vec::new(), Vec::new());
        Self { now, boot: 1, settled_boot: 1, runs, keepers, calls_may_hang: true, fault }
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
                executed: false,
                tries: 0,
                main: body,
                code: 0,
                runs_for_ever: false,
                exit: None,
                collected: false,
                children: Vec::new(),
                may_be_lost: false,
                may_leave: false,
                is_doubtful: false,
                is_looked_for: false,
                given_up: false,
            });
            self.runs.len() - 1
        })
    }

    /// The run that has or had this process.
    pub(super) fn by_process(&self, known: &Process) -> Option<RunIndex> {
        let index = known.handle.split(':').nth(1)?.parse::<RunIndex>().ok()?;
        let run = self.runs.get(index)?;
        (process(run.boot, index, run.tries) == *known).then_some(index)
    }

    /// Some process ends by itself, or lets itself be killed again.
    pub(super) fn process_works(&mut self, random: &mut Random) {
        if random.below(4) == 0 {
            let _ = self.calls_return();
        }
        let lives = |run: &RunIndex| self.runs[*run].living() > 0 && !self.is_hung(*run);
        let living: Vec<RunIndex> = (0..self.runs.len()).filter(lives).collect();
        let Some(run) = pick(&living, random).copied() else { return };
        let run = &mut self.runs[run];
        if random.below(8) == 0 {
            run.unstick();
        } else if run.executed && run.main.alive && !run.main.halted && !run.runs_for_ever {
            run.exit_by_itself();
        } else if let Some(child) = run.children.iter_mut().find(|child| child.alive && !child.halted) {
            child.alive = false;
        }
    }
}

/// What identifies a child of a run.
pub(super) fn process(boot: u64, run: RunIndex, child: u64) -> Process {
    Process { handle: format!("{boot}:{run}:{child}"), pid: u32::try_from(run + 100).ok() }
}

pub(super) fn pick<'a, T>(from: &'a [T], random: &mut Random) -> Option<&'a T> {
    let length = u64::try_from(from.len()).ok().filter(|length| *length > 0)?;
    from.get(usize::try_from(random.below(length)).ok()?)
}
