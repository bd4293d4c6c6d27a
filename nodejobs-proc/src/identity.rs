//! Knowing one process from every other, also after a long time and after process ids were used again.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nodejobs_core::job::Process;
use nodejobs_core::time::BootTime;
use rustix::process::{Pid, PidfdFlags, Signal as OsSignal};

use crate::machine::Machine;
use crate::{proc_file, sys};

/// What identifies a process of this machine for ever.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LocalProcess {
    pub(crate) boot_id: String,
    /// Inode of the pid namespace in which the number is meant.
    pub(crate) pid_namespace: u64,
    pub(crate) pid: u32,
    /// Field 22 of its `stat`, in clock ticks since boot.
    pub(crate) start_ticks: u64,
    /// Its number in pidfs, where the kernel gives one.
    pub(crate) pidfs: Option<u64>,
}

/// What became of a process that is looked for.
#[derive(Debug)]
pub(crate) enum Found {
    /// It is there; the descriptor means it and no other.
    Alive(OwnedFd),
    /// It has ended and is waiting to be collected.
    Zombie(OwnedFd),
    /// It is gone.
    Gone,
    /// It belongs to another boot or another pid namespace, so from here nothing can be said or done.
    OutOfReach,
}

impl LocalProcess {
    /// One of this boot that nobody can name: of no number, and older than all.
    pub(crate) fn unknown(machine: &Machine) -> Self {
        let boot_id = machine.boot_id.clone();
        Self { boot_id, pid_namespace: machine.pid_namespace, pid: u32::MAX, start_ticks: 0, pidfs: None }
    }

    /// When it was started, in this boot, rounded down.
    pub(crate) fn start(&self) -> BootTime {
        BootTime(self.start_ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second())
    }

    pub(crate) fn is_unknown(&self) -> bool {
        self.pid == u32::MAX
    }

    /// The opaque form that the store keeps.
    pub(crate) fn to_process(&self) -> Process {
        let pidfs = self.pidfs.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let Self { boot_id, pid_namespace, pid, start_ticks, .. } = self;
        Process { handle: format!("{boot_id}:{pid_namespace}:{pid}:{start_ticks}:{pidfs}"), pid: Some(*pid) }
    }

    /// From the form that the store keeps; `None` if another backend wrote it.
    pub(crate) fn from_process(process: &Process) -> Option<Self> {
        let mut parts = process.handle.split(':');
        let boot_id = parts.next()?.to_owned();
        let pid_namespace = parts.next()?.parse().ok()?;
        let pid = parts.next()?.parse().ok()?;
        let start_ticks = parts.next()?.parse().ok()?;
        let pidfs = match parts.next()? {
            "-" => None,
            number => Some(number.parse().ok()?),
        };
        parts.next().is_none().then_some(Self { boot_id, pid_namespace, pid, start_ticks, pidfs })
    }

    /// Looks for this very process.
    ///
    /// # Errors
    /// When there is no room to look, which says nothing about the process.
    pub(crate) fn find(&self, machine: &Machine) -> io::Result<Found> {
        if self.boot_id != machine.boot_id || self.pid_namespace != machine.pid_namespace {
            return Ok(if self.boot_id == machine.boot_id { Found::OutOfReach } else { Found::Gone });
        }
        // Opened first and checked afterwards: from here on the descriptor cannot change its meaning.
        let Some(pidfd) = if_there(open_pidfd(self.pid))? else { return Ok(Found::Gone) };
        if machine.use_pidfs && self.has_another_number(&pidfd) {
            return Ok(Found::Gone);
        }
        Ok(match ProcStat::read(self.pid)? {
            Some(stat) if stat.start_ticks != self.start_ticks => Found::Gone,
            Some(stat) if stat.is_dead() => Found::Zombie(pidfd),
            Some(_) => Found::Alive(pidfd),
            None => Found::Gone,
        })
    }

    /// Whether the process with its pid, as it was found just now in its own pid namespace, is this very process; `None`
    /// if it has gone since.
    ///
    /// # Errors
    /// When there is no room to look.
    pub(crate) fn is(&self, stat: &ProcStat) -> io::Result<Option<bool>> {
        if stat.start_ticks != self.start_ticks {
            return Ok(Some(false));
        }
        // A tick is a hundredth of a second: enough for a number to come again where there are few.
        let pidfd = if_there(open_pidfd(self.pid))?;
        Ok(pidfd.map(|pidfd| !self.has_another_number(&pidfd)))
    }

    /// Where the kernel numbers processes in pidfs, it never gives a number again.
    fn has_another_number(&self, pidfd: &OwnedFd) -> bool {
        self.pidfs
            .is_some_and(|expected| sys::pidfs_number(pidfd.as_fd()).is_ok_and(|number| number != expected))
    }
}

/// Tells "there is none, or none that we may look at", which is `None`, from "there is no room to look": out of
/// descriptors or memory, a process that is there must not be taken for one that is gone.
pub(crate) fn if_there<T>(looked: io::Result<T>) -> io::Result<Option<T>> {
    match looked {
        Ok(found) => Ok(Some(found)),
        Err(error) => match error.raw_os_error() {
            Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Err(error),
            _ => Ok(None),
        },
    }
}

/// Whether this very process is there and has not ended. One that only has its number is not it; of one that is out of
/// reach, in another pid namespace, it cannot be said.
///
/// # Errors
/// When there is no room to look.
pub fn is_alive(process: &Process, machine: &Machine) -> io::Result<bool> {
    match LocalProcess::from_process(process) {
        Some(known) => Ok(matches!(known.find(machine)?, Found::Alive(_))),
        None => Ok(false),
    }
}

