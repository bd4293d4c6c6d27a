//! Who halts processes of ours: daemons, guards, workers, holders, commands, and children that are on their way to a program.
//! Meanwhile the owner may be killed and replaced; then they go on.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::{Signal, pidfd_send_signal};

use super::random::Random;
use super::scene::Scene;
use crate::process::{all_that_name, names, pause, pidfd};

/// How long most are halted at most.
const SHORT: Duration = Duration::from_millis(400);
/// Longer than a keeper may be silent.
const LONG: Duration = Duration::from_secs(3);
/// Longer than anybody waits for a keeper, if there is time for it.
const VERY_LONG: Duration = Duration::from_secs(12);

/// Halts, and lets go on, until the end.
pub(crate) fn halt(scene: &Scene) -> Result<()> {
    let mut random = Random::new(scene.seed, 1 << 42);
    while scene.goes_on() {
        pause(random.up_to(Duration::from_millis(500)))?;
        if random.one_in(4) {
            mount_hangs(scene, &mut random);
        }
        let Some(target) = find(scene, &mut random)? else { continue };
        let held = [Some(target), random.one_in(4).then(|| find(scene, &mut random)).transpose()?.flatten()];
        strike(scene, &mut random, held.into_iter().flatten().collect())?;
    }
    Ok(())
}

fn mount_hangs(scene: &Scene, random: &mut Random) {
    let Some(mount) = scene.mount() else { return };
    let time = match random.below(12) {
        0 => VERY_LONG.min(left(scene)),
        1..4 => LONG,
        _ => random.up_to(SHORT * 3),
    };
    mount.hang_until(Instant::now() + time);
    scene.harm().count("mount hangs");
}

fn left(scene: &Scene) -> Duration {
    scene.end.saturating_duration_since(Instant::now()) / 2
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// On its way from clone to execve.
    Child,
    Worker,
    Guard,
    /// A daemon, or a holder.
    Other,
    Command,
}

struct Target {
    pid: u32,
    role: Role,
    process: OwnedFd,
}

/// Somebody of ours; a child on its way if there is one.
fn find(scene: &Scene, random: &mut Random) -> Result<Option<Target>> {
    let ours = all_that_name(scene.root())?;
    let mut candidates: Vec<(u32, Role)> = ours.iter().map(|pid| (*pid, role(*pid))).collect();
    let children: Vec<_> = candidates.iter().filter(|(_, role)| *role == Role::Child).copied().collect();
    if !children.is_empty() && !random.one_in(3) {
        candidates = children;
    } else if random.one_in(6) {
        let is_command = |environment: &[u8]| {
            !environment.split(|byte| *byte == 0).any(|text| text.starts_with(b"NODEJOBS_MARK="))
        };
        let marked = scene.marked()?.into_iter().filter(|(_, environment)| is_command(environment));
        candidates = marked.map(|(pid, _)| (pid, Role::Command)).collect();
    }
    if candidates.is_empty() {
        return Ok(None);
    }
    let (pid, role) = random.pick(&candidates);
    let Ok(process) = pidfd(pid) else { return Ok(None) };
    // Once it is held, its number is its own.
    let is_ours = if role == Role::Command { scene.is_marked(pid) } else { names(pid, scene.root()) };
    Ok(is_ours.then_some(Target { pid, role, process }))
}

/// By its name and that of its parent: a child has the name of the worker until it executes its program.
fn role(pid: u32) -> Role {
    match (name(pid).as_str(), parent(pid).map(name)) {
        ("nodejobs-guard", _) => Role::Guard,
        ("nodejobs-worker", Some(parent)) if parent == "nodejobs-guard" => Role::Worker,
        (own, Some(parent)) if own == parent || parent == "nodejobs-worker" => Role::Child,
        ("nodejobs-worker", _) => Role::Worker,
        _ => Role::Other,
    }
}

fn name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim_end().to_owned()
}

fn parent(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok())
}

/// Halts them, has the owner replaced or not, and lets them go on.
fn strike(scene: &Scene, random: &mut Random, targets: Vec<Target>) -> Result<()> {
    let time = match random.below(30) {
        0 => VERY_LONG.min(left(scene)),
        1..6 => LONG.min(left(scene)),
        _ => random.up_to(SHORT),
    };
    let from = Instant::now();
    let daemon = scene.daemon(&scene.data());
    for target in &targets {
        if pidfd_send_signal(&target.process, Signal::STOP).is_err() {
            continue;
        }
        let kind = match target.role {
            Role::Child => "child halted",
            Role::Command => "command halted",
            _ => "halted",
        };
        scene.harm().count(kind);
        // A keeper that is halted, or a child of it, is nobody's excuse: the owner serves.
        if target.role == Role::Other {
            // Noted before it is over, for those who give up meanwhile.
            scene.harm().froze(from, from + time + Duration::from_millis(200));
        }
    }
    let halted = pause(time / 3);
    let mut replaced = Ok(());
    if random.one_in(2) {
        let daemon = daemon.or_else(|| scene.daemon(&scene.data()));
        replaced = daemon.map_or(Ok(false), |daemon| scene.kill_daemon(daemon)).map(drop);
        scene.harm().count("owner replaced");
    }
    let halted = halted.and_then(|()| pause((time / 3 * 2).saturating_sub(Duration::ZERO)));
    // Now and then one is killed as it is; of keepers only what the others may lose.
    for target in targets {
        if target.role == Role::Child && random.one_in(10) {
            scene.kill_child(&target.process, target.pid)?;
        }
        let _ = pidfd_send_signal(&target.process, Signal::CONT);
    }
    replaced.and(halted)
}
