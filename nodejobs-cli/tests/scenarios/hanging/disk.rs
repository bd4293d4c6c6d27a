//! A file system of the tests that stops answering, as a dead server's does, and goes on when it is told to.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, TimeOrNow, WriteFlags,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd as _, OwnedFd};
use rustix::mount::{UnmountFlags, unmount};

use super::tree::Tree;
use crate::support::eventually;

/// How it does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hang {
    /// It takes requests and keeps them: no signal ends the wait for an answer.
    Taken,
    /// It does not even take them, as if its process was halted: SIGKILL ends the wait.
    NotTaken,
}

impl Hang {
    /// Both ways.
    pub(crate) const BOTH: [Hang; 2] = [Hang::Taken, Hang::NotTaken];
}

/// A mounted file system. The test must not touch it while it hangs: [`put`](Self::put) and [`content`](Self::content)
/// go to its memory. When this is dropped, whoever waits for an answer gets an error.
pub(crate) struct HangingDisk {
    shared: Arc<Shared>,
    place: tempfile::TempDir,
    session: Option<BackgroundSession>,
    /// The same connection, to see whether something waits to be taken.
    device: OwnedFd,
}

type Act = Box<dyn FnOnce(Result<&mut Tree, Errno>) + Send>;

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    tree: Tree,
    hang: Option<Hang>,
    /// Requests that were taken and are not answered.
    held: Vec<Act>,
    /// Whether the thread that takes requests stands still.
    stands: bool,
    /// Whether everything is answered with an error.
    gone: bool,
    /// Counts how often it began to hang.
    hangs: u64,
}

/// For so long at most it hangs: a test that waits for it then fails, instead of waiting for ever.
const LIMIT: Duration = Duration::from_secs(90);

impl HangingDisk {
    /// `None`, and a line that says so, where this user may not mount one.
    pub(crate) fn mount() -> Option<Self> {
        match Self::try_mount() {
            Ok(disk) => Some(disk),
            Err(error) => {
                eprintln!("skipped, no file system that could hang: {error}");
                None
            }
        }
    }

    fn try_mount() -> io::Result<Self> {
        let place = tempfile::tempdir()?;
        let state =
            State { tree: Tree::new(), hang: None, held: Vec::new(), stands: false, gone: false, hangs: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("nodejobs-test".to_owned())];
        let session = Session::new(Server(Arc::clone(&shared)), place.path(), &config)?;
        let device = session.as_fd().try_clone_to_owned()?;
        Ok(Self { shared, place, session: Some(session.spawn()?), device })
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.place.path()
    }

    /// The path of something on it, as text.
    pub(crate) fn at(&self, name: &str) -> String {
        self.path().join(name).to_string_lossy().into_owned()
    }

    /// Makes a file, without asking the kernel.
    pub(crate) fn put(&self, name: &str, content: &[u8], perm: u32) {
        let tree = &mut self.shared.lock().tree;
        let path = PathBuf::from(name);
        let parent = tree.find(path.parent().expect("a parent")).expect("a directory");
        let made = tree.make(parent, path.file_name().expect("a name"), perm, false).expect("made");
        tree.write(made.ino.0, 0, content).expect("written");
    }

    /// Makes a directory in the topmost one, without asking the kernel.
    pub(crate) fn put_directory(&self, name: &str) {
        let tree = &mut self.shared.lock().tree;
        let top = tree.find(Path::new("")).expect("the topmost directory");
        tree.make(top, name.as_ref(), 0o755, true).expect("made");
    }

    /// What a file has, without asking the kernel; `None` if there is none.
    pub(crate) fn content(&self, name: &str) -> Option<Vec<u8>> {
        self.shared.lock().tree.content(Path::new(name))
    }

