//! Which mount a path is on, by its text alone: nothing here asks a file system that may not answer.

use std::ffi::OsString;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// A mounted file system, by its device number: places where the same one is mounted are one.
pub(super) type Device = (u32, u32);

/// The mounts of this process, the latest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table(Vec<(PathBuf, Device)>);

impl Table {
    fn parse(text: &[u8]) -> Self {
        let mount = |line: &[u8]| {
            let mut fields = line.split(|byte| *byte == b' ').skip(2);
            let device = str::from_utf8(fields.next()?).ok()?.split_once(':')?;
            let point = fields.nth(1)?;
            Some((unescaped(point), (device.0.parse().ok()?, device.1.parse().ok()?)))
        };
        Self(text.split(|byte| *byte == b'\n').filter_map(mount).collect())
    }

    /// The place where the file system of a path is mounted, with its device.
    pub(super) fn of(&self, path: &Path) -> (&Path, Device) {
        let around = self.0.iter().filter(|(point, _)| path.starts_with(point));
        let deepest = around.max_by_key(|(point, _)| point.components().count());
        deepest.map_or((Path::new("/"), (0, 0)), |(point, device)| (point, *device))
    }
}

/// Space, tab, newline and backslash are written as octal numbers.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, behind)) = rest.split_first() {
        let octal = behind.get(..3).filter(|_| *first == b'\\');
        let number = octal.and_then(|octal| u8::from_str_radix(str::from_utf8(octal).ok()?, 8).ok());
        bytes.push(number.unwrap_or(*first));
        rest = if number.is_some() { &behind[3..] } else { behind };
    }
    OsString::from_vec(bytes).into()
}

/// The table, read again when something was mounted or unmounted.
#[derive(Default)]
pub(super) struct Mounts {
    /// The kernel marks it when the mounts change.
    source: Option<File>,
    table: Arc<Table>,
}

impl Mounts {
    /// As they are now. For threads only that share the process's descriptors.
    pub(super) fn now(&mut self) -> Arc<Table> {
        let is_new = self.source.is_none();
        if is_new {
            self.source = File::open("/proc/self/mountinfo").ok();
        }
        if let Some(source) = &mut self.source {
            let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
            let mut wait = [PollFd::new(source, PollFlags::PRI)];
            let has_changed = poll(&mut wait, Some(&at_once)).is_ok_and(|changed| changed > 0);
            let mut text = Vec::new();
            if (is_new || has_changed)
                && source.seek(SeekFrom::Start(0)).is_ok()
                && source.read_to_end(&mut text).is_ok()
            {
                self.table = Arc::new(Table::parse(&text));
            }
        }
        Arc::clone(&self.table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_latest_mount_counts() {
        let text = b"22 1 8:1 / / rw shared:1 - ext4 /dev/sda1 rw\n\
            30 22 0:40 / /mnt rw - tmpfs none rw\n\
            31 30 0:41 / /mnt/a\\040b rw - fuse none rw\n\
            32 22 0:42 / /mnt rw - nfs none rw\n";
        let table = Table::parse(text);
        let of = |path: &str| table.of(Path::new(path));
        assert_eq!(of("/home/x"), (Path::new("/"), (8, 1)));
        assert_eq!(of("/mnt"), (Path::new("/mnt"), (0, 42)));
        assert_eq!(of("/mntx"), (Path::new("/"), (8, 1)));
        assert_eq!(of("/mnt/a b/c/d"), (Path::new("/mnt/a b"), (0, 41)));
        assert_eq!(Table::parse(b"no mounts").of(Path::new("/x")), (Path::new("/"), (0, 0)));
    }

    #[test]
    fn the_mounts_of_this_process_are_read_once() {
        use std::os::unix::fs::MetadataExt as _;
        let mut mounts = Mounts::default();
        let table = mounts.now();
        let proc = std::fs::metadata("/proc/self").expect("there").dev();
        let device = (rustix::fs::major(proc), rustix::fs::minor(proc));
        assert_eq!(table.of(Path::new("/proc/self/status")), (Path::new("/proc"), device));
        assert!(Arc::ptr_eq(&table, &mounts.now()));
    }
}
