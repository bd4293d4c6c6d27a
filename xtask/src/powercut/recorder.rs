//! A disk that remembers: a FUSE file system with one file, the image, of which each write and each flush is recorded.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyWrite, Request,
    WriteFlags,
};

/// The name of the one file.
const IMAGE: &str = "image";
const IMAGE_NUMBER: INodeNo = INodeNo(2);
/// Neither name nor size of it ever change.
const FOREVER: Duration = Duration::from_secs(1 << 20);

/// What the disk was asked to do, in the order in which it was asked.
pub(crate) enum Event {
    Write {
        offset: u64,
        bytes: Box<[u8]>,
    },
    /// Everything before it is on disk.
    Flush,
}

/// What was recorded so far.
pub(crate) struct Recording {
    begun: Instant,
    events: Mutex<Vec<(Duration, Event)>>,
    has_ended: AtomicBool,
}

impl Recording {
    fn new() -> Self {
        Self { begun: Instant::now(), events: Mutex::default(), has_ended: AtomicBool::new(false) }
    }

    /// How many events there are. What was known before is known after each power cut behind this event.
    pub(crate) fn count(&self) -> usize {
        self.events().len()
    }

    /// Takes no event from now on, and gives those there are.
    pub(crate) fn end(&self) -> Vec<(Duration, Event)> {
        self.has_ended.store(true, Ordering::Release);
        std::mem::take(&mut *self.events())
    }

    fn note(&self, event: Event) {
        if !self.has_ended.load(Ordering::Acquire) {
            self.events().push((self.begun.elapsed(), event));
        }
    }

    fn events(&self) -> MutexGuard<'_, Vec<(Duration, Event)>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The mounted file system. Dropping it unmounts it.
pub(crate) struct Recorder {
    pub(crate) recording: Arc<Recording>,
    pub(crate) image: PathBuf,
    _session: BackgroundSession,
}

impl Recorder {
    /// Serves this file as the image below this directory. Writes go into the file as well.
    pub(crate) fn serve(file: File, directory: &Path) -> Result<Self> {
        let recording = Arc::new(Recording::new());
        let size = file.metadata().context("cannot look at the image")?.len();
        let server = Server { file, size, recording: recording.clone() };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("powercut".to_owned())];
        let session = fuser::spawn_mount(server, directory, &config)
            .with_context(|| format!("cannot mount a FUSE file system at {}", directory.display()))?;
        Ok(Self { recording, image: directory.join(IMAGE), _session: session })
    }
}

struct Server {
    file: File,
    size: u64,
    recording: Arc<Recording>,
}

impl Server {
    fn attributes(&self, number: INodeNo) -> FileAttr {
        let is_image = number == IMAGE_NUMBER;
        FileAttr {
            ino: number,
            size: if is_image { self.size } else { 0 },
            blocks: if is_image { self.size / 512 } else { 0 },
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind: if is_image { FileType::RegularFile } else { FileType::Directory },
            perm: if is_image { 0o600 } else { 0o700 },
            nlink: 1,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }
}

/// One thread answers, one request after the other, so the order of the events is that of the answers.
impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent == INodeNo::ROOT && name == IMAGE {
            reply.entry(&FOREVER, &self.attributes(IMAGE_NUMBER), Generation(0));
        } else {
            reply.error(Errno::ENOENT);
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOREVER, &self.attributes(number));
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let left = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; left.min(size as usize)];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => reply.data(&bytes),
            Err(_) => reply.error(Errno::EIO),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        self.recording.note(Event::Write { offset, bytes: data.into() });
        match (self.file.write_all_at(data, offset), u32::try_from(data.len())) {
            (Ok(()), Ok(length)) => reply.written(length),
            _ => reply.error(Errno::EIO),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.recording.note(Event::Flush);
        reply.ok();
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }
}
