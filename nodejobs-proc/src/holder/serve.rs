//! The holder's loop: gives the job what is sent, copies its terminal's output, shows it to whoever is attached, and ends
//! when the job has closed its end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use nodejobs_core::holder::{FromHolder, MAX_INPUT, MESSAGE_LEN, ToHolder};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

use super::client::{Client, Waiting};
use super::line::{End, Line, Terminal};
use super::recent::KEPT;
use crate::machine::now;
use crate::socket;

/// Connections at a time. One more waits for another to end.
const MAX_CLIENTS: usize = 256;
/// What a client may have sent before its first is taken. Whoever waits for answers has one.
const MAX_WAITING: usize = 8;
/// How long a client may hold up the job by not reading, in milliseconds; then it misses what it did not read.
const PATIENCE_MS: u64 = 2000;
/// So much may be on its way to a client: the less, the sooner is seen that it reads. The kernel doubles it.
const SEND_BUFFER: usize = 2 * MESSAGE_LEN;

pub(super) struct Holder {
    line: Line,
    listener: OwnedFd,
    clients: Vec<Client>,
    /// The socket, and its inode, which tells it from another that may have its name by now.
    path: PathBuf,
    inode: u64,
}

impl Holder {
    pub(super) fn new(line: Line, listener: OwnedFd, path: PathBuf, inode: u64) -> Self {
        Self { line, listener, clients: Vec::new(), path, inode }
    }

    pub(super) fn serve(mut self) -> ! {
        let mut buffer = vec![0; MAX_INPUT + 1];
        loop {
            let is_open = self.move_on();
            self.show();
            if !is_open {
                self.leave();
            }
            let Some(ready) = self.wait() else { continue };
            if ready.line_closed {
                self.leave();
            }
            if ready.leader_ended
                && let Some(terminal) = self.line.as_terminal_mut()
            {
                terminal.let_go();
            }
            ready.writable.iter().for_each(|index| self.clients[*index].blocked = None);
            for index in ready.readable.into_iter().rev() {
                if !self.receive(index, &mut buffer) {
                    self.clients.remove(index);
                }
            }
            if ready.connecting
                && let Ok(Some(socket)) = socket::accept(self.listener.as_fd())
            {
                // As it is otherwise is no harm.
                let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
                self.clients.push(Client::new(socket));
            }
        }
    }

    /// Copies output and gives input, as far as it goes now. Whether there still is a line.
    fn move_on(&mut self) -> bool {
        if !self.is_held_up()
            && let Some(terminal) = self.line.as_terminal_mut()
            && terminal.copy() == End::Closed
        {
            return false;
        }
        for client in &mut self.clients {
            if !client.give(&mut self.line) {
                return false;
            }
        }
        let is_flushed = self.clients.iter().any(|client| client.flushes)
            && self.line.as_terminal().is_none_or(Terminal::is_copied);
        self.clients.retain_mut(|client| {
            let answers = client.flushes && is_flushed;
            client.flushes &= !answers;
            !answers || client.answer(0)
        });
        true
    }

    /// Whether somebody who is attached is far behind, and has not been for long.
    fn is_held_up(&self) -> bool {
        let at = now().boot.0;
        let Some(terminal) = self.line.as_terminal() else { return false };
        let end = terminal.recent.end();
        self.clients.iter().any(|client| {
            // Who is not blocked is about to be shown more.
            let is_patient = client.blocked.is_none_or(|since| at < since + PATIENCE_MS);
            is_patient && client.shown.is_some_and(|shown| end - shown > KEPT as u64 / 2)
        })
    }

