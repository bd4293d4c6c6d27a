//! HTTP over a unix socket, for ureq. The traits of its `unversioned` module may change; they are used only here.

use std::io::{self, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvFlags, SendFlags, sockopt};
use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::stopped::{Waiting, WhenStopped};
use crate::api::SOCKET_NAME;

/// How much is read or written at once. Each connection has two of them, and most carry a few hundred bytes.
pub(super) const BUFFER_LEN: usize = 16 << 10;

/// Connects to the socket of one data directory, whatever the request's host.
#[derive(Debug)]
pub(super) struct UnixConnector {
    data_dir: PathBuf,
    /// The connection made ahead, so that its failure is told apart from a failing request.
    first: Mutex<Option<UnixStream>>,
    when_stopped: WhenStopped,
}

impl UnixConnector {
    pub(super) fn connect(data_dir: &Path) -> io::Result<Self> {
        let first = Mutex::new(Some(connect(data_dir)?));
        Ok(Self { data_dir: data_dir.to_owned(), first, when_stopped: WhenStopped::default() })
    }

    /// Whom to tell of a daemon that is stopped.
    pub(super) fn when_stopped(&self) -> WhenStopped {
        self.when_stopped.clone()
    }

    /// The other end of a thread that reads from the connection made ahead.
    #[cfg(feature = "local")]
    pub(super) fn hang_up(&self) -> io::Result<HangUp> {
        let first = self.first.lock().ok();
        let stream = first.as_ref().and_then(|first| first.as_ref()).ok_or(io::ErrorKind::NotConnected)?;
        Ok(HangUp(stream.try_clone()?))
    }
}

/// Ends a connection while somebody else reads from it.
#[cfg(feature = "local")]
#[derive(Debug)]
pub(crate) struct HangUp(UnixStream);

#[cfg(feature = "local")]
impl HangUp {
    /// Whoever reads meets the end.
    pub(crate) fn now(&self) {
        // One that has ended already is no error.
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }
}

fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let direct = data_dir.join(SOCKET_NAME);
    let stream = if direct.as_os_str().len() < 108 {
        UnixStream::connect(direct)?
    } else {
        // A socket address has 108 bytes. The descriptor stands for the directory only during the call.
        let handle =
            rustix::fs::open(data_dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let short = Path::new("/proc/self/fd").join(handle.as_raw_fd().to_string()).join(SOCKET_NAME);
        UnixStream::connect(short)?
    };
    // What is sent holds environments, so it goes to nobody else.
    let (peer, own) = (sockopt::socket_peercred(&stream)?.uid, rustix::process::geteuid());
    if peer == own || peer.is_root() || own.is_root() {
        Ok(stream)
    } else {
        let message = format!("the process that listens there belongs to user {}", peer.as_raw());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, message))
    }
}

impl Connector for UnixConnector {
    type Out = UnixTransport;

    fn connect(&self, _: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<UnixTransport>, Error> {
        let first = self.first.lock().ok().and_then(|mut first| first.take());
        let stream = match first {
            Some(stream) => stream,
            None => connect(&self.data_dir)?,
        };
        let buffers = LazyBuffers::new(BUFFER_LEN, BUFFER_LEN);
        let peer =
            sockopt::socket_peercred(&stream).map_err(io::Error::from)?.pid.as_raw_pid().unsigned_abs();
        let when_stopped = self.when_stopped.clone();
        Ok(Some(UnixTransport { stream, buffers, head: Vec::new(), peer, when_stopped, waiting: None }))
    }
}

/// One connection. Without timeouts: a wait takes as long as its job. But for the beginning of an answer, a daemon that is
/// stopped is not waited for in silence.
#[derive(Debug)]
pub(super) struct UnixTransport {
    stream: UnixStream,
    buffers: LazyBuffers,
    /// The head of a request whose body is about to come: sent together they wake the server once.
    head: Vec<u8>,
    /// The daemon's process.
    peer: u32,
    when_stopped: WhenStopped,
    /// As long as nothing has come of an answer.
    waiting: Option<Waiting>,
}

impl UnixTransport {
    fn read(&mut self) -> io::Result<usize> {
        let space = self.buffers.input_append_buf();
        loop {
            match self.stream.read(space) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(waiting) = &mut self.waiting {
                        waiting.look(Instant::now())?;
                        self.stream.set_read_timeout(Some(waiting.next_look()))?;
                    }
                }
                result => return result,
            }
        }
    }
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let output = &self.buffers.output()[..amount];
        // Every POST of this client has a body.
        if self.head.is_empty() && output.starts_with(b"POST ") && output.ends_with(b"\r\n\r\n") {
            self.head.extend_from_slice(output);
            return Ok(());
        }
        let joined;
        let mut rest = output;
        if !self.head.is_empty() {
            joined = [std::mem::take(&mut self.head).as_slice(), output].concat();
            rest = &joined;
        }
        if self.waiting.is_none() {
            let waiting = Waiting::new(self.peer, self.when_stopped.clone());
            self.stream.set_read_timeout(Some(waiting.next_look()))?;
            self.waiting = Some(waiting);
        }
        while !rest.is_empty() {
            // NOSIGNAL because the program around us may have SIGPIPE at its default.
            match rustix::net::send(&self.stream, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = &rest[sent..],
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        let amount = self.read()?;
        if self.waiting.take().is_some() {
            // What follows may take as long as a job.
            self.stream.set_read_timeout(None)?;
        }
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        // Nothing to read yet is what an idle connection looks like; its end and unasked bytes are not.
        let mut byte = [0_u8; 1];
        let seen = rustix::net::recv(&self.stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(seen, Err(rustix::io::Errno::AGAIN))
    }
}

/// There are no names to resolve.
#[derive(Debug)]
pub(super) struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        Ok(self.empty())
    }
}
