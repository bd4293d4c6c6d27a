//! Ending one tree: signal everybody, wait until they are gone or the deadline is, kill, look again.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nodejobs_core::backend::{BackendEvent, EndPlan, TreeMember};
use nodejobs_core::signal::Signal;
use nodejobs_core::time::{BootTime, Moment};

use crate::identity::{LocalProcess, ProcStat, open_pidfd, send_signal};
use crate::machine::Machine;
use crate::tree::{Root, View};

/// How long after SIGKILL a process may still be there before it counts as one that cannot be killed.
const KILL_PATIENCE_MS: u64 = 2_000;

/// How far an ending got.
pub(super) enum Progress {
    /// Somebody is left and has time.
    Waiting,
    /// Everybody is gone.
    Ended(BackendEvent),
    /// Somebody cannot be killed; they are watched further.
    Survived(BackendEvent),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nobody has been signalled by the present plan.
    New,
    /// Everybody has been asked.
    Asked,
    /// Everybody has been killed.
    Killed,
    /// Survivors have been reported.
    Survived,
}

struct Member {
    pidfd: OwnedFd,
    name: String,
    gone: bool,
}

/// A tree that is being ended.
pub(super) struct Ending {
    main: LocalProcess,
    mark: String,
    plan: EndPlan,
    phase: Phase,
    /// By process id and start, so that a number that is used again is another member.
    members: HashMap<(u32, u64), Member>,
    killed: bool,
    /// When the present phase is over.
    deadline: BootTime,
}

impl Ending {
    pub(super) fn new(main: LocalProcess, mark: String, plan: EndPlan) -> Self {
        let deadline = plan.deadline;
        Self { main, mark, plan, phase: Phase::New, members: HashMap::new(), killed: false, deadline }
    }

    pub(super) fn change_plan(&mut self, plan: EndPlan) {
        self.plan = plan;
        self.deadline = plan.deadline;
        self.phase = Phase::New;
    }

    /// Members that have not been seen to end.
    pub(super) fn living(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        let living = self.members.iter().filter(|(_, member)| !member.gone);
        living.map(|((pid, _), member)| (*pid, member.pidfd.as_fd()))
    }

    /// A member's descriptor says that it ended.
    pub(super) fn gone(&mut self, pid: u32) {
        for ((member_pid, _), member) in &mut self.members {
            member.gone |= *member_pid == pid;
        }
    }

    /// When to advance at the latest.
    pub(super) fn deadline(&self) -> BootTime {
        if self.phase == Phase::Survived { BootTime(u64::MAX) } else { self.deadline }
    }

    /// Goes as far as it gets now. `view` is taken for all endings of a round, after everything that is known to be
    /// gone was gone: whoever is not in it then is not there.
    pub(super) fn advance(
        &mut self,
        view: &mut dyn FnMut() -> Rc<View>,
        machine: &Machine,
        now: Moment,
    ) -> Progress {
        let all_gone = self.members.values().all(|member| member.gone);
        let time_is_up = now.boot >= self.deadline;
        if self.phase != Phase::New && !all_gone && (!time_is_up || self.phase == Phase::Survived) {
            return Progress::Waiting;
        }
        if self.main.boot_id != machine.boot_id || self.main.pid_namespace != machine.pid_namespace {
            return Progress::Ended(self.event(&[]));
        }
        let members = view().members(&Root { main: &self.main, mark: &self.mark });
        if members.is_empty() {
            return Progress::Ended(self.event(&[]));
        }
        let survived_kill = self.phase == Phase::Killed && time_is_up;
        if survived_kill || self.phase == Phase::Survived {
            self.add(&members, None);
            self.phase = Phase::Survived;
            return Progress::Survived(self.event(&members));
        }
        let kill = time_is_up || self.plan.signal == Signal::KILL || self.phase == Phase::Killed;
        let signal = if kill { Signal::KILL } else { self.plan.signal };
        if kill && self.phase != Phase::Killed {
            self.phase = Phase::Killed;
            self.killed |= self.plan.signal != Signal::KILL;
            self.deadline = now.boot.plus_millis(KILL_PATIENCE_MS);
        } else if !kill {
            self.phase = Phase::Asked;
        }
        self.add(&members, Some(signal));
        Progress::Waiting
    }

    /// Takes members in and signals them through descriptors that were checked to mean them.
    fn add(&mut self, members: &[ProcStat], signal: Option<Signal>) {
        for stat in members {
            let key = (stat.pid, stat.start_ticks);
            let Ok(pidfd) = open_pidfd(stat.pid) else { continue };
            let is_still_it = ProcStat::read(stat.pid).is_some_and(|now| now.start_ticks == stat.start_ticks);
            if !is_still_it {
                continue;
            }
            if let Some(signal) = signal {
                // A process of another user cannot be signalled; it then turns up among the survivors.
                let _ = send_signal(&pidfd, signal);
                if stat.state == b'T' && signal != Signal::KILL {
                    let _ = send_signal(&pidfd, Signal::CONT);
                }
            }
            self.members.insert(key, Member { pidfd, name: stat.name.clone(), gone: false });
        }
    }

    fn event(&self, survivors: &[ProcStat]) -> BackendEvent {
        let is_main = |pid: u32, start: u64| pid == self.main.pid && start == self.main.start_ticks;
        let survives = |pid: u32| survivors.iter().any(|stat| stat.pid == pid);
        let mut ended: Vec<TreeMember> = self
            .members
            .iter()
            .filter(|((pid, start), _)| !is_main(*pid, *start) && !survives(*pid))
            .map(|((pid, _), member)| TreeMember { pid: *pid, name: member.name.clone() })
            .collect();
        ended.sort_by_key(|member| member.pid);
        let survivors =
            survivors.iter().map(|stat| TreeMember { pid: stat.pid, name: stat.name.clone() }).collect();
        BackendEvent::TreeEnded { killed: self.killed, ended, survivors }
    }
}