/// A descriptor for whichever process has this number now.
pub(crate) fn open_pidfd(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// Sends a signal to the process that the descriptor means. One that has ended already is no error.
pub(crate) fn send_signal(pidfd: &OwnedFd, signal: nodejobs_core::signal::Signal) -> io::Result<()> {
    let Some(signal) = OsSignal::from_named_raw(signal.number()) else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    match rustix::process::pidfd_send_signal(pidfd, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The fields of `/proc/PID/stat` that matter here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProcStat {
    pub(crate) pid: u32,
    pub(crate) name: String,
    pub(crate) state: u8,
    pub(crate) parent: u32,
    pub(crate) session: u32,
    pub(crate) threads: u32,
    pub(crate) start_ticks: u64,
    /// Processor time so far, with that of children it has collected, in clock ticks.
    pub(crate) cpu_ticks: u64,
    /// Wait status of a zombie; 0 where we may not know.
    pub(crate) exit_code: i32,
}

impl ProcStat {
    /// `None` if there is no such process, or none we may look at.
    ///
    /// # Errors
    /// When there is no room to look.
    pub(crate) fn read(pid: u32) -> io::Result<Option<Self>> {
        let bytes = if_there(proc_file::read_piece(&format!("/proc/{pid}/stat")))?;
        Ok(bytes.and_then(|bytes| Self::parse(pid, &bytes)))
    }

    /// Whether it has ended, collected or not. The state is the first thread's, which may end before others.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X') && self.threads <= 1
    }

    fn parse(pid: u32, bytes: &[u8]) -> Option<Self> {
        // The name is in parentheses and may contain anything, also parentheses and spaces.
        let open = bytes.iter().position(|byte| *byte == b'(')?;
        let close = bytes.iter().rposition(|byte| *byte == b')')?;
        let name = String::from_utf8_lossy(bytes.get(open + 1..close)?).into_owned();
        let rest = std::str::from_utf8(bytes.get(close + 1..)?).ok()?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // Fields 14 to 17: own and collected children's, each in user and in system mode.
        let cpu_ticks = fields.get(11..15)?.iter().filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
        Some(Self {
            pid,
            name,
            state: *fields.first()?.as_bytes().first()?,
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
            start_ticks: fields.get(19)?.parse().ok()?,
            cpu_ticks,
            exit_code: fields.get(49).and_then(|text| text.parse().ok()).unwrap_or(0),
        })
    }
}

/// Field 22 of the bytes of a `stat` file. Allocates nothing, for the child of a launch.
pub(crate) fn start_ticks_of_stat(bytes: &[u8]) -> Option<u64> {
    let close = bytes.iter().rposition(|byte| *byte == b')')?;
    let mut fields = bytes.get(close + 2..)?.split(|byte| *byte == b' ');
    let digits = fields.nth(19)?;
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit <= 9)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_full_of_parentheses_and_spaces_is_parsed() {
        let mut line = b"7 (a) b (c) S 1 7 9 0 -1 4194560 1 0 0 0 5 4 3 2 20 0 1 0 4711 ".to_vec();
        line.extend_from_slice(&b"0 ".repeat(29));
        line.extend_from_slice(b"256\n");
        let stat = ProcStat::parse(7, &line).expect("it is a stat line");
        assert_eq!((stat.name.as_str(), stat.parent, stat.session), ("a) b (c", 1, 9));
        assert_eq!((stat.start_ticks, stat.cpu_ticks, stat.exit_code), (4711, 14, 256));
        assert_eq!(start_ticks_of_stat(&line), Some(4711));
        assert_eq!(start_ticks_of_stat(b"7 (x"), None);
    }

    #[test]
    fn a_process_whose_first_thread_has_ended_lives_on_in_the_others() {
        let stat = |threads: u32| {
            let line =
                format!("7 (a) Z 1 7 7 0 -1 0 1 0 0 0 0 0 0 0 20 0 {threads} 0 4711 {}", "0 ".repeat(30));
            ProcStat::parse(7, line.as_bytes()).expect("it is a stat line")
        };
        assert!(!stat(2).is_dead());
        assert!(stat(1).is_dead() && stat(0).is_dead());
    }

    #[test]
    fn this_process_is_found_and_one_that_only_shares_its_number_is_not() {
        let machine = Machine::read().expect("this machine");
        let stat = ProcStat::read(std::process::id()).expect("room").expect("this process");
        let this = LocalProcess {
            boot_id: machine.boot_id.clone(),
            pid_namespace: machine.pid_namespace,
            pid: stat.pid,
            start_ticks: stat.start_ticks,
            pidfs: None,
        };
        assert_eq!(LocalProcess::from_process(&this.to_process()), Some(this.clone()));
        assert!(matches!(this.find(&machine), Ok(Found::Alive(_))));
        let impostor = LocalProcess { start_ticks: stat.start_ticks + 1, ..this.clone() };
        assert!(matches!(impostor.find(&machine), Ok(Found::Gone)));
        let before_reboot = LocalProcess { boot_id: "another".to_owned(), ..this.clone() };
        assert!(matches!(before_reboot.find(&machine), Ok(Found::Gone)));
        let is_alive = |process: &LocalProcess| is_alive(&process.to_process(), &machine).expect("room");
        assert!(is_alive(&this) && !is_alive(&impostor));
    }
}
