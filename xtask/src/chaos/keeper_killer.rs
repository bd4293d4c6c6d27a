//! Who does harm to daemons and keepers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::{Signal, pidfd_send_signal};

use super::Harmful;
use super::flipper;
use super::harm::{PATIENCE, boot_ms};
use super::random::Random;
use super::scene::Scene;
use crate::process::{Running, exited, names, pause, pidfd};
use crate::product::{Api, Keeper, Status};

/// What happens to daemons and keepers, as often as it is in here.
const MISHAPS: &[Mishap] = &[
    Mishap::Daemon,
    Mishap::Daemon,
    Mishap::Daemon,
    Mishap::Guard,
    Mishap::Guard,
    Mishap::Guard,
    Mishap::Worker,
    Mishap::Worker,
    Mishap::Worker,
    Mishap::DaemonAndGuard,
    Mishap::DaemonAndWorker,
    Mishap::GuardAndOtherWorker,
    Mishap::Frozen,
    Mishap::Frozen,
    Mishap::Backlog,
    Mishap::Backlog,
    Mishap::Backlog,
    Mishap::Backlog,
];
/// And what happens more rarely.
const RARE_MISHAPS: &[Mishap] =
    &[Mishap::BothHalves, Mishap::Flipped, Mishap::Stop, Mishap::Starters, Mishap::StartingDaemon];

#[derive(Clone, Copy, Debug)]
enum Mishap {
    Daemon,
    Guard,
    Worker,
    DaemonAndGuard,
    DaemonAndWorker,
    /// A guard and a worker that are not of the same keeper.
    GuardAndOtherWorker,
    /// The one thing that may cost the outcome of jobs.
    BothHalves,
    /// The same, and bits are flipped in what they have left, before the next daemon comes.
    Flipped,
    /// SIGSTOP and SIGCONT, or SIGKILL of somebody else in between.
    Frozen,
    /// Frozen while there is more and more to do, and killed in the midst of it.
    Backlog,
    /// `daemon stop`.
    Stop,
    /// Many `daemon start` at once where there is none.
    Starters,
    /// A daemon that is just starting.
    StartingDaemon,
}

/// Kills and freezes daemons and keepers until the end.
pub(crate) fn kill(scene: &Scene) -> Result<()> {
    let mut killer = Killer { scene, random: Random::new(scene.seed, 0), left_alone: BTreeMap::new() };
    while scene.goes_on() {
        pause(killer.random.up_to(Duration::from_millis(330)))?;
        killer.strike()?;
    }
    // Whoever was refused a start is let in again.
    scene.call(&["daemon", "start"])?;
    Ok(())
}

struct Killer<'a> {
    scene: &'a Scene,
    random: Random,
    /// The halves whose other half was killed. They hold its jobs alone.
    left_alone: BTreeMap<u32, OwnedFd>,
}

