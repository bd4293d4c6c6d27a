//! A file system that answers slowly, and at times not at all: a FUSE server with directories of any name and one program,
//! so that jobs have their directory or their program on it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, Generation, INodeNo,
    LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEntry, Request,
};

use super::random::Random;

/// The program: it executes the shell, as the same process.
pub(crate) const PROGRAM: &str = "sh";
const PROGRAM_TEXT: &[u8] = b"#!/bin/sh\nexec /bin/sh \"$@\"\n";
const PROGRAM_NUMBER: INodeNo = INodeNo(2);
const DIRECTORY_NUMBER: INodeNo = INodeNo(3);
/// Nothing is remembered, so that everybody who comes has to ask.
const NOT_AT_ALL: Duration = Duration::ZERO;
/// Of so many answers one is late.
const ONE_LATE_OF: u64 = 4;
/// How late it is at most.
const LATE: Duration = Duration::from_millis(250);

type Answer = Box<dyn FnOnce() + Send>;

/// The mounted file system. Dropping it answers everything and unmounts it.
pub(crate) struct SlowMount {
    directory: PathBuf,
    held: Arc<Held>,
    session: Option<BackgroundSession>,
    releaser: Option<JoinHandle<()>>,
}

impl SlowMount {
    pub(crate) fn serve(directory: &Path, seed: u64) -> Result<Self> {
        let held = Arc::new(Held { state: Mutex::new(State::new(seed)), news: Condvar::new() });
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("chaos".to_owned()), MountOption::Exec];
        let session = fuser::spawn_mount(Server { held: held.clone() }, directory, &config)
            .with_context(|| format!("cannot mount a FUSE file system at {}", directory.display()))?;
        let releaser = std::thread::spawn({
            let held = held.clone();
            move || held.release()
        });
        Ok(Self { directory: directory.to_owned(), held, session: Some(session), releaser: Some(releaser) })
    }

    /// Takes what an interrupted run has left away: its server is gone, and it answers nobody.
    pub(crate) fn clear(directory: &Path) -> Result<()> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
        let here = directory.display().to_string();
        for _ in mounts.lines().filter(|line| line.split(' ').nth(1) == Some(&here)) {
            Command::new("umount").arg("-l").arg(directory).status().context("cannot run umount")?;
        }
        Ok(())
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Nobody is answered until then.
    pub(crate) fn hang_until(&self, until: Instant) {
        self.held.lock().hangs_until = Some(until);
        self.held.news.notify_all();
    }

    /// From now on each question is answered at once.
    pub(crate) fn be_quick(&self) {
        let mut state = self.held.lock();
        (state.is_quick, state.hangs_until) = (true, None);
        self.held.news.notify_all();
    }
}

impl Drop for SlowMount {
    fn drop(&mut self) {
        self.be_quick();
        // Whoever hangs there is let go first.
        if let Some(session) = self.session.take() {
            let _ = session.umount_and_join();
        }
        self.held.lock().has_ended = true;
        self.held.news.notify_all();
        if let Some(releaser) = self.releaser.take() {
            let _ = releaser.join();
        }
    }
}

/// Answers that are due later.
struct Held {
    state: Mutex<State>,
    news: Condvar,
}

struct State {
    answers: Vec<(Instant, Answer)>,
    random: Random,
    hangs_until: Option<Instant>,
    is_quick: bool,
    has_ended: bool,
}

impl State {
    fn new(seed: u64) -> Self {
        let random = Random::new(seed, 1 << 41);
        Self { answers: Vec::new(), random, hangs_until: None, is_quick: false, has_ended: false }
    }

    /// When something is due next, if nothing is now.
    fn next_due(&self, now: Instant) -> Option<Duration> {
        let first = self.answers.iter().map(|(due, _)| *due).min()?;
        let due = if self.is_quick { now } else { first.max(self.hangs_until.unwrap_or(first)) };
        Some(due.saturating_duration_since(now))
    }
}

impl Held {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, answer: impl FnOnce() + Send + 'static) {
        let mut state = self.lock();
        let delay = if state.random.one_in(ONE_LATE_OF) { state.random.up_to(LATE) } else { Duration::ZERO };
        state.answers.push((Instant::now() + delay, Box::new(answer)));
        self.news.notify_all();
    }

    /// Gives the answers that are due, until the end.
    fn release(&self) {
        let mut state = self.lock();
        while !state.has_ended {
            let now = Instant::now();
            match state.next_due(now) {
                None => state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    let is_quick = state.is_quick;
                    let due: Vec<(Instant, Answer)> =
                        state.answers.extract_if(.., |(due, _)| is_quick || *due <= now).collect();
                    drop(state);
                    due.into_iter().for_each(|(_, answer)| answer());
                    state = self.lock();
                }
                Some(left) => {
                    let waited = self.news.wait_timeout(state, left);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

struct Server {
    held: Arc<Held>,
}

fn attributes(number: INodeNo) -> FileAttr {
    let is_program = number == PROGRAM_NUMBER;
    FileAttr {
        ino: number,
        size: if is_program { PROGRAM_TEXT.len() as u64 } else { 0 },
        blocks: 1,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: if is_program { FileType::RegularFile } else { FileType::Directory },
        perm: 0o755,
        nlink: 1,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

impl Filesystem for Server {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let number = if name == PROGRAM { PROGRAM_NUMBER } else { DIRECTORY_NUMBER };
        self.held.answer(move || reply.entry(&NOT_AT_ALL, &attributes(number), Generation(0)));
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.held.answer(move || reply.attr(&NOT_AT_ALL, &attributes(number)));
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
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(PROGRAM_TEXT.len());
        let to = from.saturating_add(size as usize).min(PROGRAM_TEXT.len());
        self.held.answer(move || reply.data(&PROGRAM_TEXT[from..to]));
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: u64, reply: ReplyDirectory) {
        self.held.answer(move || reply.ok());
    }

    fn access(&self, _: &Request, _: INodeNo, _: fuser::AccessFlags, reply: fuser::ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_wait_for_their_time_and_for_the_end_of_a_hang() {
        let mut state = State::new(1);
        let now = Instant::now();
        assert_eq!(state.next_due(now), None);
        state.answers.push((now + LATE, Box::new(|| {})));
        assert_eq!(state.next_due(now), Some(LATE));
        state.hangs_until = Some(now + LATE * 2);
        assert_eq!(state.next_due(now), Some(LATE * 2));
        state.is_quick = true;
        assert_eq!(state.next_due(now), Some(Duration::ZERO));
    }
}
