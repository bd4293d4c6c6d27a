//! Files of `/proc`: their length is not known in advance, so that reading one like any other file takes many small reads.

use std::fs::File;
use std::io;

/// More than most of them have.
const ROOM: usize = 4096;
/// With less room than this left, more is made.
const LEAST_ROOM: usize = 1024;

/// The content of one that the kernel makes in one piece, such as `stat`: one read has all of it.
pub(crate) fn read_piece(path: &str) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::with_capacity(ROOM);
    read_more(&file, &mut bytes)?;
    Ok(bytes)
}

/// The content of one that may come in several pieces.
pub(crate) fn read(path: &str) -> io::Result<Vec<u8>> {
    let file = File::open(path)?;
    let mut bytes = Vec::with_capacity(ROOM);
    while read_more(&file, &mut bytes)? > 0 {
        if bytes.capacity() - bytes.len() < LEAST_ROOM {
            bytes.reserve(bytes.len());
        }
    }
    Ok(bytes)
}

fn read_more(file: &File, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let read = || rustix::io::read(file, rustix::buffer::spare_capacity(bytes));
    Ok(rustix::io::retry_on_intr(read)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_the_whole_file() {
        let stat = read_piece("/proc/self/stat").expect("read");
        let fields = |bytes: &[u8]| bytes.split(|byte| *byte == b' ').count();
        assert_eq!(fields(&stat), fields(&std::fs::read("/proc/self/stat").expect("read")));
        // Longer than the room that is made first.
        let maps = read("/proc/self/smaps").expect("read");
        assert!(maps.len() > ROOM && maps.ends_with(b"\n"));
        assert_eq!(read_piece("/proc/0/stat").expect_err("no process").kind(), io::ErrorKind::NotFound);
    }
}
