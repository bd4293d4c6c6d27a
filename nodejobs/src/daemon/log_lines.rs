//! The daemon's log lines on standard error, time, level and message, and the bounds of the file they go to.
//!
//! Whoever started the daemon has opened the file to append to it. When it is full, it is renamed, and a new one takes
//! its place as standard error. Panics come along as lines, so nothing of ours gets around the bounds.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};
use nodejobs_proc::machine::now;

use super::{LOG_BYTES, LOG_NAME};

/// What is longer is cut: one line must not fill the file.
const LINE_BYTES: usize = 16 << 10;

/// Sends the log lines of nodejobs, and panics, to standard error.
pub(super) fn install(data_dir: &Path) {
    let mut output = Output::stderr(data_dir);
    // What others have written, or an earlier version, is put aside at once.
    let _ = output.make_room(0);
    if log::set_boxed_logger(Box::new(Lines(Mutex::new(output)))).is_ok() {
        log::set_max_level(LevelFilter::Info);
        std::panic::set_hook(Box::new(|panic| {
            let trace = Backtrace::capture();
            match trace.status() {
                BacktraceStatus::Captured => log::error!("{panic}\n{trace}"),
                _ => log::error!("{}", panic.to_string().replace('\n', " ")),
            }
        }));
    }
}

struct Lines(Mutex<Output>);

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("nodejobs")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = format!("{} {:<5} {}", now().wall, record.level(), record.args());
            // A log that cannot be written or put aside is no reason to stop.
            let _ = self.0.lock().unwrap_or_else(PoisonError::into_inner).write(line);
        }
    }

    fn flush(&self) {}
}

/// Where the lines go.
enum Output {
    /// Somebody watches it, or takes care of it.
    Stderr,
    /// The file of the data directory.
    File {
        path: PathBuf,
        file: File,
        /// Whether standard error goes there as well, and has to move along.
        is_stderr: bool,
    },
}

impl Output {
    /// Standard error, which may be the log of the data directory.
    fn stderr(data_dir: &Path) -> Self {
        let path = data_dir.join(LOG_NAME);
        match rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3).map(File::from) {
            Ok(file) if is_named(&file, &path) => Output::File { path, file, is_stderr: true },
            Ok(_) | Err(_) => Output::Stderr,
        }
    }

    fn write(&mut self, mut line: String) -> io::Result<()> {
        if line.len() > LINE_BYTES {
            let end = (0..=LINE_BYTES).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
            line.truncate(end);
            line.push('…');
        }
        line.push('\n');
        // If it cannot be put aside, the line is more important than the bounds.
        let _ = self.make_room(line.len());
        match self {
            Output::Stderr => io::stderr().write_all(line.as_bytes()),
            Output::File { file, .. } => file.write_all(line.as_bytes()),
        }
    }

    /// Puts the file aside if so many bytes more are too many.
    fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        let Output::File { path, file, is_stderr } = self else { return Ok(()) };
        let length = file.metadata()?.len();
        if length == 0 || length + bytes as u64 <= LOG_BYTES {
            return Ok(());
        }
        // Another daemon, one of the two on its way out, may have put it aside already.
        if is_named(file, path) {
            let mut aside = path.as_os_str().to_owned();
            aside.push(".1");
            std::fs::rename(&*path, aside)?;
        }
        *file = OpenOptions::new().append(true).create(true).mode(0o600).open(&*path)?;
        if *is_stderr {
            rustix::stdio::dup2_stderr(&*file)?;
        }
        Ok(())
    }
}

/// Whether the path leads to this very file.
fn is_named(file: &File, path: &Path) -> bool {
    let place = |found: std::fs::Metadata| (found.dev(), found.ino());
    let own = file.metadata().map(place);
    own.is_ok_and(|own| std::fs::metadata(path).map(place).is_ok_and(|named| named == own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(path: &Path) -> Output {
        let file = OpenOptions::new().append(true).create(true).open(path).expect("opened");
        Output::File { path: path.to_owned(), file, is_stderr: false }
    }

    fn length(path: &Path) -> u64 {
        std::fs::metadata(path).map_or(0, |found| found.len())
    }

    #[test]
    fn a_flood_fills_two_files_and_no_more() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, aside) = (directory.path().join(LOG_NAME), directory.path().join("daemon.log.1"));
        let mut output = output(&path);
        let mut last = String::new();
        for number in 0..300_u32 {
            last = format!("{number} {}", "ü".repeat(10_000));
            output.write(last.clone()).expect("written");
            assert!(length(&path) <= LOG_BYTES && length(&aside) <= LOG_BYTES);
        }
        assert_eq!(std::fs::read_dir(directory.path()).expect("a directory").count(), 2);
        assert!(length(&aside) > LOG_BYTES - 2 * LINE_BYTES as u64);
        let text = std::fs::read_to_string(&path).expect("whole characters");
        let line = text.lines().last().expect("a line");
        assert!(line.len() <= LINE_BYTES + '…'.len_utf8() && last.starts_with(line.trim_end_matches('…')));
    }

    #[test]
    fn two_that_share_the_file_put_it_aside_once() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, aside) = (directory.path().join(LOG_NAME), directory.path().join("daemon.log.1"));
        let (mut one, mut other) = (output(&path), output(&path));
        while length(&aside) == 0 {
            one.write("x".repeat(LINE_BYTES)).expect("written");
        }
        // It still writes to the file that was put aside, in which there is no room for this.
        other.write("x".repeat(LINE_BYTES - 14) + "from the other").expect("written");
        assert!(std::fs::read_to_string(&path).expect("text").ends_with("from the other\n"));
        assert!(length(&aside) > LOG_BYTES / 2, "it was not put aside a second time");
    }
}
