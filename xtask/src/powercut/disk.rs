//! File systems in images, and the commands that make, mount and unmount them.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
use rustix::io::Errno;

use crate::process::{finish, sealed, succeed};

const DEADLINE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;
/// Where tools that administrators use are as well.
const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// A file system that is tried.
pub(crate) struct FileSystem {
    pub(crate) name: &'static str,
    /// What makes one, the image comes last.
    make: &'static [&'static str],
    options: &'static str,
    /// The smallest image that it can be on.
    least: u64,
}

/// The file systems; the first one is there wherever Linux is.
#[rustfmt::skip]
pub(crate) const FILE_SYSTEMS: &[FileSystem] = &[
    FileSystem { name: "ext4",  make: &["mkfs.ext4", "-q", "-F", "-b", "4096", "-E", "lazy_itable_init=0,lazy_journal_init=0,nodiscard"], options: "defaults", least: 64 * MIB },
    FileSystem { name: "xfs",   make: &["mkfs.xfs", "-q", "-f", "-K"], options: "defaults", least: 320 * MIB },
    FileSystem { name: "btrfs", make: &["mkfs.btrfs", "-q", "-f", "-K"], options: "nodiscard", least: 256 * MIB },
];

impl FileSystem {
    pub(crate) fn named(name: &str) -> Result<&'static Self> {
        FILE_SYSTEMS.iter().find(|one| one.name == name).with_context(|| format!("no file system '{name}'"))
    }

    /// What is missing on this machine, if anything.
    pub(crate) fn lacks(&self) -> Option<String> {
        let is_there = |directory: &str| Path::new(directory).join(self.make[0]).exists();
        if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/fuse") {
            Some(format!("/dev/fuse: {error}"))
        } else if !PATH.split(':').any(is_there) {
            Some(format!("there is no {}", self.make[0]))
        } else {
            let line = |error| format!("{error:#}").lines().next().unwrap_or_default().to_owned();
            self.try_it().err().map(line)
        }
    }

    /// Mounts a new one, in a mount namespace of its own.
    fn try_it(&self) -> Result<()> {
        let image = self.make(0)?;
        let device = attach(&path(&image))?;
        let mount = ["--mount", "mount", "-t", self.name, "-o", self.options, &device, "/tmp"];
        let mounted = succeed(tool("unshare").args(mount), DEADLINE);
        detach(&device)?;
        mounted.map(drop)
    }

    /// A new file system in memory.
    pub(crate) fn make(&self, seconds: u64) -> Result<File> {
        // What jobs write in this time, and a margin.
        let image = memory(self.least.max(seconds * 6 * MIB))?;
        succeed(tool(self.make[0]).args(&self.make[1..]).arg(path(&image)), DEADLINE)?;
        Ok(image)
    }

    /// Mounts an image by way of a loop device, which goes when it is unmounted.
    pub(crate) fn mount(&self, image: &Path, directory: &Path) -> Result<Mounted> {
        let device = attach(image)?;
        let mount = ["-t", self.name, "-o", self.options, &device];
        let mounted = succeed(tool("mount").args(mount).arg(directory), DEADLINE);
        // In use it only says that it shall go with its last user.
        detach(&device)?;
        mounted?;
        Ok(Mounted { directory: directory.to_owned(), is_mounted: true })
    }
}

/// A loop device for this file.
fn attach(image: &Path) -> Result<String> {
    let device = succeed(tool("losetup").args(["--find", "--show"]).arg(image), DEADLINE)?.stdout;
    Ok(device.trim().to_owned())
}

fn detach(device: &str) -> Result<()> {
    succeed(tool("losetup").args(["--detach", device]), DEADLINE).map(drop)
}

/// A mounted image.
pub(crate) struct Mounted {
    directory: PathBuf,
    is_mounted: bool,
}

impl Mounted {
    /// Unmounts it. `end_users` kills the processes that use it, and is called again while one is left: a process
    /// that is just being executed has neither arguments nor environment to be known by.
    pub(crate) fn unmount(mut self, end_users: impl Fn() -> Result<()>) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while self.is_mounted {
            end_users()?;
            let unmounted = finish(tool("umount").arg(&self.directory), DEADLINE)?;
            self.is_mounted = !unmounted.status.success();
            ensure!(
                !self.is_mounted || Instant::now() < deadline,
                "cannot unmount: {}",
                unmounted.stderr.trim()
            );
        }
        Ok(())
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.is_mounted {
            // Something failed before, and that is what will be told.
            let _ = finish(tool("umount").arg("--lazy").arg(&self.directory), DEADLINE);
        }
    }
}

/// Makes the rest of this process, and what it starts, believe that the machine has been started again. What is mounted
/// is seen here only: the task runs in a mount namespace of its own.
pub(crate) fn restart(work: &Path) -> Result<()> {
    const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
    let earlier = fs::read_to_string(BOOT_ID).with_context(|| format!("cannot read {BOOT_ID}"))?;
    let file = work.join("boot_id");
    let next = if earlier.starts_with("00000000") { "11111111" } else { "00000000" };
    fs::write(&file, format!("{next}{}", &earlier[8..])).context("cannot write a boot id")?;
    succeed(tool("mount").arg("--bind").arg(&file).arg(BOOT_ID), DEADLINE)?;
    if fs::read_to_string(BOOT_ID).context("cannot read the boot id")? == earlier {
        bail!("the boot id is the same as before");
    }
    Ok(())
}

/// A command that administrators use.
pub(crate) fn tool(name: &str) -> Command {
    let mut command = sealed(name);
    command.env("PATH", PATH);
    command
}

/// A file in memory, full of zeros.
pub(crate) fn memory(size: u64) -> Result<File> {
    let file: File =
        memfd_create("powercut", MemfdFlags::CLOEXEC).context("cannot create a memory file")?.into();
    file.set_len(size).context("cannot size a memory file")?;
    Ok(file)
}

/// By which other processes can open a file in memory.
pub(crate) fn path(file: &File) -> PathBuf {
    format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into()
}

/// A copy in memory, holes stay holes.
pub(crate) fn copy(from: &File) -> Result<File> {
    let size = from.metadata().context("cannot look at an image")?.len();
    let to = memory(size)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    loop {
        let data = match seek(from, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok(to),
            Err(error) => return Err(error).context("cannot find what is in an image"),
        };
        let end = seek(from, SeekFrom::Hole(data)).context("cannot find what is in an image")?;
        at = data;
        while at < end {
            let length = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
            from.read_exact_at(&mut buffer[..length], at).context("cannot read an image")?;
            to.write_all_at(&buffer[..length], at).context("cannot write an image")?;
            at += length as u64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_bytes_and_the_holes() {
        let from = memory(4 * MIB).unwrap();
        from.write_all_at(b"first", 0).unwrap();
        from.write_all_at(b"last", 3 * MIB).unwrap();
        let to = copy(&from).unwrap();
        let (mut all, mut copied) = (vec![0; 4 << 20], vec![1; 4 << 20]);
        from.read_exact_at(&mut all, 0).unwrap();
        to.read_exact_at(&mut copied, 0).unwrap();
        assert!(all == copied);
        assert_eq!(seek(&to, SeekFrom::Hole(0)).unwrap(), 4096);
    }
}
