//! Reading the log files that jobs write: the last lines, and what comes next.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

/// Where the last so many lines of a file begin, or of its part before `end`. A last line without its newline counts as
/// one.
///
/// # Errors
/// When the file cannot be read.
pub fn offset_of_last_lines(file: &mut File, end: Option<u64>, lines: u64) -> io::Result<u64> {
    const CHUNK: u64 = 64 * 1024;
    let length = file.seek(SeekFrom::End(0))?;
    let end = end.map_or(length, |end| end.min(length));
    if lines == 0 {
        return Ok(end);
    }
    let mut newlines = 0;
    let mut chunk_end = end;
    let mut buffer = Vec::new();
    while chunk_end > 0 {
        let chunk_start = chunk_end.saturating_sub(CHUNK);
        buffer.clear();
        file.seek(SeekFrom::Start(chunk_start))?;
        file.by_ref().take(chunk_end - chunk_start).read_to_end(&mut buffer)?;
        for (index, _) in buffer.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let behind = chunk_start + index as u64 + 1;
            // The newline that ends the last line begins none.
            if behind == end {
                continue;
            }
            newlines += 1;
            if newlines == lines {
                return Ok(behind);
            }
        }
        chunk_end = chunk_start;
    }
    Ok(0)
}

/// Makes a descriptor that tells when files are written to: readable once something was written to a file after it was
/// given to [`watch_next_write`]. What is read from it means nothing.
///
/// # Errors
/// When the user has too many of them (`fs.inotify.max_user_instances`).
pub fn new_write_watch() -> io::Result<OwnedFd> {
    Ok(inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?)
}

/// Has the descriptor tell of the next write to the file, and of that one only: a standing watch would slow the writer
/// down. What was written before is not told.
///
/// # Errors
/// When there is no such file.
pub fn watch_next_write(watch: impl AsFd, path: &Path) -> io::Result<()> {
    inotify::add_watch(watch, path, WatchFlags::MODIFY | WatchFlags::ONESHOT)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn last_lines(content: &[u8], lines: u64) -> Vec<u8> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        let offset = offset_of_last_lines(&mut file, None, lines).expect("read");
        content[usize::try_from(offset).expect("small")..].to_vec()
    }

    #[test]
    fn the_last_lines_are_exact() {
        assert_eq!(last_lines(b"a\nb\nc\n", 2), b"b\nc\n");
        assert_eq!(last_lines(b"a\nb\nc", 2), b"b\nc");
        assert_eq!(last_lines(b"a\nb\n", 9), b"a\nb\n");
        assert_eq!(last_lines(b"a\nb\n", 0), b"");
        assert_eq!(last_lines(b"", 3), b"");
        assert_eq!(last_lines(b"\n\n\n", 2), b"\n\n");
    }

    #[test]
    fn lines_longer_than_a_chunk_are_found() {
        let mut content = vec![b'x'; 200_000];
        content.push(b'\n');
        let line = content.clone();
        content.extend_from_slice(&line);
        assert_eq!(last_lines(&content, 1), line);
    }
}
