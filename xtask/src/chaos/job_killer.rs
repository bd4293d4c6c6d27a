//! Who does harm to the processes of jobs.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::{Signal, pidfd_send_signal};

use super::random::Random;
use super::scene::Scene;
use crate::process::pause;

/// Kills and freezes processes of jobs until the end.
pub(crate) fn kill(scene: &Scene) -> Result<()> {
    let mut random = Random::new(scene.seed, 1 << 40);
    let mut frozen = Frozen::default();
    while scene.goes_on() {
        pause(random.up_to(Duration::from_millis(260)))?;
        frozen.thaw(Instant::now());
        let processes = scene.job_processes()?;
        for _ in 0..1 + random.below(2) {
            if processes.is_empty() {
                break;
            }
            let target = &processes[usize::try_from(random.below(processes.len() as u64))?];
            let signal = if random.one_in(5) { Signal::STOP } else { Signal::KILL };
            let Some(process) = scene.strike(target, signal) else { continue };
            let kind = if signal == Signal::KILL { "job" } else { "job frozen" };
            scene.harm().count(kind);
            if signal == Signal::STOP {
                let time = random.up_to(Duration::from_millis(700));
                frozen.0.push((process, Instant::now() + time));
            }
        }
    }
    Ok(())
}

/// What was frozen, and until when. All of it thaws when this is dropped.
#[derive(Default)]
struct Frozen(Vec<(OwnedFd, Instant)>);

impl Frozen {
    fn thaw(&mut self, now: Instant) {
        self.0.retain(|(process, until)| {
            let stays = *until > now;
            if !stays {
                // It may have been killed meanwhile.
                let _ = pidfd_send_signal(process, Signal::CONT);
            }
            stays
        });
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        for (process, _) in &self.0 {
            let _ = pidfd_send_signal(process, Signal::CONT);
        }
    }
}
