//! Ending one tree: signal everybody, wait until they are gone or the deadline is, kill, look again.
//!
//! Waiting for a process takes a descriptor of it, and of those there may be too few. So everybody is signalled at once,
//! and descriptors are held of some; when one of these is gone, its place goes to the next. Of main processes their
//! keepers tell as well.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

use nodejobs_core::backend::{BackendEvent, EndPlan, TreeMember};
use nodejobs_core::signal::Signal;
use nodejobs_core::time::{BootTime, Moment};

use super::watching::table_size;
use crate::cgroup::group::Group;
use crate::failpoint::{Failpoint, reached};
use crate::identity::{LocalProcess, ProcStat, if_there, open_pidfd, send_signal};
use crate::machine::Machine;
use crate::tree::{Root, View};

/// How long after SIGKILL a process may still be there before it counts as one that cannot be killed.
const KILL_PATIENCE_MS: u64 = 2_000;
/// How long before what there was no room for is tried again.
const RETRY_MS: u64 = 100;

/// How many descriptors all endings together may hold: enough is left for clients, logs and the store.
pub(crate) fn max_held() -> usize {
    table_size() / 4
}

/// How far an ending got.
pub(crate) enum Progress {
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
    /// Held as far as there is room.
    pidfd: Option<OwnedFd>,
    name: String,
    /// What it is still to be sent.
    signal: Option<Signal>,
    gone: bool,
}

/// A tree that is being ended.
pub(crate) struct Ending {
    main: LocalProcess,
    mark: String,
    group: Option<Group>,
    plan: EndPlan,
    phase: Phase,
    /// By start and process id, so that a number that is used again is another member. And so parents come before their
    /// children: a shell whose child is signalled first would end with an exit code before its own signal comes.
    members: BTreeMap<(u64, u32), Member>,
    killed: bool,
    /// When the present phase is over.
    deadline: BootTime,
    /// When to try again what there was no room for.
    retry: Option<BootTime>,
}

impl Ending {
    pub(crate) fn new(main: LocalProcess, mark: String, group: Option<Group>, plan: EndPlan) -> Self {
        let deadline = plan.deadline;
        let members = BTreeMap::new();
        Self { main, mark, group, plan, phase: Phase::New, members, killed: false, deadline, retry: None }
    }

    pub(crate) fn change_plan(&mut self, plan: EndPlan) {
        self.plan = plan;
        self.deadline = plan.deadline;
        self.phase = Phase::New;
    }

    /// Members that are waited for.
    pub(crate) fn held(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        self.members.iter().filter_map(|((_, pid), member)| Some((*pid, member.pidfd.as_ref()?.as_fd())))
    }

    /// A member has ended.
    pub(crate) fn gone(&mut self, pid: u32) {
        for (_, member) in self.members.iter_mut().filter(|((_, member_pid), _)| *member_pid == pid) {
            member.gone = true;
            member.pidfd = None;
        }
    }

    /// When to advance at the latest.
    pub(crate) fn deadline(&self) -> BootTime {
        let deadline = if self.phase == Phase::Survived { BootTime(u64::MAX) } else { self.deadline };
        self.retry.map_or(deadline, |retry| retry.min(deadline))
    }

    /// Goes as far as it gets now, and takes descriptors as far as there is `room`. `view` is taken for all endings of
    /// a round, after everything that is known to be gone was gone: whoever is not in it then is not there.
    pub(crate) fn advance(
        &mut self,
        view: &mut dyn FnMut() -> io::Result<Rc<View>>,
        room: &mut usize,
        machine: &Machine,
        now: Moment,
    ) -> Progress {
        self.retry = None;
        let advanced =
            self.signal_and_hold(room).and_then(|()| self.try_to_advance(view, room, machine, now));
        advanced.unwrap_or_else(|_| {
            // Nothing is known, so nothing is said.
            self.retry = Some(now.boot.plus_millis(RETRY_MS));
            Progress::Waiting
        })
    }

