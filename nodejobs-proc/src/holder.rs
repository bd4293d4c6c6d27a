//! The holder of a job's input: one small process for each job with a pipe or a terminal, and none for others.
//!
//! Owner, guard and worker may die at any instant, and the job's input must stay open. So the end of it that is not the
//! job's is in a process that has no reason to die either: the worker forks it just before it makes the job, and it leaves
//! by itself once nobody has the other end. It is nobody's keeper and no part of the job's tree: its session is its own
//! and it has no mark. What it is told is in [`nodejobs_core::holder`].

mod client;
mod line;
mod recent;
mod serve;

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nodejobs_core::backend::User;
use nodejobs_core::holder::{FromHolder, MESSAGE_LEN, SOCKET_ENDING, ToHolder, socket_name};
use nodejobs_core::id::AttemptId;
use rustix::fs::{OFlags, Uid, fchown, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::journal::Stage;
use crate::protocol::Held;
use crate::socket;
use crate::sys::child::Given;
use crate::sys::{self, Forked};
use line::Line;
use serve::Holder;

/// The end that the child of a launch gets.
pub(crate) struct End {
    fd: OwnedFd,
    terminal: Option<u64>,
}

impl End {
    pub(crate) fn given(&self) -> Given {
        Given { fd: self.fd.as_raw_fd(), terminal: self.terminal }
    }
}

/// Makes what a job reads from, and the process that holds it. As long as the end given back is open, it stays.
///
/// # Errors
/// With what could not be made. Nothing is left then.
pub(crate) fn start(
    held: Held,
    attempt: &AttemptId,
    directory: &Path,
    log: &CStr,
    user: Option<&User>,
) -> Result<End, (Stage, io::Error)> {
    let at_input = |error: io::Error| (Stage::Stdin, error);
    let (line, end) = match held {
        Held::Pipe => {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| at_input(error.into()))?;
            fcntl_setfl(&write, OFlags::NONBLOCK).map_err(|error| at_input(error.into()))?;
            (Line::pipe(write), End { fd: read, terminal: None })
        }
        Held::Terminal(size) => {
            let open = || -> io::Result<(OwnedFd, OwnedFd)> {
                let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
                let master = openpt(flags)?;
                unlockpt(&master)?;
                let slave = ioctl_tiocgptpeer(&master, flags)?;
                fcntl_setfl(&master, OFlags::RDWR | OFlags::NONBLOCK)?;
                line::set_size(&master, size)?;
                if let Some(user) = user {
                    // As a login does it, so that the job can open its terminal by name.
                    fchown(&slave, Some(Uid::from_raw(user.uid)), None)?;
                }
                Ok((master, slave))
            };
            let (master, slave) = open().map_err(at_input)?;
            let log = open_log(log).map_err(|error| (Stage::Stdout, error))?;
            let log_start = log.metadata().map_or(0, |metadata| metadata.len());
            (Line::terminal(master, log), End { fd: slave, terminal: Some(log_start) })
        }
    };
    let name = socket_name(attempt);
    let path = directory.join(&name);
    // Of an earlier job of that id, or of a holder that was killed.
    let _ = std::fs::remove_file(&path);
    let listener = socket::listen(directory, &name).map_err(at_input)?;
    let inode = std::fs::metadata(&path).map_err(at_input)?.ino();
    match sys::fork() {
        Ok(Forked::Parent(_)) => Ok(end),
        Ok(Forked::Child) => {
            // The job's end is among what is closed.
            sys::close_all_but(&mut line.descriptors().chain([listener.as_raw_fd()]).collect::<Vec<_>>());
            let _ = rustix::process::setsid();
            let _ = rustix::thread::set_name(c"nodejobs-holder");
            Holder::new(line, listener, path, inode).serve()
        }
        Err(error) => {
            let _ = std::fs::remove_file(&path);
            Err((Stage::Fork, error))
        }
    }
}

fn open_log(path: &CStr) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = File::options();
    // A named pipe that nobody reads must keep neither the keeper nor the holder waiting.
    options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
    options.open(OsStr::from_bytes(path.to_bytes()))
}

/// Whether a file beside the keepers' own is the socket of a holder that is gone.
pub(crate) fn is_abandoned(name: &OsStr, path: &Path) -> bool {
    let (Some(directory), Some(name)) = (path.parent(), name.to_str()) else { return false };
    name.ends_with(SOCKET_ENDING)
        && socket::connect_at_once(directory, name)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// Connects to the holder of an attempt's input, for reading and writing that does not block.
///
/// # Errors
/// `NotFound` or `ConnectionRefused` if there is none: the attempt has none, or has closed its input.
pub fn connect(keepers: &Path, attempt: &AttemptId) -> io::Result<OwnedFd> {
    socket::connect_at_once(keepers, &socket_name(attempt))
}

/// Sends a message over a connection to a holder.
///
/// # Errors
/// `WouldBlock` if it does not fit now; others if the connection has ended.
pub fn send(socket: impl AsFd, message: ToHolder<'_>) -> io::Result<()> {
    socket::send(socket, &message.encode(), None, false)
}

/// How much was taken, by a packet that was received over a connection that is not attached.
///
/// # Errors
/// `ConnectionReset` of none: the connection has ended; `InvalidData` if it is not a holder's.
pub fn taken(packet: &[u8]) -> io::Result<u32> {
    match FromHolder::decode(packet) {
        Ok(FromHolder::Taken(count)) => Ok(count),
        _ if packet.is_empty() => Err(io::ErrorKind::ConnectionReset.into()),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// How long a holder may take to write down the output that there is. It waits for a full disk, and for nobody else.
const FLUSH_PATIENCE: Duration = Duration::from_secs(2);

/// Returns when everything that an ended attempt has written to its terminal is in its log. Blocks, two seconds at most:
/// a holder that is halted, or cannot write, is left to it.
pub fn flush(keepers: &Path, attempt: &AttemptId) {
    let flushed = || -> io::Result<()> {
        let socket = connect(keepers, attempt)?;
        fcntl_setfl(&socket, OFlags::RDWR)?;
        socket::set_read_timeout(&socket, Some(FLUSH_PATIENCE))?;
        send(&socket, ToHolder::Flush)?;
        socket::receive(&socket, &mut [0; MESSAGE_LEN]).map(drop)
    };
    // Most often it has left already, with everything written.
    let _ = flushed();
}
