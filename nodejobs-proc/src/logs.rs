//! Reading the log files that jobs write: the last lines, and what comes next.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::FallocateFlags;
use rustix::fs::inotify::{self, CreateFlags, ReadFlags, WatchFlags};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};

/// Where the last so many lines of a file begin, or of its part from `start` to `end`. A last line without its newline counts as
/// one.
///
/// # Errors
/// When the file cannot be read.
pub fn offset_of_last_lines(file: &mut File, start: u64, end: Option<u64>, lines: u64) -> io::Result<u64> {
    const CHUNK: u64 = 64 * 1024;
    let length = file.seek(SeekFrom::End(0))?;
    let end = end.map_or(length, |end| end.min(length));
    if lines == 0 || end <= start {
        return Ok(end.max(start));
    }
    let mut newlines = 0;
    let mut chunk_end = end;
    let mut buffer = Vec::new();
    while chunk_end > start {
        let chunk_start = chunk_end.saturating_sub(CHUNK).max(start);
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
    Ok(start)
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
/// down. What was written before is not told. Gives the number by which [`written_files`] tells of it.
///
/// # Errors
/// When there is no such file.
pub fn watch_next_write(watch: impl AsFd, path: &Path) -> io::Result<i32> {
    Ok(inotify::add_watch(watch, path, WatchFlags::MODIFY | WatchFlags::ONESHOT)?)
}

/// [`watch_next_write`] for a thread with [descriptors of its own](crate::own_descriptors): it takes the watch from the
/// process by its number, for so long.
///
/// # Errors
/// When there is no such file, or the kernel (before 5.6) or a sandbox gives no descriptors.
pub fn watch_next_write_from_afar(watch: RawFd, path: &Path) -> io::Result<i32> {
    let own = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let watch = pidfd_getfd(own, watch, PidfdGetfdFlags::empty())?;
    watch_next_write(watch, path)
}

/// Forgets a watch that has told nothing.
pub fn unwatch(watch: impl AsFd, number: i32) {
    // It may have told and be gone by now.
    let _ = inotify::remove_watch(watch, number);
}

/// What a descriptor of [`new_write_watch`] tells: calls `written` with the number that [`watch_next_write`] gave for
/// each file that was written to, and with `None` if there were too many to tell.
///
/// # Errors
/// When the descriptor cannot be read.
pub fn written_files(watch: impl AsFd, mut written: impl FnMut(Option<i32>)) -> io::Result<()> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(watch, &mut buffer);
    loop {
        match reader.next() {
            Ok(event) if event.events().contains(ReadFlags::QUEUE_OVERFLOW) => written(None),
            Ok(event) if event.events().contains(ReadFlags::MODIFY) => written(Some(event.wd())),
            // The end of a watch, which is told as well.
            Ok(_) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where the file's first byte is that was not freed, at or behind this offset; the file's length if none is. Whoever
/// reads from the file has to seek afterwards.
///
/// # Errors
/// When the file cannot be asked.
pub fn first_kept(file: &File, from: u64) -> io::Result<u64> {
    match rustix::fs::seek(file, rustix::fs::SeekFrom::Data(from)) {
        Ok(offset) => Ok(offset),
        Err(rustix::io::Errno::NXIO) => Ok(file.metadata()?.len().max(from)),
        // A file system that knows no holes has none.
        Err(rustix::io::Errno::INVAL) => Ok(from),
        Err(error) => Err(error.into()),
    }
}

/// Frees the blocks between these offsets, which have to be multiples of the block size. Everything else stays where
/// it is, and whoever appends to the file may go on meanwhile.
///
/// # Errors
/// [`Unsupported`](io::ErrorKind::Unsupported) where the file system cannot do that.
pub fn free(file: &File, from: u64, to: u64) -> io::Result<()> {
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(file, flags, from, to - from)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn what_is_freed_takes_no_room_and_moves_nothing() {
        use std::os::unix::fs::MetadataExt as _;
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&[b'x'; 40_000]).expect("written");
        assert_eq!(first_kept(&file, 5).expect("asked"), 5);
        let before = file.metadata().expect("looked");
        free(&file, 0, 32_768).expect("freed");
        assert_eq!(first_kept(&file, 0).expect("asked"), 32_768);
        assert_eq!(first_kept(&file, 33_000).expect("asked"), 33_000);
        let after = file.metadata().expect("looked");
        assert_eq!(after.len(), 40_000);
        assert!(
            after.blocks() + 60 <= before.blocks().max(64 + 16),
            "{} {}",
            before.blocks(),
            after.blocks()
        );
        free(&file, 32_768, 40_960).expect("freed");
        assert_eq!(first_kept(&file, 0).expect("asked"), 40_000, "nothing is left");
    }

    #[test]
    fn a_thread_with_descriptors_of_its_own_can_have_a_write_told() {
        use std::os::fd::AsRawFd as _;
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        let watch = new_write_watch().expect("a watch");
        let (number, path) = (watch.as_raw_fd(), file.path().to_owned());
        let afar = std::thread::spawn(move || {
            crate::own_descriptors();
            watch_next_write_from_afar(number, &path)
        });
        let watched = afar.join().expect("a thread").expect("watched");
        let told = || {
            let mut told = Vec::new();
            written_files(&watch, |number| told.push(number)).expect("read");
            told
        };
        assert_eq!(told(), []);
        file.write_all(b"x").expect("written");
        assert_eq!(told(), [Some(watched)]);
    }

    fn last_lines(content: &[u8], lines: u64) -> Vec<u8> {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(content).expect("written");
        let offset = offset_of_last_lines(&mut file, 0, None, lines).expect("read");
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