    fn try_to_advance(
        &mut self,
        view: &mut dyn FnMut() -> io::Result<Rc<View>>,
        room: &mut usize,
        machine: &Machine,
        now: Moment,
    ) -> io::Result<Progress> {
        let all_gone = self.members.values().all(|member| member.gone);
        let time_is_up = now.boot >= self.deadline;
        if self.phase != Phase::New && !all_gone && (!time_is_up || self.phase == Phase::Survived) {
            return Ok(Progress::Waiting);
        }
        if self.main.boot_id != machine.boot_id || self.main.pid_namespace != machine.pid_namespace {
            return Ok(Progress::Ended(self.event(&[])));
        }
        let root = Root { main: &self.main, mark: &self.mark, group: self.group.as_ref() };
        // No keeper reports this process, so its parent is unknown: all processes are searched.
        let view = if self.main.is_unknown() { Rc::new(View::everywhere()?) } else { view()? };
        let mut members = view.members(&root)?;
        if members.is_empty() && self.somebody_lives()? {
            // Missed, because somebody between it and us died while we looked; or it has become somebody else's.
            members = View::everywhere()?.members(&root)?;
        }
        if members.is_empty() {
            return Ok(Progress::Ended(self.event(&[])));
        }
        let survived_kill = self.phase == Phase::Killed && time_is_up;
        if survived_kill || self.phase == Phase::Survived {
            self.add(&members, None);
            self.phase = Phase::Survived;
            // To be held, as far as there is room.
            self.retry = Some(now.boot);
            return Ok(Progress::Survived(self.event(&members)));
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
        if let Some(group) = self.group.as_ref().filter(|_| kill) {
            // Whoever is made in this very moment goes as well. What it cannot do, descriptors can.
            let _ = group.kill();
        }
        self.signal_and_hold(room)?;
        reached(if kill { Failpoint::OwnerKilled } else { Failpoint::OwnerSignalled });
        Ok(Progress::Waiting)
    }

    /// Whether one of those that were found earlier is still there.
    fn somebody_lives(&self) -> io::Result<bool> {
        for ((start_ticks, pid), _) in self.members.iter().filter(|(_, member)| !member.gone) {
            let stat = ProcStat::read(*pid)?;
            if stat.is_some_and(|stat| stat.start_ticks == *start_ticks && !stat.is_dead()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Takes members in, to be signalled.
    fn add(&mut self, members: &[ProcStat], signal: Option<Signal>) {
        for stat in members {
            let key = (stat.start_ticks, stat.pid);
            let pidfd = self.members.remove(&key).and_then(|member| member.pidfd);
            let member = Member { pidfd, name: stat.name.clone(), signal, gone: false };
            self.members.insert(key, member);
        }
    }

    /// Signals whoever is to be signalled, through descriptors that were checked to mean them, and keeps as many of these
    /// as there is room for.
    fn signal_and_hold(&mut self, room: &mut usize) -> io::Result<()> {
        for ((start_ticks, pid), member) in self.members.iter_mut().filter(|(_, member)| !member.gone) {
            let is_held = member.pidfd.is_some();
            if member.signal.is_none() && (is_held || *room == 0) {
                continue;
            }
            let pidfd = match member.pidfd.take() {
                Some(pidfd) => Some(pidfd),
                None => if_there(open_pidfd(*pid))?,
            };
            let stat =
                ProcStat::read(*pid)?.filter(|stat| stat.start_ticks == *start_ticks && !stat.is_dead());
            let (Some(pidfd), Some(_)) = (pidfd, stat) else {
                member.gone = true;
                *room += usize::from(is_held);
                continue;
            };
            if let Some(signal) = member.signal.take() {
                // A process of another user cannot be signalled; it then turns up among the survivors.
                let _ = send_signal(&pidfd, signal);
                // Whoever is halted has to go on in order to hear it. Not all show that they are: one that waits for a child
                // of its `vfork` halts once that is over, with the signal still blocked.
                if signal != Signal::KILL {
                    let _ = send_signal(&pidfd, Signal::CONT);
                }
            }
            if is_held || *room > 0 {
                *room -= usize::from(!is_held);
                member.pidfd = Some(pidfd);
            }
        }
        Ok(())
    }

    fn event(&self, survivors: &[ProcStat]) -> BackendEvent {
        let is_main = |pid: u32, start: u64| pid == self.main.pid && start == self.main.start_ticks;
        let survives = |pid: u32| survivors.iter().any(|stat| stat.pid == pid);
        let mut ended: Vec<TreeMember> = self
            .members
            .iter()
            .filter(|((start, pid), _)| !is_main(*pid, *start) && !survives(*pid))
            .map(|((_, pid), member)| TreeMember { pid: *pid, name: member.name.clone() })
            .collect();
        ended.sort_by_key(|member| member.pid);
        let survivors =
            survivors.iter().map(|stat| TreeMember { pid: stat.pid, name: stat.name.clone() }).collect();
        BackendEvent::TreeEnded { killed: self.killed, ended, survivors, usage: None }
    }
}

#[cfg(test)]
mod tests {
    use nodejobs_core::backend::EndPlan;

    use super::*;
    use crate::launch::MARK_VARIABLE;
    use crate::machine::now;
    use crate::tree::{Candidates, marks_of};

    #[test]
    fn whoever_was_found_once_and_lives_is_not_said_to_be_gone() {
        let machine = Machine::read().expect("a machine");
        let mark = format!("directory:{}:1", std::process::id());
        let mut child = std::process::Command::new("sleep")
            .arg("100")
            .env(MARK_VARIABLE, &mark)
            .spawn()
            .expect("a process");
        // For a moment of its `execve` a process has no environment; jobs have their traces as well.
        while marks_of(child.id()).expect("room").is_empty() {
            std::thread::yield_now();
        }
        let stat = ProcStat::read(child.id()).expect("room").expect("it is there");
        // The main process is older and gone.
        let main = LocalProcess {
            start_ticks: stat.start_ticks,
            pid: u32::MAX - 1,
            ..LocalProcess::unknown(&machine)
        };
        let at = now();
        let plan = EndPlan { signal: Signal::CONT, deadline: at.boot };
        let mut ending = Ending::new(main, mark, None, plan);
        ending.add(&[stat], None);
        ending.phase = Phase::Asked;
        // As when the keeper dies that had adopted it.
        let mut nobody = || Ok(Rc::new(View::Adopted(Candidates::default())));
        let first = ending.advance(&mut nobody, &mut 10, &machine, at);
        assert!(matches!(first, Progress::Waiting), "it lives, and its time is up");
        assert_eq!(ending.phase, Phase::Killed);
        child.wait().expect("killed");
        ending.gone(child.id());
        assert!(matches!(ending.advance(&mut nobody, &mut 10, &machine, at), Progress::Ended(_)));
    }
}
