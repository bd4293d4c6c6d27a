//! A connection to the terminal of a job.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nodejobs_core::holder::{FromHolder, MAX_INPUT, MESSAGE_LEN, ToHolder};
use nodejobs_core::spec::TerminalSize;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv, send,
    socket_with,
};

use crate::api::{Problem, ProblemKind, TerminalPlace};

/// The terminal of a running job: what is read is its output, beginning with the last lines, and what is written is typed.
/// Several may be attached at once. It goes on when the owner ends, and dropping it ends nothing but the connection.
///
/// ```no_run
/// use nodejobs::client::Client;
/// use nodejobs::spec::TerminalSize;
///
/// let client = Client::connect("/var/lib/build/jobs".as_ref())?;
/// let terminal = client.attach("repl", TerminalSize::default())?;
/// terminal.write_all(b"1 + 2\n")?;
/// while let Some(output) = terminal.read()? {
///     print!("{}", String::from_utf8_lossy(&output));
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Terminal {
    socket: OwnedFd,
    place: TerminalPlace,
}

impl Terminal {
    pub(crate) fn attach(place: TerminalPlace, size: TerminalSize) -> Result<Self, Problem> {
        let attached = || {
            let socket = connect_to(Path::new(OsStr::from_bytes(place.socket.as_bytes())))?;
            let attach = ToHolder::Attach { size, lines: size.rows };
            send(&socket, &attach.encode(), SendFlags::NOSIGNAL)?;
            io::Result::Ok(socket)
        };
        match attached() {
            Ok(socket) => Ok(Self { socket, place }),
            Err(error) => {
                let is_gone =
                    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused);
                let kind = if is_gone { ProblemKind::Conflict } else { ProblemKind::Failed };
                let why = if is_gone {
                    "has closed its terminal".to_owned()
                } else {
                    format!("cannot be reached: {error}")
                };
                Err(Problem::new(kind, format!("job '{}' {why}", place.self_id)))
            }
        }
    }

    /// Whose terminal it is.
    pub fn place(&self) -> &TerminalPlace {
        &self.place
    }

    /// Waits for output; `None` once the job has closed its terminal.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn read(&self) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.try_read() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for(PollFlags::IN)?,
                read => return read,
            }
        }
    }

    /// The same without waiting.
    ///
    /// # Errors
    /// `WouldBlock` if there is none yet; others when the connection breaks.
    pub fn try_read(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; MESSAGE_LEN];
        loop {
            let length = match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::CONNRESET) => 0,
                Err(error) => return Err(error.into()),
            };
            if length == 0 {
                return Ok(None);
            }
            match FromHolder::decode(&buffer[..length]) {
                Ok(FromHolder::Output(output)) => return Ok(Some(output.to_vec())),
                // Of what was written.
                Ok(FromHolder::Taken(_)) => {}
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    /// Types all of these, and waits for room as long as that takes.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_write(bytes) {
                Ok(length) => bytes = &bytes[length..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait_for(PollFlags::OUT)?,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Types some of these, without waiting; how many.
    ///
    /// # Errors
    /// `WouldBlock` if there is no room now; others when the connection breaks.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let piece = &bytes[..bytes.len().min(MAX_INPUT)];
        if !piece.is_empty() {
            self.say(ToHolder::Input(piece))?;
        }
        Ok(piece.len())
    }

    /// Sets the size of the job's terminal. Of several who are attached, the last one counts.
    ///
    /// # Errors
    /// When the connection breaks, or there is no room now.
    pub fn resize(&self, size: TerminalSize) -> io::Result<()> {
        self.say(ToHolder::Resize(size))
    }

    fn say(&self, message: ToHolder<'_>) -> io::Result<()> {
        send(&self.socket, &message.encode(), SendFlags::NOSIGNAL | SendFlags::DONTWAIT)?;
        Ok(())
    }

    fn wait_for(&self, flags: PollFlags) -> io::Result<()> {
        rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&self.socket, flags)], None))?;
        Ok(())
    }
}

impl AsFd for Terminal {
    /// To wait on.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn connect_to(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    if path.as_os_str().len() < 108 {
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        return Ok(socket);
    }
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::NotFound.into());
    };
    // A socket address has 108 bytes. The descriptor stands for the directory only during the call.
    let handle =
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(handle.as_raw_fd().to_string()).join(name);
    connect(&socket, &SocketAddrUnix::new(short)?)?;
    Ok(socket)
}
