//! A keeper that speaks another version of the protocol: the real one, behind a relay that changes what it says of itself.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept, bind, connect,
    listen, recv, send, socket_with,
};

/// Where a keeper's first message says its version: behind the kind of the message.
const VERSION: std::ops::Range<usize> = 1..5;
const MESSAGE_LEN: usize = 4096;

/// Stands between a keeper and its owners until it is dropped.
pub(crate) struct OtherProtocol {
    end: OwnedFd,
    relay: Option<JoinHandle<()>>,
}

impl OtherProtocol {
    /// Takes the place of the only keeper's socket. Who is connected already stays connected.
    pub(crate) fn pretend(keepers: &Path, version: u32) -> Self {
        let names = std::fs::read_dir(keepers).expect("keepers").map(|entry| entry.expect("an entry").path());
        let sockets: Vec<_> = names.filter(|path| path.extension().is_some_and(|it| it == "sock")).collect();
        let [socket] = sockets.as_slice() else { panic!("not one keeper: {sockets:?}") };
        let real = socket.with_extension("real");
        std::fs::rename(socket, &real).expect("renamed");
        let listener = seqpacket();
        bind(&listener, &SocketAddrUnix::new(socket).expect("an address")).expect("bound");
        listen(&listener, 16).expect("listening");
        let end = eventfd(0, EventfdFlags::CLOEXEC).expect("an event");
        let ended = end.try_clone().expect("cloned");
        let relay = std::thread::spawn(move || relay(&listener, &real, version, &ended));
        Self { end, relay: Some(relay) }
    }
}

impl Drop for OtherProtocol {
    fn drop(&mut self) {
        rustix::io::write(&self.end, &1_u64.to_ne_bytes()).expect("told");
        self.relay.take().expect("dropped once").join().expect("it did not panic");
    }
}

fn seqpacket() -> OwnedFd {
    socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).expect("a socket")
}

/// One after the other: an owner has one connection, and only the newest owner counts.
fn relay(listener: &OwnedFd, real: &Path, version: u32, ended: &OwnedFd) {
    while readable(&[ended, listener]) != 0 {
        let owner = accept(listener).expect("accepted");
        let keeper = seqpacket();
        if connect(&keeper, &SocketAddrUnix::new(real).expect("an address")).is_err() {
            continue;
        }
        let mut is_first = true;
        loop {
            let forwarded = match readable(&[ended, &owner, &keeper]) {
                0 => return,
                1 => forward(&owner, &keeper, None),
                _ => forward(&keeper, &owner, std::mem::take(&mut is_first).then_some(version)),
            };
            if !forwarded.is_ok_and(|length| length > 0) {
                break;
            }
        }
    }
}

/// Which of them has something to say, or has ended.
fn readable(all: &[&OwnedFd]) -> usize {
    let mut polled: Vec<_> =
        all.iter().map(|one| PollFd::from_borrowed_fd(one.as_fd(), PollFlags::IN)).collect();
    rustix::io::retry_on_intr(|| poll(&mut polled, None)).expect("polled");
    polled.iter().position(|one| !one.revents().is_empty()).expect("one of them")
}

fn forward(from: &OwnedFd, to: &OwnedFd, version: Option<u32>) -> io::Result<usize> {
    let mut buffer = [0; MESSAGE_LEN];
    let (length, _) = recv(from, &mut buffer[..], RecvFlags::empty())?;
    if let Some(version) = version {
        buffer[VERSION].copy_from_slice(&version.to_le_bytes());
    }
    if length > 0 {
        send(to, &buffer[..length], SendFlags::NOSIGNAL)?;
    }
    Ok(length)
}
