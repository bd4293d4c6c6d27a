//! Pieces of output made into whole lines, whatever bytes they are made of.

/// What is longer is printed in parts, so that a job that never ends its line does not fill the memory.
const LINE_BYTES: usize = 64 << 10;

/// Puts the lines of one stream together.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    /// The beginning of a line that has not ended.
    open: Vec<u8>,
}

impl Splitter {
    /// Calls `line` with each line that ends in these bytes, without its newline.
    pub(super) fn push(&mut self, bytes: &[u8], mut line: impl FnMut(&[u8])) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (part, ends) = part.strip_suffix(b"\n").map_or((part, false), |part| (part, true));
            let mut rest = part;
            // Only here is anything copied: most lines are whole in one piece.
            while self.open.len() + rest.len() > LINE_BYTES {
                let (now, later) = rest.split_at(LINE_BYTES - self.open.len());
                self.open.extend_from_slice(now);
                line(&self.open);
                self.open.clear();
                rest = later;
            }
            match (ends, self.open.is_empty()) {
                (true, true) => line(rest),
                (true, false) => {
                    self.open.extend_from_slice(rest);
                    line(&self.open);
                    self.open.clear();
                }
                (false, _) => self.open.extend_from_slice(rest),
            }
        }
    }

    /// Whether a line has begun and not ended.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Calls `line` with what has no newline at its end, if there is something.
    pub(super) fn finish(&mut self, line: impl FnOnce(&[u8])) {
        if self.is_open() {
            line(&self.open);
            self.open.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        for piece in pieces {
            splitter.push(piece, |line| lines.push(line.to_vec()));
        }
        splitter.finish(|line| lines.push(line.to_vec()));
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
        assert_eq!(lines(&[&long[..LINE_BYTES - 1], &long[LINE_BYTES - 1..]]), parts);
        let exact = vec![b'x'; LINE_BYTES];
        assert_eq!(lines(&[&exact, b"\n"]), [exact]);
    }
}