    /// Shows whoever is attached what they have not seen.
    fn show(&mut self) {
        let Some(terminal) = self.line.as_terminal() else { return };
        let recent = &terminal.recent;
        let is_over = terminal.has_ended && terminal.is_copied();
        self.clients.retain_mut(|client| {
            while let (None, Some(shown)) = (client.blocked, client.shown)
                && shown < recent.end()
            {
                let (from, bytes) = recent.part(shown, MESSAGE_LEN - 1);
                match socket::send(&client.socket, &FromHolder::Output(&bytes).encode(), None, false) {
                    Ok(()) => client.shown = Some(from + bytes.len() as u64),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        client.blocked = Some(now().boot.0);
                    }
                    Err(_) => return false,
                }
            }
            // What is written by those that the job has left behind goes to the log alone.
            !(is_over && client.shown == Some(recent.end()))
        });
    }

    fn wait(&self) -> Option<Ready> {
        let is_held_up = self.is_held_up();
        let gives = self.clients.iter().any(|client| !client.waiting.is_empty());
        let input = if gives { PollFlags::OUT } else { PollFlags::empty() };
        let has_room = self.clients.len() < MAX_CLIENTS;
        let connecting = if has_room { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::from_borrowed_fd(self.listener.as_fd(), connecting)];
        for client in &self.clients {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, client.waiting.len() < MAX_WAITING);
            wanted.set(PollFlags::OUT, client.blocked.is_some());
            fds.push(PollFd::from_borrowed_fd(client.socket.as_fd(), wanted));
        }
        let first = fds.len();
        let mut retries = is_held_up;
        match &self.line {
            Line::Pipe(write) => fds.push(PollFd::from_borrowed_fd(write.as_fd(), input)),
            Line::Terminal(terminal) => {
                if let Some(leader) = terminal.leader() {
                    fds.push(PollFd::from_borrowed_fd(leader, PollFlags::IN));
                }
                // What is not read is not polled either: that it was hung up would be said again and again.
                if is_held_up || terminal.is_stuck() {
                    retries = true;
                } else {
                    fds.push(PollFd::from_borrowed_fd(terminal.master(), input | PollFlags::IN));
                }
            }
        }
        let is_terminal = matches!(self.line, Line::Terminal(_));
        let second = Timespec { tv_sec: 1, tv_nsec: 0 };
        poll(&mut fds, retries.then_some(&second)).ok()?;
        let events: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
        let events = &events;
        let has_leader = self.line.as_terminal().is_some_and(|terminal| terminal.leader().is_some());
        let which = |wanted: PollFlags| {
            let clients = (1..first).filter(move |index| events[*index].intersects(wanted));
            clients.map(|index| index - 1).collect::<Vec<_>>()
        };
        Some(Ready {
            connecting: !events[0].is_empty(),
            readable: which(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
            writable: which(PollFlags::OUT),
            line_closed: !is_terminal && events[first].contains(PollFlags::ERR),
            leader_ended: has_leader && !events[first].is_empty(),
        })
    }

    /// Whether the client stays.
    fn receive(&mut self, index: usize, buffer: &mut [u8]) -> bool {
        let client = &mut self.clients[index];
        let received = match socket::receive(&client.socket, buffer) {
            Ok(Some(received)) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Ok(None) | Err(_) => return false,
        };
        match ToHolder::decode(received.bytes) {
            Ok(ToHolder::Input(bytes)) => {
                client.waiting.push_back(Waiting::Input { bytes: bytes.to_vec(), taken: 0 });
            }
            Ok(ToHolder::End) => client.waiting.push_back(Waiting::End(self.line.end_character())),
            Ok(ToHolder::Cancel) => {
                for waiting in std::mem::take(&mut client.waiting) {
                    let taken = match waiting {
                        Waiting::Input { taken, .. } => taken,
                        Waiting::End(_) => 1,
                    };
                    if !client.answer(taken) {
                        return false;
                    }
                }
            }
            Ok(ToHolder::Flush) => client.flushes = true,
            Ok(ToHolder::Attach { size, lines }) => {
                let Some(terminal) = self.line.as_terminal_mut() else { return false };
                client.shown = Some(terminal.recent.last_lines(lines));
                terminal.watch_leader();
                terminal.show_at(size, true);
            }
            Ok(ToHolder::Resize(size)) => {
                let Some(terminal) = self.line.as_terminal() else { return false };
                terminal.show_at(size, false);
            }
            Err(_) => return false,
        }
        true
    }

    /// Shows the rest to who is attached, as far as they take it, and ends.
    fn leave(&mut self) -> ! {
        // What has this name now, if anything, may be another's.
        if std::fs::metadata(&self.path)
            .is_ok_and(|found| std::os::unix::fs::MetadataExt::ino(&found) == self.inode)
        {
            let _ = std::fs::remove_file(&self.path);
        }
        let deadline = now().boot.0 + PATIENCE_MS;
        loop {
            self.show();
            let Some(terminal) = self.line.as_terminal() else { break };
            let end = terminal.recent.end();
            self.clients.retain(|client| client.shown.is_some_and(|shown| shown < end));
            let mut fds: Vec<_> =
                self.clients.iter().map(|client| PollFd::new(&client.socket, PollFlags::OUT)).collect();
            let left = deadline.saturating_sub(now().boot.0);
            if fds.is_empty() || left == 0 {
                break;
            }
            let (seconds, nanos) = ((left / 1000).cast_signed(), (left % 1000).cast_signed() * 1_000_000);
            let _ = poll(&mut fds, Some(&Timespec { tv_sec: seconds, tv_nsec: nanos }));
            self.clients.iter_mut().for_each(|client| client.blocked = None);
        }
        std::process::exit(0)
    }
}

struct Ready {
    connecting: bool,
    readable: Vec<usize>,
    writable: Vec<usize>,
    /// Nobody can read from the pipe any more.
    line_closed: bool,
    leader_ended: bool,
}
