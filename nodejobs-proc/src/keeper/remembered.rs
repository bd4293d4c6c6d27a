//! What a keeper still has to tell, in memory: a damaged journal, or a disk that cannot be read, makes a living keeper forget
//! nothing.

use std::collections::{BTreeMap, VecDeque};

use crate::journal::EntryBuffer;

/// Journal entries that are of use, by their positions. Starts stay as long as their jobs run, ends until they are
/// acknowledged; the newest acknowledgement is kept as well, for whoever waits to hear that it was noted.
#[derive(Default)]
pub(super) struct Remembered {
    entries: BTreeMap<u64, EntryBuffer>,
    /// Ends of attempts and failed starts, oldest first, each with the start that goes with it.
    outcomes: VecDeque<(u64, Option<u64>)>,
    acknowledgement: Option<u64>,
}

impl Remembered {
    /// A program was, or is about to be, executed.
    pub(super) fn started(&mut self, position: u64, entry: EntryBuffer) {
        self.entries.insert(position, entry);
    }

    /// A program was not executed after all: its start is void.
    pub(super) fn take_back(&mut self, start: u64) {
        self.entries.remove(&start);
    }

    /// An attempt has ended, or has failed to start.
    pub(super) fn ended(&mut self, position: u64, entry: EntryBuffer, start: Option<u64>) {
        self.entries.insert(position, entry);
        self.outcomes.push_back((position, start));
    }

    /// The owner has everything before this position in its store, and that is noted.
    pub(super) fn acknowledged(&mut self, before: u64, noted: Option<(u64, EntryBuffer)>) {
        while let Some((outcome, start)) = self.outcomes.front().copied()
            && outcome < before
        {
            self.outcomes.pop_front();
            self.entries.remove(&outcome);
            start.map(|start| self.entries.remove(&start));
        }
        if let Some((position, entry)) = noted {
            self.acknowledgement.replace(position).map(|old| self.entries.remove(&old));
            self.entries.insert(position, entry);
        }
    }

    /// Whether everything that has ended is acknowledged.
    pub(super) fn is_settled(&self) -> bool {
        self.outcomes.is_empty()
    }

    pub(super) fn get(&self, position: u64) -> Option<&EntryBuffer> {
        self.entries.get(&position)
    }

    /// What is to be told from a position on.
    pub(super) fn from(&self, position: u64) -> impl Iterator<Item = (u64, &EntryBuffer)> {
        self.entries.range(position..).map(|(position, entry)| (*position, entry))
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// The same at the positions from `first` on, without gaps, as a journal that was rewritten has it. Gives for each old
    /// position the new one.
    pub(super) fn renumber(&mut self, first: u64) -> BTreeMap<u64, u64> {
        let places: BTreeMap<u64, u64> = self.entries.keys().copied().zip(first..).collect();
        let moved = |position: u64| places.get(&position).copied().unwrap_or(position);
        self.entries =
            std::mem::take(&mut self.entries).into_iter().map(|(at, entry)| (moved(at), entry)).collect();
        self.outcomes.iter_mut().for_each(|(outcome, start)| {
            (*outcome, *start) = (moved(*outcome), start.map(moved));
        });
        self.acknowledgement = self.acknowledgement.map(moved);
        places
    }
}
