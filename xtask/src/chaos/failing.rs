//! Who has system calls of daemons and workers fail, by strace's fault injection: disks that are full or broken, too many
//! open files, no room for another process.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::process::{Signal, pidfd_send_signal};

use super::random::Random;
use super::scene::Scene;
use crate::process::{exited, names, pause, pidfd};
use crate::product::{Api, Status};

/// What fails, and how. The calls that wait for processes are left alone: what they tell is told once.
const OF_DAEMONS: &[&str] = &[
    "openat:error=EMFILE",
    "openat:error=EIO",
    "pwrite64,pwritev:error=ENOSPC",
    "pwrite64,pwritev:error=EIO",
    "fsync,fdatasync:error=EIO",
    "accept4:error=EMFILE",
    "socket:error=EMFILE",
    "fallocate,ftruncate:error=ENOSPC",
];
const OF_WORKERS: &[&str] = &[
    "clone,clone3,vfork,fork:error=EAGAIN",
    "openat:error=EMFILE",
    "pwrite64,pwritev:error=ENOSPC",
    "fallocate,ftruncate:error=ENOSPC",
    "accept4:error=EMFILE",
];

/// How long strace may take to let go.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whether there is a strace that may be used here.
fn is_possible() -> bool {
    let mut strace = Command::new("strace");
    strace.args(["-o", "/dev/null", "-e", "trace=none", "true"]);
    strace.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Has calls fail, now and then, until the end.
pub(crate) fn fail(scene: &Scene) -> Result<()> {
    if !is_possible() {
        eprintln!("chaos: without calls that fail: there is no strace that works here");
        return Ok(());
    }
    let mut random = Random::new(scene.seed, 1 << 43);
    while scene.goes_on() {
        pause(random.up_to(Duration::from_millis(1_500)))?;
        let status = Api::new(&scene.data().join("sock")).get("/v1/daemon").ok();
        let Some(status) = status.and_then(|answer| Status::parse(&answer)) else { continue };
        let workers: Vec<u32> = status.keepers.iter().filter_map(|keeper| keeper.worker).collect();
        let of_worker = !workers.is_empty() && random.one_in(2);
        let (pid, calls) = match of_worker {
            true => (random.pick(&workers), random.pick(OF_WORKERS)),
            false => (status.daemon, random.pick(OF_DAEMONS)),
        };
        let time = random.up_to(Duration::from_millis(250));
        let when = match random.below(3) {
            0 => "when=1".to_owned(),
            1 => "when=1+1".to_owned(),
            _ => format!("when={}+{}", 1 + random.below(4), 2 + random.below(4)),
        };
        fail_for(scene, pid, &format!("inject={calls}:{when}"), time)?;
    }
    Ok(())
}

fn fail_for(scene: &Scene, pid: u32, inject: &str, time: Duration) -> Result<()> {
    let Ok(process) = pidfd(pid) else { return Ok(()) };
    if !names(pid, scene.root()) {
        return Ok(());
    }
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Ok(()) };
    let mut strace = Command::new("strace");
    // Its threads, but not its children: those become jobs.
    for task in tasks.flatten() {
        strace.arg("-p").arg(task.file_name());
    }
    strace.args(["-qq", "-o", "/dev/null", "-e", inject]);
    let from = Instant::now();
    // Noted before it happens, for those who meet it; and what has failed is tried again for a while.
    scene.harm().failed_calls(from, from + time + Duration::from_secs(2));
    scene.harm().count("calls failing");
    let child = strace.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.context("cannot start strace")?;
    let paused = pause(Duration::from_millis(20) + time);
    let ended = end(&mut child);
    // One that was attached to when it was to be halted may have been left so.
    let _ = pidfd_send_signal(&process, Signal::CONT);
    scene.harm().failed_calls(from, Instant::now() + Duration::from_secs(2));
    paused.and(ended)
}

/// strace lets go of what it traces when it is asked to end. One that waits for somebody who is just dying does not hear it;
/// if it is killed, the kernel lets go for it.
fn end(strace: &mut Child) -> Result<()> {
    let process = pidfd(strace.id())?;
    let _ = pidfd_send_signal(&process, Signal::TERM);
    if !exited(&process, PATIENCE)? {
        let _ = pidfd_send_signal(&process, Signal::KILL);
    }
    strace.wait().context("cannot wait for strace")?;
    Ok(())
}
