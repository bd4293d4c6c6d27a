//! What a holder holds: the writing end of a pipe, or the other side of a terminal, whose output it copies to the log.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nodejobs_core::holder::MESSAGE_LEN;
use nodejobs_core::spec::TerminalSize;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer};
use rustix::termios::{SpecialCodeIndex, Winsize, tcgetattr, tcgetsid, tcgetwinsize, tcsetwinsize};

use super::recent::{KEPT, Recent};

/// Once so much is read, others get their turn: before what they have not seen is forgotten.
const TURN: usize = KEPT / 4;

/// What is held.
pub(super) enum Line {
    Pipe(OwnedFd),
    Terminal(Box<Terminal>),
}

pub(super) struct Terminal {
    master: OwnedFd,
    log: File,
    /// Read, and not yet in the log, because it could not be written.
    unwritten: Vec<u8>,
    pub(super) recent: Recent,
    /// The session's leader, which is the job's main process, as far as it is watched.
    leader: Option<OwnedFd>,
    /// It has ended: whoever has the terminal open was left behind.
    pub(super) has_ended: bool,
    /// Nobody else has the terminal open, and the leader lives: this end of our own keeps it from being over.
    slave: Option<OwnedFd>,
}

/// Whether there is anybody at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Open,
    Closed,
}

pub(super) fn set_size(terminal: &OwnedFd, size: TerminalSize) -> io::Result<()> {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    Ok(tcsetwinsize(terminal, size)?)
}

impl Line {
    pub(super) fn pipe(write: OwnedFd) -> Self {
        Line::Pipe(write)
    }

    pub(super) fn terminal(master: OwnedFd, log: File) -> Self {
        let (unwritten, recent, has_ended) = (Vec::new(), Recent::default(), false);
        Line::Terminal(Box::new(Terminal {
            master,
            log,
            unwritten,
            recent,
            leader: None,
            has_ended,
            slave: None,
        }))
    }

    pub(super) fn as_terminal(&self) -> Option<&Terminal> {
        match self {
            Line::Pipe(_) => None,
            Line::Terminal(terminal) => Some(terminal),
        }
    }

    pub(super) fn as_terminal_mut(&mut self) -> Option<&mut Terminal> {
        match self {
            Line::Pipe(_) => None,
            Line::Terminal(terminal) => Some(terminal),
        }
    }

    /// Gives the job some of these bytes, as many as it takes now.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let fd: BorrowedFd<'_> = match self {
            Line::Pipe(write) => write.as_fd(),
            Line::Terminal(terminal) => terminal.master.as_fd(),
        };
        Ok(rustix::io::retry_on_intr(|| rustix::io::write(fd, bytes))?)
    }

    /// What has to be given to say that nothing follows; `None` where closing says it.
    pub(super) fn end_character(&self) -> Option<u8> {
        match self {
            Line::Pipe(_) => None,
            // Whatever the job has made of Ctrl-D.
            Line::Terminal(terminal) => Some(
                tcgetattr(&terminal.master).map_or(4, |modes| modes.special_codes[SpecialCodeIndex::VEOF]),
            ),
        }
    }
}

impl Terminal {
    pub(super) fn master(&self) -> BorrowedFd<'_> {
        self.master.as_fd()
    }

    pub(super) fn leader(&self) -> Option<BorrowedFd<'_>> {
        self.leader.as_ref().map(AsFd::as_fd)
    }

    /// Whether there is output that the log did not take.
    pub(super) fn is_stuck(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// Sets the size; whoever shows the terminal anew is drawn on anew, also at the size it had.
    pub(super) fn show_at(&self, size: TerminalSize, is_new: bool) {
        let is_same = |old: Winsize| (old.ws_row, old.ws_col) == (size.rows, size.columns);
        if is_new && tcgetwinsize(&self.master).is_ok_and(is_same) {
            // Only a change is told to the programs there.
            let _ = set_size(&self.master, TerminalSize { rows: size.rows.saturating_add(1), ..size });
        }
        let _ = set_size(&self.master, size);
    }

    /// Copies what is there to the log.
    pub(super) fn copy(&mut self) -> End {
        self.write_log();
        let mut buffer = [0; MESSAGE_LEN - 1];
        let mut copied = 0;
        while copied < TURN && !self.is_stuck() {
            match rustix::io::read(&self.master, &mut buffer) {
                Ok(length) if length > 0 => {
                    copied += length;
                    self.recent.push(&buffer[..length]);
                    self.unwritten.extend_from_slice(&buffer[..length]);
                    self.write_log();
                }
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return End::Open,
                // Nobody has it open.
                Ok(_) | Err(_) => return self.keep_open(),
            }
        }
        End::Open
    }

    /// Whether everything that was written to it is in the log.
    pub(super) fn is_copied(&self) -> bool {
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        let nothing = Timespec { tv_sec: 0, tv_nsec: 0 };
        let waits = poll(&mut fds, Some(&nothing)).is_ok_and(|_| fds[0].revents().contains(PollFlags::IN));
        !self.is_stuck() && !waits
    }

    fn write_log(&mut self) {
        let mut written = 0;
        while written < self.unwritten.len() {
            match self.log.write(&self.unwritten[written..]) {
                Ok(length) if length > 0 => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // After the job's end it is as if its own last write had failed.
                Ok(_) | Err(_) if self.has_ended => written = self.unwritten.len(),
                // The disk is full, most likely. The job is held up at its next output, until there is room or it ends.
                Ok(_) | Err(_) => {
                    self.watch_leader();
                    break;
                }
            }
        }
        self.unwritten.drain(..written);
    }

    /// Begins to watch for the end of the leader.
    pub(super) fn watch_leader(&mut self) {
        if self.leader.is_none() && !self.has_ended {
            let leader = tcgetsid(&self.master).and_then(|leader| pidfd_open(leader, PidfdFlags::empty()));
            self.has_ended = leader.is_err();
            self.leader = leader.ok();
        }
    }

    /// The leader has ended.
    pub(super) fn let_go(&mut self) {
        (self.leader, self.slave, self.has_ended) = (None, None, true);
    }

    /// A job that has redirected all of its output has not ended, and a terminal that goes away would end it by SIGHUP.
    fn keep_open(&mut self) -> End {
        if self.slave.is_some() {
            return End::Open;
        }
        self.watch_leader();
        if self.leader.as_ref().is_none_or(has_ended) {
            return End::Closed;
        }
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        self.slave = ioctl_tiocgptpeer(&self.master, flags).ok();
        if self.slave.is_some() { End::Open } else { End::Closed }
    }
}

fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    let nothing = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&nothing)).is_ok_and(|ready| ready > 0)
}
