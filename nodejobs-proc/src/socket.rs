//! Seqpacket sockets below a directory whose path may be longer than a socket address.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, sockopt,
};

/// Calls `use_address` with an address for `directory/name` that fits, however long the directory's path is.
pub fn with_address<T>(
    directory: &Path,
    name: &str,
    use_address: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let direct = directory.join(name);
    if direct.as_os_str().len() < 108 {
        return use_address(&direct);
    }
    // An address has 108 bytes. The descriptor stands for the directory only during the call.
    let handle =
        rustix::fs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    use_address(&Path::new("/proc/self/fd").join(handle.as_raw_fd().to_string()).join(name))
}

fn seqpacket(flags: SocketFlags) -> io::Result<OwnedFd> {
    let flags = flags | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Listens at `directory/name`, which must not exist.
pub(crate) fn listen(directory: &Path, name: &str) -> io::Result<OwnedFd> {
    let socket = seqpacket(SocketFlags::NONBLOCK)?;
    with_address(directory, name, |path| Ok(rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?))?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

/// Connects to `directory/name`.
pub(crate) fn connect(directory: &Path, name: &str) -> io::Result<OwnedFd> {
    connect_with(directory, name, SocketFlags::empty())
}

/// Connects to `directory/name` without waiting for anything, now and later: who has no room for one more is busy.
pub(crate) fn connect_at_once(directory: &Path, name: &str) -> io::Result<OwnedFd> {
    connect_with(directory, name, SocketFlags::NONBLOCK)
}

fn connect_with(directory: &Path, name: &str, flags: SocketFlags) -> io::Result<OwnedFd> {
    let socket = seqpacket(flags)?;
    with_address(directory, name, |path| Ok(rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?))?;
    Ok(socket)
}

/// Takes a connection, if one waits and comes from our own user or from root.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match rustix::net::accept_with(listener, flags) {
        Ok(socket) => socket,
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNABORTED) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let peer = sockopt::socket_peercred(&socket)?;
    let trusted = peer.uid == rustix::process::geteuid() || peer.uid.is_root();
    Ok(trusted.then_some(socket))
}

/// Bounds how long a blocking read waits; `None` for ever.
pub(crate) fn set_read_timeout(socket: &OwnedFd, timeout: Option<Duration>) -> io::Result<()> {
    Ok(sockopt::set_socket_timeout(socket, sockopt::Timeout::Recv, timeout)?)
}

/// Sends one message, with a descriptor if there is one. A peer that is gone is an error, not a signal.
pub(crate) fn send(
    socket: impl AsFd,
    message: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
    wait: bool,
) -> io::Result<()> {
    let flags = if wait { SendFlags::NOSIGNAL } else { SendFlags::NOSIGNAL | SendFlags::DONTWAIT };
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.as_slice();
    if !descriptors.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(message)], &mut control, flags)
    })?;
    Ok(())
}

/// One received message.
pub(crate) struct Received<'b> {
    pub(crate) bytes: &'b [u8],
    pub(crate) descriptor: Option<OwnedFd>,
}

/// Receives one message; `None` when the peer is gone.
pub(crate) fn receive<'b>(socket: &OwnedFd, buffer: &'b mut [u8]) -> io::Result<Option<Received<'b>>> {
    receive_with(socket, buffer, RecvFlags::empty())
}

/// The same without waiting: `WouldBlock` when there is none.
pub(crate) fn receive_at_once<'b>(
    socket: &OwnedFd,
    buffer: &'b mut [u8],
) -> io::Result<Option<Received<'b>>> {
    receive_with(socket, buffer, RecvFlags::DONTWAIT)
}

fn receive_with<'b>(
    socket: &OwnedFd,
    buffer: &'b mut [u8],
    flags: RecvFlags,
) -> io::Result<Option<Received<'b>>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            socket.as_fd(),
            &mut [IoSliceMut::new(&mut *buffer)],
            &mut control,
            flags | RecvFlags::CMSG_CLOEXEC,
        )
    })?;
    let mut descriptor = None;
    for ancillary in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = ancillary {
            descriptor = descriptors.last();
        }
    }
    if message.bytes == 0 {
        return Ok(None);
    }
    Ok(Some(Received { bytes: &buffer[..message.bytes], descriptor }))
}
