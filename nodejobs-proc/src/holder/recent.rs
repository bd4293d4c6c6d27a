//! The newest output of a terminal, for those who are attached to it or come to be.

use std::collections::VecDeque;

/// So much is kept. Far more than what fits on a screen.
pub(super) const KEPT: usize = 64 << 10;

/// The last bytes of a stream. Places in it are counted from its beginning.
#[derive(Debug, Default)]
pub(super) struct Recent {
    bytes: VecDeque<u8>,
    end: u64,
}

impl Recent {
    /// Where the stream ends now.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    fn start(&self) -> u64 {
        self.end - self.bytes.len() as u64
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.end += bytes.len() as u64;
        let newest = &bytes[bytes.len().saturating_sub(KEPT)..];
        let excess = (self.bytes.len() + newest.len()).saturating_sub(KEPT);
        self.bytes.drain(..excess);
        self.bytes.extend(newest);
    }

    /// At most `most` bytes from a place on, or from the first that is left.
    pub(super) fn part(&self, from: u64, most: usize) -> (u64, Vec<u8>) {
        let from = from.max(self.start());
        // No more than KEPT.
        let skipped = usize::try_from(from - self.start()).unwrap_or(usize::MAX);
        (from, self.bytes.iter().skip(skipped).take(most).copied().collect())
    }

    /// Where the last `lines` lines begin, the unfinished one included.
    pub(super) fn last_lines(&self, lines: u16) -> u64 {
        let newlines = self.bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n');
        match newlines.map(|(at, _)| at).nth(usize::from(lines.max(1)) - 1) {
            Some(at) => self.start() + at as u64 + 1,
            None => self.start(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_is_forgotten_and_places_stay() {
        let mut recent = Recent::default();
        recent.push(b"abc");
        assert_eq!((recent.end(), recent.part(1, 10)), (3, (1, b"bc".to_vec())));
        assert_eq!(recent.part(3, 10), (3, Vec::new()));
        recent.push(&vec![b'x'; KEPT]);
        assert_eq!(recent.part(0, 1), (3, b"x".to_vec()), "who is behind goes on at what is left");
        recent.push(&vec![b'y'; KEPT + 5]);
        assert_eq!((recent.end(), recent.part(0, 2).0), (3 + 2 * KEPT as u64 + 5, KEPT as u64 + 8));
    }

    #[test]
    fn a_screenful_is_so_many_lines_or_all() {
        let mut recent = Recent::default();
        assert_eq!(recent.last_lines(24), 0);
        recent.push(b"one\ntwo\nthree");
        let shown = |lines| recent.part(recent.last_lines(lines), KEPT).1;
        assert_eq!(shown(1), b"three");
        assert_eq!(shown(2), b"two\nthree");
        assert_eq!(shown(3), b"one\ntwo\nthree");
        assert_eq!(shown(0), b"three");
    }
}
