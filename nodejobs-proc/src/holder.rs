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
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
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
    /// Of a terminal: where the holder says what [`Opened`] is.
    opened: Option<OwnedFd>,
}

impl End {
    pub(crate) fn given(&self) -> Given {
        let fd = self.fd.as_raw_fd();
        match &self.opened {
            None => Given::Pipe(fd),
            Some(opened) => Given::Terminal { fd, opened: opened.as_raw_fd() },
        }
    }
}

/// What the holder of a terminal says to the child once its log is open: where the job's output begins in it, or why it could
/// not be opened. The log is the user's to place, so opening it may take for ever: it is the holder that does it.
pub(crate) struct Opened;

impl Opened {
    pub(crate) const LEN: usize = 16;

    fn encode(log: Result<u64, (Stage, i32)>) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        match log {
            Ok(start) => bytes[8..].copy_from_slice(&start.to_le_bytes()),
            Err((stage, errno)) => {
                bytes[0] = stage as u8;
                bytes[4..8].copy_from_slice(&errno.to_le_bytes());
            }
        }
        bytes
    }

    /// Allocates nothing, for the child of a launch.
    pub(crate) fn decode(bytes: &[u8; Self::LEN]) -> Result<u64, (Stage, i32)> {
        let [stage, _, _, _, errno @ .., _, _, _, _, _, _, _, _] = *bytes;
        match Stage::of(stage) {
            Some(stage) => Err((stage, i32::from_le_bytes(errno))),
            None => Ok(u64::from_le_bytes(std::array::from_fn(|at| bytes[8 + at]))),
        }
    }
}

/// What the holder of a terminal writes to.
pub(crate) struct Log<'a> {
    pub(crate) path: &'a CStr,
    /// Whether its directory is made if it is not there.
    pub(crate) makes_directory: bool,
}

/// Makes what a job reads from, and the process that holds it. As long as the end given back is open, it stays.
///
/// # Errors
/// With what could not be made. Nothing is left then.
pub(crate) fn start(
    held: Held,
    attempt: &AttemptId,
    directory: &Path,
    log: &Log<'_>,
    user: Option<&User>,
) -> Result<End, (Stage, io::Error)> {
    let at_input = |error: io::Error| (Stage::Stdin, error);
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| at_input(error.into()));
    let (side, end) = match held {
        Held::Pipe => {
            let (read, write) = pipe()?;
            fcntl_setfl(&write, OFlags::NONBLOCK).map_err(|error| at_input(error.into()))?;
            (Side::Pipe(write), End { fd: read, opened: None })
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
            let (opened, says_opened) = pipe()?;
            (Side::Terminal { master, says_opened }, End { fd: slave, opened: Some(opened) })
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
            sys::close_all_but(&mut side.descriptors().chain([listener.as_raw_fd()]).collect::<Vec<_>>());
            let _ = rustix::process::setsid();
            let _ = rustix::thread::set_name(c"nodejobs-holder");
            match side.into_line(log) {
                Some(line) => Holder::new(line, listener, path, inode).serve(),
                None => {
                    let _ = std::fs::remove_file(&path);
                    std::process::exit(1)
                }
            }
        }
        Err(error) => {
            let _ = std::fs::remove_file(&path);
            Err((Stage::Fork, error))
        }
    }
}

/// What the holder is given to hold.
enum Side {
    Pipe(OwnedFd),
    Terminal { master: OwnedFd, says_opened: OwnedFd },
}

impl Side {
    fn descriptors(&self) -> impl Iterator<Item = RawFd> {
        let (line, opened) = match self {
            Side::Pipe(write) => (write, None),
            Side::Terminal { master, says_opened } => (master, Some(says_opened)),
        };
        std::iter::once(line).chain(opened).map(AsRawFd::as_raw_fd)
    }

    /// In the holder: `None` if its log cannot be opened, which the child has been told.
    fn into_line(self, log: &Log<'_>) -> Option<Line> {
        let (master, says_opened) = match self {
            Side::Pipe(write) => return Some(Line::pipe(write)),
            Side::Terminal { master, says_opened } => (master, says_opened),
        };
        let opened = log.open();
        let said = match &opened {
            Ok(file) => Ok(file.metadata().map_or(0, |metadata| metadata.len())),
            Err((stage, error)) => Err((*stage, error.raw_os_error().unwrap_or(libc::EIO))),
        };
        let _ = rustix::io::write(&says_opened, &Opened::encode(said));
        Some(Line::terminal(master, opened.ok()?))
    }
}

impl Log<'_> {
    fn open(&self) -> Result<File, (Stage, io::Error)> {
        let path = Path::new(OsStr::from_bytes(self.path.to_bytes()));
        let mut options = File::options();
        // A named pipe that nobody reads must not keep the holder waiting.
        options.append(true).create(true).mode(0o600).custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK);
        let opened = options.open(path);
        let directory = path.parent().filter(|_| self.makes_directory);
        if let (Err(error), Some(directory)) = (&opened, directory)
            && error.kind() == io::ErrorKind::NotFound
        {
            let mut builder = std::fs::DirBuilder::new();
            let made = builder.recursive(true).mode(0o700).create(directory);
            made.map_err(|error| (Stage::LogDirectory, error))?;
            return options.open(path).map_err(|error| (Stage::Stdout, error));
        }
        opened.map_err(|error| (Stage::Stdout, error))
    }
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
