//! Somebody who is connected to a holder: what they have sent, and how far they were shown the output.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;

use nodejobs_core::holder::FromHolder;

use super::line::Line;
use crate::socket;

pub(super) struct Client {
    pub(super) socket: OwnedFd,
    pub(super) waiting: VecDeque<Waiting>,
    /// The place in the output up to which it was shown, if it is attached.
    pub(super) shown: Option<u64>,
    /// Since when it takes nothing, in milliseconds of boot time.
    pub(super) blocked: Option<u64>,
    pub(super) flushes: bool,
}

/// Something that is answered once it is done.
pub(super) enum Waiting {
    Input {
        bytes: Vec<u8>,
        taken: usize,
    },
    /// The character that says so, or closing.
    End(Option<u8>),
}

impl Client {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { socket, waiting: VecDeque::new(), shown: None, blocked: None, flushes: false }
    }

    /// Gives the job what this client has sent, as far as it takes it. Whether there still is a line.
    pub(super) fn give(&mut self, line: &mut Line) -> bool {
        while let Some(first) = self.waiting.front_mut() {
            let end;
            let (bytes, taken) = match first {
                Waiting::Input { bytes, taken } => (&bytes[*taken..], Some(taken)),
                Waiting::End(None) => {
                    self.answer(0);
                    return false;
                }
                Waiting::End(Some(character)) => {
                    end = [*character];
                    (&end[..], None)
                }
            };
            let wanted = bytes.len();
            let given = match line.write(bytes) {
                Ok(given) => given,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(_) => return false,
            };
            let total = taken.map_or(0, |taken| {
                *taken += given;
                *taken
            });
            if given < wanted {
                return true;
            }
            self.waiting.pop_front();
            self.answer(total);
        }
        true
    }

    /// Says how much was taken; whether the client stays. Who is attached and does not read goes without.
    pub(super) fn answer(&self, taken: usize) -> bool {
        let count = u32::try_from(taken).unwrap_or(u32::MAX);
        let sent = socket::send(&self.socket, &FromHolder::Taken(count).encode(), None, false);
        match sent {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock && self.shown.is_some(),
        }
    }
}