    /// From now on nothing is answered.
    pub(crate) fn hang(&self, how: Hang) {
        let mut state = self.shared.lock();
        state.hang = Some(how);
        state.hangs += 1;
        let (shared, this) = (Arc::clone(&self.shared), state.hangs);
        drop(state);
        std::thread::spawn(move || shared.end_after(LIMIT, this));
        if how == Hang::Taken {
            return;
        }
        // The thread waits for a request. It answers the next one, and then stands still.
        let path = self.path().join("is-there");
        std::thread::spawn(move || path.symlink_metadata());
        let stands = self.shared.changed.wait_while(self.shared.lock(), |state| !state.stands);
        drop(stands.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until somebody waits for an answer.
    pub(crate) fn is_asked(&self) {
        eventually("the file system is asked", || self.has_asked().then_some(()));
    }

    /// Whether somebody waits for an answer.
    pub(crate) fn has_asked(&self) -> bool {
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let state = self.shared.lock();
        let waits = || poll(&mut [PollFd::new(&self.device, PollFlags::IN)], Some(&at_once));
        !state.held.is_empty() || (state.stands && waits().is_ok_and(|count| count > 0))
    }

    /// Answers what was asked, and everything from now on.
    pub(crate) fn answer(&self) {
        let mut state = self.shared.lock();
        state.hang = None;
        for act in std::mem::take(&mut state.held) {
            act(Ok(&mut state.tree));
        }
        self.shared.changed.notify_all();
    }
}

impl Drop for HangingDisk {
    fn drop(&mut self) {
        let is_over = self.shared.lock().gone;
        self.shared.end();
        // Detached at once. The thread tells those who are still there of an error, until all are gone.
        let detached = unmount(self.place.path(), UnmountFlags::DETACH);
        drop(self.session.take());
        // Whoever needed a helper to mount it needs one again, which the session knows.
        assert!(!is_over || std::thread::panicking(), "it hung for {LIMIT:?}: somebody waited for it");
        if !std::thread::panicking() && detached != Err(rustix::io::Errno::PERM) {
            detached.expect("unmounted");
        }
    }
}

impl Shared {
    /// Answers everything with an error from now on.
    fn end(&self) {
        let mut state = self.lock();
        state.gone = true;
        state.hang = None;
        for act in std::mem::take(&mut state.held) {
            act(Err(Errno::EIO));
        }
        self.changed.notify_all();
    }

    /// Does so if it still hangs then.
    fn end_after(&self, limit: Duration, hang: u64) {
        let hangs = |state: &mut State| state.hang.is_some() && state.hangs == hang;
        let waited = self.changed.wait_timeout_while(self.lock(), limit, hangs);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(state);
        if waited.timed_out() {
            self.end();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Server(Arc<Shared>);

/// Names may be asked for again at once: nobody may remember anything.
const NEVER_KEPT: Duration = Duration::ZERO;

impl Server {
    fn serve(&self, act: impl FnOnce(Result<&mut Tree, Errno>) + Send + 'static) {
        let mut state = self.0.lock();
        match (state.gone, state.hang) {
            (true, _) => act(Err(Errno::EIO)),
            (false, Some(Hang::Taken)) => state.held.push(Box::new(act)),
            (false, Some(Hang::NotTaken) | None) => act(Ok(&mut state.tree)),
        }
        while state.hang == Some(Hang::NotTaken) {
            state.stands = true;
            self.0.changed.notify_all();
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.stands = false;
    }

    fn entry(
        &self,
        reply: ReplyEntry,
        act: impl FnOnce(&mut Tree) -> Result<fuser::FileAttr, Errno> + Send + 'static,
    ) {
        self.serve(move |tree| match tree.and_then(act) {
            Ok(attr) => reply.entry(&NEVER_KEPT, &attr, Generation(0)),
            Err(error) => reply.error(error),
        });
    }

    fn attr(
        &self,
        reply: ReplyAttr,
        act: impl FnOnce(&mut Tree) -> Result<fuser::FileAttr, Errno> + Send + 'static,
    ) {
        self.serve(move |tree| match tree.and_then(act) {
            Ok(attr) => reply.attr(&NEVER_KEPT, &attr),
            Err(error) => reply.error(error),
        });
    }

    fn done(&self, reply: ReplyEmpty, act: impl FnOnce(&mut Tree) -> Result<(), Errno> + Send + 'static) {
        self.serve(move |tree| match tree.and_then(act) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        });
    }

    fn opened(&self, reply: ReplyOpen) {
        self.serve(move |tree| match tree {
            Ok(_) => reply.opened(FileHandle(0), FopenFlags::empty()),
            Err(error) => reply.error(error),
        });
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.entry(reply, move |tree| tree.lookup(parent.0, &name));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.attr(reply, move |tree| tree.attr(number.0));
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.attr(reply, move |tree| tree.change(number.0, mode, size));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let name = name.to_owned();
        self.entry(reply, move |tree| tree.make(parent.0, &name, mode, true));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.done(reply, move |tree| tree.remove(parent.0, &name, false));
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.done(reply, move |tree| tree.remove(parent.0, &name, true));
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        self.done(reply, move |tree| tree.rename((parent.0, &name), (new_parent.0, &new_name)));
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.opened(reply);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.opened(reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let name = name.to_owned();
        self.serve(move |tree| match tree.and_then(|tree| tree.make(parent.0, &name, mode, false)) {
            Ok(attr) => {
                reply.created(&NEVER_KEPT, &attr, Generation(0), FileHandle(0), FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        });
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.serve(move |tree| match tree.and_then(|tree| tree.read(number.0, offset, size)) {
            Ok(bytes) => reply.data(bytes),
            Err(error) => reply.error(error),
        });
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        self.serve(move |tree| match tree.and_then(|tree| tree.write(number.0, offset, &data)) {
            Ok(written) => reply.written(written),
            Err(error) => reply.error(error),
        });
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.serve(move |tree| match tree.and_then(|tree| tree.list(number.0)) {
            Ok(entries) => {
                let told = usize::try_from(offset).unwrap_or(usize::MAX);
                for (next, (number, kind, name)) in (1..).zip(entries).skip(told) {
                    if reply.add(INodeNo(number), next, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(error) => reply.error(error),
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.serve(move |tree| match tree {
            Ok(_) => reply.statfs(1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 4096, 255, 4096),
            Err(error) => reply.error(error),
        });
    }
}
