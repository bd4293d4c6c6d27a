//! What is on the disk after a power cut: everything before the last flush, and of the writes behind it what chance
//! wanted.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::disk::copy;
use super::recorder::Event;
use crate::chaos::random::Random;

/// What a disk writes whole or not at all.
const SECTOR: usize = 512;
/// Half of the cuts are in this time: nothing was written back by the kernel's own decision yet.
const EARLY: Duration = Duration::from_secs(30);

/// What became of the writes that were not followed by a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    None,
    All,
    /// Each of them is there or is not.
    Half,
    /// All of them, the last one only in part.
    Torn,
}

const RESTS: [Rest; 4] = [Rest::None, Rest::All, Rest::Half, Rest::Torn];

/// An instant, as a number of events, and what of the last ones is on the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) events: usize,
    pub(crate) rest: Rest,
}

/// Draws instants, in order, evenly over the time: half of them early, and of those some before the first job.
pub(crate) fn draw(
    events: &[(Duration, Event)],
    first: usize,
    count: usize,
    random: &mut Random,
) -> Vec<Cut> {
    let early = events.partition_point(|(at, _)| *at < EARLY);
    let mut cuts: Vec<_> = (0..count)
        .map(|number| {
            let end = match number % 10 {
                0 => first,
                1..5 => early,
                _ => events.len(),
            };
            let part = |number: usize| end * number / count;
            let parts = (part(number + 1) - part(number)).max(1);
            let drawn = usize::try_from(random.below(parts as u64)).expect("it is smaller than a length");
            Cut { events: part(number) + drawn + 1, rest: random.pick(&RESTS) }
        })
        .collect();
    cuts.sort_by_key(|cut| cut.events);
    cuts
}

/// The disk as it was flushed last before a cut, which moves on from cut to cut.
pub(crate) struct Disk<'e> {
    image: File,
    events: &'e [(Duration, Event)],
    /// How many events are in the image.
    flushed: usize,
}

impl<'e> Disk<'e> {
    pub(crate) fn new(image: File, events: &'e [(Duration, Event)]) -> Self {
        Self { image, events, flushed: 0 }
    }

    /// What is on the disk after this cut, which must not be before the one before.
    pub(crate) fn after(&mut self, cut: Cut, random: &mut Random) -> Result<File> {
        let seen = &self.events[..cut.events.min(self.events.len())];
        let is_flush = |(_, event): &(Duration, Event)| matches!(event, Event::Flush);
        let flushed = seen.iter().rposition(is_flush).map_or(0, |last| last + 1).max(self.flushed);
        for (offset, bytes) in writes(&seen[self.flushed..flushed]) {
            put(&self.image, offset, bytes)?;
        }
        self.flushed = flushed;
        let image = copy(&self.image)?;
        let rest: Vec<_> = writes(&seen[flushed..]).collect();
        for (number, (offset, bytes)) in rest.iter().enumerate() {
            let length = match cut.rest {
                Rest::None => 0,
                Rest::Half if random.one_in(2) => 0,
                Rest::Torn if number + 1 == rest.len() => {
                    let sectors = bytes.len().div_ceil(SECTOR) as u64;
                    usize::try_from(random.below(sectors))? * SECTOR
                }
                Rest::All | Rest::Half | Rest::Torn => bytes.len(),
            };
            put(&image, *offset, &bytes[..length])?;
        }
        Ok(image)
    }
}

fn writes(events: &[(Duration, Event)]) -> impl Iterator<Item = (u64, &[u8])> {
    events.iter().filter_map(|(_, event)| match event {
        Event::Write { offset, bytes } => Some((*offset, &bytes[..])),
        Event::Flush => None,
    })
}

fn put(image: &File, offset: u64, bytes: &[u8]) -> Result<()> {
    image.write_all_at(bytes, offset).context("cannot write an image")
}

#[cfg(test)]
mod tests {
    use super::super::disk::memory;
    use super::*;

    fn events(all: Vec<Event>) -> Vec<(Duration, Event)> {
        all.into_iter().map(|event| (Duration::ZERO, event)).collect()
    }

    fn write(offset: u64, byte: u8, sectors: usize) -> Event {
        Event::Write { offset, bytes: vec![byte; sectors * SECTOR].into() }
    }

    fn sectors(image: &File) -> Vec<u8> {
        let mut bytes = vec![0; 8 * SECTOR];
        image.read_exact_at(&mut bytes, 0).unwrap();
        bytes.chunks(SECTOR).map(|sector| sector[0]).collect()
    }

    #[test]
    fn what_was_flushed_is_there_and_of_the_rest_what_was_drawn() {
        let events =
            events(vec![write(0, 1, 1), write(512, 2, 2), Event::Flush, write(512, 3, 1), write(1536, 4, 4)]);
        let mut random = Random::new(1, 1);
        let mut states = |events_seen, rest| {
            let mut disk = Disk::new(memory(4096).unwrap(), &events);
            sectors(&disk.after(Cut { events: events_seen, rest }, &mut random).unwrap())
        };
        assert_eq!(states(2, Rest::None), [0; 8]);
        assert_eq!(states(2, Rest::All), [1, 2, 2, 0, 0, 0, 0, 0]);
        assert_eq!(states(3, Rest::None), [1, 2, 2, 0, 0, 0, 0, 0]);
        assert_eq!(states(5, Rest::None), [1, 2, 2, 0, 0, 0, 0, 0]);
        assert_eq!(states(5, Rest::All), [1, 3, 2, 4, 4, 4, 4, 0]);
        let torn = states(5, Rest::Torn);
        assert_eq!((&torn[..3], torn[6]), (&[1, 3, 2][..], 0));
        let halves: Vec<_> = (0..32).map(|_| states(5, Rest::Half)).collect();
        assert!(halves.iter().any(|half| half[1..4] == [2, 2, 4]));
        assert!(halves.iter().any(|half| half[1..4] == [3, 2, 0]));
    }

    #[test]
    fn a_disk_moves_on_from_cut_to_cut() {
        let events = events(vec![write(0, 1, 1), Event::Flush, write(0, 2, 1), Event::Flush, write(0, 3, 1)]);
        let mut disk = Disk::new(memory(4096).unwrap(), &events);
        let mut random = Random::new(1, 1);
        let mut first = |events, rest| sectors(&disk.after(Cut { events, rest }, &mut random).unwrap())[0];
        assert_eq!(first(1, Rest::None), 0);
        assert_eq!(first(3, Rest::All), 2);
        assert_eq!(first(3, Rest::None), 1);
        assert_eq!(first(4, Rest::None), 2);
        assert_eq!(first(5, Rest::All), 3);
    }

    #[test]
    fn cuts_are_in_order_early_and_of_every_kind() {
        let late = |number: u64| (Duration::from_secs(number), Event::Flush);
        let events: Vec<_> = (0..300).map(late).collect();
        let cuts = draw(&events, 10, 80, &mut Random::new(3, 3));
        assert!(cuts.is_sorted_by_key(|cut| cut.events));
        assert!(cuts.iter().filter(|cut| cut.events <= 30).count() >= 40);
        assert!(cuts.iter().any(|cut| cut.events > 150));
        assert!(cuts.iter().all(|cut| (1..=300).contains(&cut.events)));
        assert!(cuts.iter().filter(|cut| cut.events <= 10).count() >= 8);
        assert!(RESTS.iter().all(|rest| cuts.iter().any(|cut| cut.rest == *rest)));
    }
}
