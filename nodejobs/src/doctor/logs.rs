//! Whether the file system of the logs can free the beginning of a file: without that no cap can be kept.

use std::io::{self, Write as _};
use std::path::Path;

use nodejobs_proc::logs::free;
use rustix::fs::{Mode, OFlags};

use super::Finding;

const CHECK: &str = "log caps";

pub(super) fn look(data_dir: &Path) -> Vec<Finding> {
    match try_it(data_dir) {
        Ok(()) => vec![Finding::ok(CHECK, "old output can be freed while jobs write on")],
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            let text = "this file system cannot free the beginning of a file, so logs grow beyond --log-cap";
            let way_out = "choose a directory on ext4, xfs, btrfs or tmpfs with --data-dir";
            vec![Finding::weaker(CHECK, text, way_out)]
        }
        // What is wrong then is said by others.
        Err(_) => Vec::new(),
    }
}

/// With a file that has no name, so it leaves nothing behind.
fn try_it(data_dir: &Path) -> io::Result<()> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = match rustix::fs::open(data_dir, flags, Mode::RUSR | Mode::WUSR) {
        Ok(file) => std::fs::File::from(file),
        // That it knows no such files says nothing of the other.
        Err(error) => return Err(io::Error::other(error)),
    };
    (&file).write_all(&[0; 8192])?;
    free(&file, 0, 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_leaves_nothing_behind() {
        let directory = tempfile::tempdir().expect("a directory");
        let found = look(directory.path());
        assert!(found.iter().all(|finding| finding.check == CHECK), "{found:?}");
        assert_eq!(std::fs::read_dir(directory.path()).expect("read").count(), 0);
        assert_eq!(look(&directory.path().join("none")), []);
    }
}
