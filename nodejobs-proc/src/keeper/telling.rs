//! What the keeper tells its owners: the journal's entries, a start only once it is settled.

use std::io;
use std::os::fd::OwnedFd;

use super::serve::Keeper;
use crate::failpoint::{Failpoint, reached};
use crate::journal::ENTRY_LEN;
use crate::protocol::{ENTRIES_LEN, GATES, KeeperMessage};
use crate::socket;

/// One owner, or whoever has not said who it is.
pub(super) struct Connection {
    pub(super) socket: OwnedFd,
    /// Set by its hello.
    pub(super) generation: Option<u64>,
    /// What it understands.
    pub(super) features: u32,
    /// The next journal entry it has to be told.
    pub(super) cursor: u64,
    /// Starts before that which were not settled when their turn came.
    pub(super) owed: Vec<u64>,
    /// Where its past ends, until it was told that this is all.
    pub(super) past_end: Option<u64>,
    /// The socket was full.
    pub(super) blocked: bool,
}

impl Connection {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            generation: None,
            features: 0,
            cursor: 0,
            owed: Vec::new(),
            past_end: None,
            blocked: false,
        }
    }

    /// Whether it has been told everything up to here.
    fn send(&mut self, position: u64, raw: Vec<u8>) -> Result<(), Stopped> {
        let message = KeeperMessage::Entries { position, raw };
        match socket::send(&self.socket, &message.encode(), None, false) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.blocked = true;
                Err(Stopped::Full)
            }
            Err(_) => Err(Stopped::Gone),
        }
    }
}

enum Stopped {
    Full,
    Gone,
}

/// Whether a start may be told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    No,
    /// It is about to be settled: what follows can wait for it.
    ForAMoment,
    /// Nobody knows for how long.
    ForLonger,
}

impl Keeper {
    /// Tells every owner what it has not heard.
    pub(super) fn tell_owners(&mut self) {
        self.waits_for_moment = false;
        let mut connections = std::mem::take(&mut self.connections);
        connections.retain_mut(|connection| match self.tell(connection) {
            Ok(()) | Err(Stopped::Full) => true,
            Err(Stopped::Gone) => false,
        });
        self.connections = connections;
    }

    fn tell(&mut self, connection: &mut Connection) -> Result<(), Stopped> {
        if connection.generation.is_none() || connection.blocked {
            return Ok(());
        }
        let knows_gates = connection.features & GATES != 0;
        for position in std::mem::take(&mut connection.owed) {
            match self.remembered.get(position) {
                Some(_) if self.held(position) != Held::No => connection.owed.push(position),
                Some(entry) => {
                    let raw = entry.as_bytes().to_vec();
                    if let Err(stopped) = connection.send(position, raw) {
                        connection.owed.push(position);
                        return Err(stopped);
                    }
                    reached(Failpoint::WorkerTold);
                }
                // It came to nothing.
                None => {}
            }
        }
        loop {
            let mut raw = Vec::new();
            let mut first = None;
            let mut next = connection.cursor;
            let mut skipped = None;
            for (position, entry) in self.remembered.from(connection.cursor) {
                let is_next = first.is_none_or(|_| position == next);
                if !is_next || raw.len() + ENTRY_LEN > ENTRIES_LEN {
                    break;
                }
                match self.held(position) {
                    Held::ForAMoment if connection.past_end.is_none() && knows_gates => {
                        self.waits_for_moment = true;
                        break;
                    }
                    Held::ForAMoment | Held::ForLonger if knows_gates => {
                        if first.is_none() {
                            skipped = Some(position);
                        }
                        break;
                    }
                    _ => {}
                }
                first.get_or_insert(position);
                raw.extend_from_slice(entry.as_bytes());
                next = position + 1;
            }
            if let Some(first) = first {
                connection.send(first, raw)?;
                connection.cursor = next;
                reached(Failpoint::WorkerTold);
            } else if let Some(position) = skipped {
                connection.owed.push(position);
                connection.cursor = position + 1;
            } else {
                break;
            }
        }
        if let Some(end) = connection.past_end
            && !self.remembered.from(connection.cursor).any(|(position, _)| position < end)
        {
            // Says that the past is over, also if there was nothing to be told at its end.
            connection.send(end, Vec::new())?;
            connection.past_end = None;
            connection.cursor = connection.cursor.max(end);
        }
        Ok(())
    }

    /// An entry counts only now, and what follows it may have been told.
    pub(super) fn tell_late(&mut self, position: u64) {
        for connection in self.connections.iter_mut().filter(|connection| connection.cursor > position) {
            connection.owed.push(position);
        }
    }

    /// Whether every owner was told everything.
    pub(super) fn has_told_all(&self) -> bool {
        self.connections.iter().filter(|connection| connection.generation.is_some()).all(|connection| {
            connection.owed.is_empty() && self.remembered.from(connection.cursor).next().is_none()
        })
    }
}
