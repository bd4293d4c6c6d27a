//! Ending small processes of the owner's own, such as hooks, by the mark in their environment: no keeper has them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nodejobs_core::signal::Signal;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::identity::{ProcStat, if_there, open_pidfd, send_signal};
use crate::tree::{DAEMON_MARK, marks_of};

pub use crate::launch::MARK_VARIABLE;

/// Who is still there so long after SIGKILL cannot be killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// Between two looks at those that cannot be signalled.
const PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };

/// Kills every process that carries a mark which begins so, with all that it has started. Daemons are none of it. Gives the
/// numbers of those that could not be killed; blocks until then, two seconds at most.
///
/// # Errors
/// When there is no room to look.
pub fn kill_marked(prefix: &str) -> io::Result<Vec<u32>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let halted = halted(prefix, deadline)?;
        // Also when the time is up: nobody is left halted.
        for pidfd in halted.values() {
            let _ = send_signal(pidfd, Signal::KILL);
        }
        let nobody_hears = halted.is_empty();
        wait_for(&halted.into_values().collect::<Vec<_>>(), deadline)?;
        let left = find(prefix)?;
        if left.is_empty() || Instant::now() >= deadline {
            return Ok(left.iter().map(|stat| stat.pid).collect());
        }
        if nobody_hears {
            // They take no signal from us, or were being executed when we looked.
            let _ = poll(&mut [], Some(&PAUSE));
        }
    }
}

/// Halts them, until there is nobody who is not: whoever runs may start another, which would be nobody's once its parent
/// is killed.
fn halted(prefix: &str, deadline: Instant) -> io::Result<HashMap<u32, OwnedFd>> {
    let mut halted = HashMap::new();
    loop {
        let mut is_new = false;
        for stat in
            find(prefix)?.into_iter().filter(|stat| !halted.contains_key(&stat.pid)).collect::<Vec<_>>()
        {
            let Some(pidfd) = if_there(open_pidfd(stat.pid))? else { continue };
            // The number may be a stranger's by now.
            let is_it = ProcStat::read(stat.pid)?.is_some_and(|now| now.start_ticks == stat.start_ticks);
            if is_it && send_signal(&pidfd, Signal::STOP).is_ok() {
                halted.insert(stat.pid, pidfd);
                is_new = true;
            }
        }
        if !is_new || Instant::now() >= deadline {
            return Ok(halted);
        }
    }
}

/// Returns when all of them have ended, or it is time.
fn wait_for(processes: &[OwnedFd], deadline: Instant) -> io::Result<()> {
    for process in processes {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut polled = [PollFd::new(process, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut polled, Some(&timeout)))?;
    }
    Ok(())
}

/// Those that carry such a mark, and everybody below them.
fn find(prefix: &str) -> io::Result<Vec<ProcStat>> {
    let mut all: HashMap<u32, ProcStat> = HashMap::new();
    let (mut waiting, mut daemons) = (Vec::new(), HashSet::new());
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Some(stat) = ProcStat::read(pid)?.filter(|stat| !stat.is_dead()) else { continue };
        for mark in marks_of(pid)? {
            if mark.starts_with(prefix.as_bytes()) {
                waiting.push(pid);
            } else if mark == DAEMON_MARK.as_bytes() {
                daemons.insert(pid);
            }
        }
        all.insert(pid, stat);
    }
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for stat in all.values() {
        children.entry(stat.parent).or_default().push(stat.pid);
    }
    let mut found = HashMap::new();
    while let Some(pid) = waiting.pop() {
        if daemons.contains(&pid) || found.contains_key(&pid) {
            continue;
        }
        if let Some(stat) = all.remove(&pid) {
            found.insert(pid, stat);
            waiting.extend(children.get(&pid).into_iter().flatten());
        }
    }
    Ok(found.into_values().collect())
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn marked_ones_and_what_they_started_are_killed_and_nobody_else() {
        let prefix = format!("test-{}:.hook:", std::process::id());
        // Nothing else tells those that have no environment.
        let seconds = format!("1000.{}", std::process::id());
        let start = |mark: &str, script: &str| {
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", script])
                .env(MARK_VARIABLE, mark)
                .stdout(Stdio::piped())
                .stderr(Stdio::null());
            command.spawn().expect("sh starts")
        };
        let mut ours = start(
            &format!("{prefix}7"),
            &format!("env -i setsid sleep {seconds} & env -i sh -c 'echo ready; sleep {seconds}; :'; :"),
        );
        let mut other = start(&format!("{prefix}8"), "echo ready; sleep 1000; :");
        for child in [&mut ours, &mut other] {
            let mut line = String::new();
            let stdout = child.stdout.as_mut().expect("piped");
            io::BufRead::read_line(&mut io::BufReader::new(stdout), &mut line).expect("read");
        }
        assert!(find(&format!("{prefix}7")).expect("looked").len() >= 3);
        assert_eq!(kill_marked(&format!("{prefix}7")).expect("looked"), Vec::<u32>::new());
        // How it ended is a matter of who was killed first.
        ours.wait().expect("ended");
        assert!(find(&format!("{prefix}7")).expect("looked").is_empty());
        let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
        let command_lines =
            pids.filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok());
        assert_eq!(command_lines.filter(|line| line.contains(&seconds)).count(), 0, "somebody is left");
        assert!(other.try_wait().expect("looked").is_none(), "another mark");
        assert_eq!(kill_marked(&prefix).expect("looked"), Vec::<u32>::new());
        other.wait().expect("ended");
    }
}