impl Killer<'_> {
    fn strike(&mut self) -> Result<()> {
        let mishaps = if self.random.one_in(10) { RARE_MISHAPS } else { MISHAPS };
        let mishap = self.random.pick(mishaps);
        if self.random.one_in(12) {
            // The daemons of jobs within jobs, and what they keep, are like any other.
            let nested: Vec<_> = self.scene.nested().collect();
            let nested = &nested[usize::try_from(self.random.below(nested.len() as u64))?];
            if let Some(daemon) = self.scene.daemon(nested) {
                self.scene.kill_daemon(daemon)?;
            }
            return Ok(());
        }
        let Some(status) = status_of(&self.scene.data()) else {
            // Whoever needs a daemon starts one.
            return pause(Duration::from_millis(5));
        };
        self.left_alone.retain(|_, process| !exited(process, Duration::ZERO).unwrap_or(true));
        let keeper = self.whole_keeper(&status);
        let daemon = status.daemon;
        match (mishap, keeper) {
            (Mishap::Daemon, _) => self.daemon(daemon),
            (Mishap::Guard, Some((guard, worker))) => self.half(guard, worker, "guard"),
            (Mishap::Worker, Some((guard, worker))) => self.half(worker, guard, "worker"),
            (Mishap::DaemonAndGuard, Some((guard, worker))) => {
                self.half(guard, worker, "guard")?;
                self.daemon(daemon)
            }
            (Mishap::DaemonAndWorker, Some((guard, worker))) => {
                self.daemon(daemon)?;
                self.half(worker, guard, "worker")
            }
            (Mishap::GuardAndOtherWorker, Some((guard, worker))) => {
                self.half(guard, worker, "guard")?;
                let nested = self.scene.nested().find_map(|nested| self.whole_keeper(&status_of(&nested)?));
                nested.map_or(Ok(()), |(guard, worker)| self.half(worker, guard, "worker"))
            }
            (Mishap::BothHalves, _) => self.both_halves(&status, keeper),
            (Mishap::Flipped, Some(halves)) if !self.scene.spares(Harmful::Files) => {
                self.flip(daemon, halves)
            }
            (Mishap::Frozen, _) => self.freeze(daemon, keeper),
            (Mishap::Backlog, Some((guard, worker))) => self.backlog(daemon, guard, worker),
            (Mishap::Stop, _) => self.stop(),
            (Mishap::Starters, _) => self.starters(daemon),
            (Mishap::StartingDaemon, _) => self.starting_daemon(daemon),
            (Mishap::Flipped, Some(_)) | (_, None) => Ok(()),
        }
    }

    /// Guard and worker of a keeper that has lost none of them.
    fn whole_keeper(&self, status: &Status) -> Option<(u32, u32)> {
        let is_whole = |pid: u32| names(pid, self.scene.root()) && !self.left_alone.contains_key(&pid);
        status.keepers.iter().find_map(|keeper| match keeper {
            Keeper { guard: Some(guard), worker: Some(worker) } if is_whole(*guard) && is_whole(*worker) => {
                Some((*guard, *worker))
            }
            _ => None,
        })
    }

    fn daemon(&self, pid: u32) -> Result<()> {
        self.scene.kill_daemon(pid).map(drop)
    }

    fn half(&mut self, pid: u32, other: u32, kind: &'static str) -> Result<()> {
        if let Ok(other_process) = pidfd(other) {
            self.left_alone.insert(other, other_process);
        }
        if self.scene.kill(pid)? {
            self.scene.harm().count(kind);
        }
        Ok(())
    }

    /// Guard and worker in one instant, or the half that is left of a keeper.
    fn both_halves(&mut self, status: &Status, keeper: Option<(u32, u32)>) -> Result<()> {
        let lone = status.processes().find(|pid| self.left_alone.contains_key(pid));
        let halves = match (keeper, lone) {
            (_, Some(lone)) if self.random.one_in(2) => vec![lone],
            (Some((guard, worker)), _) => vec![guard, worker],
            (None, _) => return Ok(()),
        };
        let held: Vec<OwnedFd> = halves.iter().filter_map(|pid| pidfd(*pid).ok()).collect();
        if held.len() < halves.len() || !halves.iter().all(|pid| names(*pid, self.scene.root())) {
            return Ok(());
        }
        // A daemon that dies as well sees no end either.
        let daemon = self.random.one_in(3).then_some(status.daemon);
        for process in &held {
            let _ = pidfd_send_signal(process, Signal::KILL);
        }
        daemon.map_or(Ok(()), |daemon| self.daemon(daemon))?;
        for process in &held {
            exited(process, Duration::from_secs(5))?;
        }
        let now = boot_ms()?;
        let mut harm = self.scene.harm();
        harm.orphaned.push(now);
        halves.iter().for_each(|_| harm.count("both halves"));
        Ok(())
    }

    /// The daemon is halted meanwhile, so that nobody reads what is there before it is changed.
    fn flip(&mut self, daemon: u32, (guard, worker): (u32, u32)) -> Result<()> {
        let held: Vec<OwnedFd> = [daemon, guard, worker].iter().filter_map(|pid| pidfd(*pid).ok()).collect();
        let is_ours = [daemon, guard, worker].iter().all(|pid| names(*pid, self.scene.root()));
        let ([holder, halves @ ..], true) = (&held[..], is_ours && held.len() == 3) else { return Ok(()) };
        if pidfd_send_signal(holder, Signal::STOP).is_err() {
            return Ok(());
        }
        let flipped = self.flip_under(halves);
        self.scene.kill_daemon(daemon)?;
        let mut harm = self.scene.harm();
        harm.orphaned.push(boot_ms()?);
        for _ in 0..flipped? {
            harm.count("file damaged");
        }
        Ok(())
    }

    fn flip_under(&mut self, halves: &[OwnedFd]) -> Result<usize> {
        for process in halves {
            let _ = pidfd_send_signal(process, Signal::KILL);
            self.scene.harm().count("both halves");
        }
        for process in halves {
            exited(process, Duration::from_secs(5))?;
        }
        flipper::flip(&self.scene.data().join("keepers"), &mut self.random)
    }

    fn freeze(&mut self, daemon: u32, keeper: Option<(u32, u32)>) -> Result<()> {
        let mut candidates = vec![daemon];
        candidates.extend(keeper.iter().flat_map(|(guard, worker)| [*guard, *worker]));
        let pid = self.random.pick(&candidates);
        let Ok(process) = pidfd(pid) else { return Ok(()) };
        if !names(pid, self.scene.root()) || pidfd_send_signal(&process, Signal::STOP).is_err() {
            return Ok(());
        }
        let from = Instant::now();
        let time = match self.random.below(20) {
            0 => PATIENCE * 3,
            _ => self.random.up_to(Duration::from_millis(400)),
        };
        if pid == daemon {
            // Noted before it is over, for those who give up meanwhile. Without a keeper the owner serves.
            self.scene.harm().froze(from, from + time);
        }
        self.scene.harm().count("frozen");
        let and_kill = self.random.one_in(2);
        // In the middle: the next daemon comes to a keeper that still has unread what the last one wanted.
        let frozen = pause(time / 2);
        if and_kill && pid == daemon {
            self.daemon(daemon)?;
        } else if and_kill {
            // It may be another one by now, or none.
            let daemon = self.scene.daemon(&self.scene.data());
            daemon.map_or(Ok(()), |daemon| self.daemon(daemon))?;
        }
        let frozen = frozen.and_then(|()| pause(time / 2));
        let _ = pidfd_send_signal(&process, Signal::CONT);
        frozen
    }

    /// The instants that matter are short. Here there are many in a row: jobs end while the worker is frozen, or
    /// commands wait for the daemon, and whoever it is dies soon after it goes on.
    fn backlog(&mut self, daemon: u32, guard: u32, worker: u32) -> Result<()> {
        let of_worker = self.random.below(3) > 0;
        let pid = if of_worker { worker } else { daemon };
        let Ok(process) = pidfd(pid) else { return Ok(()) };
        if !names(pid, self.scene.root()) || pidfd_send_signal(&process, Signal::STOP).is_err() {
            return Ok(());
        }
        self.scene.harm().count("frozen");
        let frozen = pause(self.random.up_to(Duration::from_millis(150)));
        if of_worker {
            for target in self.scene.job_processes()?.iter().filter(|_| self.random.one_in(3)) {
                if self.scene.strike(target, Signal::KILL).is_some() {
                    self.scene.harm().count("job");
                }
            }
        }
        let _ = pidfd_send_signal(&process, Signal::CONT);
        let most = if of_worker { Duration::from_micros(300) } else { Duration::from_millis(5) };
        pause(self.random.up_to(most))?;
        if of_worker { self.half(worker, guard, "worker") } else { self.daemon(daemon) }?;
        frozen
    }

    fn stop(&self) -> Result<()> {
        let from = Instant::now();
        self.scene.harm().stopped_daemon(from, from);
        self.scene.call(&["daemon", "stop"])?;
        self.scene.harm().stopped_daemon(from, Instant::now());
        self.scene.harm().count("daemon stop");
        Ok(())
    }

    fn starters(&self, daemon: u32) -> Result<()> {
        self.daemon(daemon)?;
        let starters = (0..4).map(|_| Running::start(&mut self.scene.command(&["daemon", "start"])));
        for starter in starters.collect::<Result<Vec<_>>>()? {
            self.scene.said(starter, Instant::now())?;
        }
        self.scene.harm().count("starters");
        Ok(())
    }

    fn starting_daemon(&mut self, daemon: u32) -> Result<()> {
        self.daemon(daemon)?;
        let starter = Running::start(&mut self.scene.command(&["daemon", "start"]))?;
        starter.ends_within(self.random.up_to(Duration::from_millis(15)))?;
        for pid in crate::process::all_that_name(&self.scene.data())? {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.split(|byte| *byte == 0).any(|word| word == b"serve") {
                self.daemon(pid)?;
            }
        }
        self.scene.said(starter, Instant::now()).map(drop)
    }
}

fn status_of(directory: &Path) -> Option<Status> {
    Status::parse(&Api::new(&directory.join("sock")).get("/v1/daemon").ok()?)
}
