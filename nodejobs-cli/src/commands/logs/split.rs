//! Pieces of output made into whole lines, whatever bytes they are made of.

use nodejobs::api::{OutputChunk, Written};

/// What is longer is printed in parts, so that a job that never ends its line does not fill the memory.
const LINE_BYTES: usize = 64 << 10;

/// A line, or a part of one that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Without its newline.
    pub(super) text: &'a [u8],
    /// Where it begins in its file.
    pub(super) offset: u64,
    /// Whether a newline comes behind it.
    pub(super) ends: bool,
    /// When it began to be written, if that was asked for.
    pub(super) written: Option<Written>,
}

/// Puts the lines of one stream together.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// The beginning of a line that has not ended.
    open: Vec<u8>,
    /// Where and when that began.
    begun: (u64, Option<Written>),
}

impl Splitter {
    /// Calls `line` with each line that ends in these bytes.
    pub(super) fn push(&mut self, chunk: &OutputChunk, mut line: impl FnMut(Line<'_>)) {
        let mut offset = chunk.offset;
        for part in chunk.bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.open.is_empty() {
                self.begun = (offset, chunk.written);
            }
            offset += part.len() as u64;
            let (mut rest, ends) = part.strip_suffix(b"\n").map_or((part, false), |part| (part, true));
            while self.open.len() + rest.len() > LINE_BYTES {
                let (now, later) = rest.split_at(LINE_BYTES - self.open.len());
                self.open.extend_from_slice(now);
                self.tell(false, &mut line);
                self.begun = (offset - (later.len() + usize::from(ends)) as u64, chunk.written);
                rest = later;
            }
            if ends && self.open.is_empty() {
                // Most lines are whole in one piece, and need no copy.
                line(Line { text: rest, offset: self.begun.0, ends, written: self.begun.1 });
                continue;
            }
            self.open.extend_from_slice(rest);
            if ends {
                self.tell(true, &mut line);
            }
        }
    }

    /// Where the line begins that has begun and not ended.
    pub(super) fn open_since(&self) -> Option<u64> {
        (!self.open.is_empty()).then_some(self.begun.0)
    }

    /// Calls `line` with what has no newline at its end, if there is something.
    pub(super) fn finish(&mut self, mut line: impl FnMut(Line<'_>)) {
        if !self.open.is_empty() {
            self.tell(false, &mut line);
        }
    }

    fn tell(&mut self, ends: bool, line: &mut impl FnMut(Line<'_>)) {
        let (offset, written) = self.begun;
        line(Line { text: &self.open, offset, ends, written });
        self.open.clear();
    }
}

#[cfg(test)]
mod tests {
    use nodejobs::api::LogStream;

    use super::*;

    /// Each line, as long as offsets agree with what came before.
    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut lines, mut at, mut told) = (Splitter::default(), Vec::new(), 0, 0);
        let mut take = |line: Line<'_>| {
            assert_eq!(line.offset, told);
            told += line.text.len() as u64 + u64::from(line.ends);
            lines.push(line.text.to_vec());
        };
        for piece in pieces {
            let chunk =
                OutputChunk { stream: LogStream::Stdout, offset: at, bytes: piece.to_vec(), written: None };
            at = chunk.end();
            splitter.push(&chunk, &mut take);
        }
        splitter.finish(&mut take);
        assert_eq!((told, splitter.open_since()), (at, None));
        lines
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = b"one\n\n\xff\xfe\0two\nthree";
        let whole = lines(&[text]);
        assert_eq!(whole, [&b"one"[..], b"", b"\xff\xfe\0two", b"three"]);
        for cut in 0..=text.len() {
            let (before, after) = text.split_at(cut);
            assert_eq!(lines(&[before, after]), whole, "cut at {cut}");
        }
        assert_eq!(lines(&[b"a\n"]), [b"a"]);
    }

    #[test]
    fn a_line_without_an_end_comes_in_parts() {
        let long = vec![b'x'; LINE_BYTES + 5];
        let parts = [vec![b'x'; LINE_BYTES], vec![b'x'; 5]];
        assert_eq!(lines(&[&long]), parts);
        assert_eq!(lines(&[&long[..LINE_BYTES - 1], &long[LINE_BYTES - 1..], b"\n"]), parts);
        let exact = vec![b'x'; LINE_BYTES];
        assert_eq!(lines(&[&exact, b"\n"]), [exact]);
    }
}
