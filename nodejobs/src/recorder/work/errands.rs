//! Looks at files that users placed: each is an errand on a thread of their file system. While it is under way the
//! thread that looks at logs has nothing of the job, and what it hears of it waits until the errand is back.

use std::io;
use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use nodejobs_core::{JobId, Timestamp};
use nodejobs_proc::logs::{new_write_watch, watch_next_write_from_afar};
use nodejobs_proc::machine::now;
use tokio::sync::oneshot;

use super::super::tracked::{SWEEP, Tracked};
use super::{Due, Message, Work};
use crate::files;

/// What is to be found out.
#[derive(Clone, Copy)]
pub(super) struct Errand {
    /// When it was heard that something was written.
    pub(super) heard: Option<Timestamp>,
    /// Whether to have the next write told if nothing is new.
    pub(super) watch: bool,
    /// Whether it is the last look.
    pub(super) last: bool,
    /// Whether to note what is new.
    pub(super) note: bool,
    /// When the next look is due that watches, if this one does not: a look for the sake of a cap puts it off no further.
    pub(super) due: Option<Instant>,
}

/// What an errand has found.
pub(in super::super) struct Back {
    id: JobId,
    errand: Errand,
    /// Nothing if it ended in a panic.
    found: Option<(Tracked, Found)>,
}

struct Found {
    is_new: io::Result<bool>,
    /// How soon its cap is to be looked at again.
    soon: io::Result<Duration>,
    /// Whether every file is watched.
    watched: io::Result<bool>,
}

/// A job whose files are being looked at.
#[derive(Default)]
pub(super) struct Away {
    /// What was heard of it meanwhile.
    messages: Vec<Message>,
    /// Whoever waits for the look.
    asked: Vec<oneshot::Sender<()>>,
    /// Watches that have told of a write meanwhile.
    told: Vec<i32>,
    /// Whether this process was halted meanwhile.
    pub(super) halted: bool,
}

impl Errand {
    /// A look like any other.
    pub(super) const LOOK: Self = Self { heard: None, watch: false, last: false, note: true, due: None };
    /// The last one.
    pub(super) const LAST: Self = Self { last: true, ..Self::LOOK };
    /// Of a job that has ended: only its cap counts.
    pub(super) const CAP: Self = Self { note: false, ..Self::LAST };

    /// On the thread of the file system.
    fn run(self, tracked: &mut Tracked, watch: Option<RawFd>) -> Found {
        if let Some(time) = self.heard {
            tracked.heard(time);
        }
        // First of all: the less there is to free, the sooner it is done.
        let soon = tracked.keep_cap();
        let mut is_new = if self.note { tracked.note(now().wall) } else { Ok(false) };
        let mut watched = Ok(false);
        if let (Ok(false), Some(watch)) = (&is_new, watch) {
            watched = Ok(true);
            for file in tracked.files.iter_mut().filter(|file| file.watch.is_none()) {
                match watch_next_write_from_afar(watch, &file.path) {
                    Ok(number) => file.watch = Some(number),
                    // Removed by somebody, so nobody will find what is written to it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => watched = Err(error),
                }
            }
            // What was written between the look and the watch is seen by this one.
            is_new = tracked.note(now().wall);
        }
        Found { is_new, soon, watched }
    }
}

impl Work {
    /// Has the files of a job looked at, if it is one whose files the user placed.
    pub(super) fn send_away(&mut self, id: &JobId, errand: Errand) -> bool {
        if !self.tracked.get(id).is_some_and(|tracked| tracked.is_named) {
            return false;
        }
        let Some(mut tracked) = self.tracked.remove(id) else { return false };
        self.active.remove(id);
        self.away.insert(id.clone(), Away::default());
        // Kept open until the errand is back: it is known there by its number only.
        let watch = if errand.watch { self.write_watch() } else { None };
        let number = watch.as_deref().map(std::os::fd::AsRawFd::as_raw_fd);
        let path = tracked.files.first().map(|file| file.path.clone()).unwrap_or_default();
        let (shared, id) = (self.shared.clone(), id.clone());
        let work = move || {
            let found = errand.run(&mut tracked, number);
            (tracked, found)
        };
        let tell = move |found| {
            drop(watch);
            shared.send(Message::Back(Box::new(Back { id, errand, found })), true);
        };
        files::go("look at", &path, work, tell);
        true
    }

    fn write_watch(&mut self) -> Option<std::sync::Arc<std::os::fd::OwnedFd>> {
        if self.watch.is_none() {
            match new_write_watch() {
                Ok(watch) => self.watch = Some(watch.into()),
                Err(error) => self.say(format!(
                    "log files are looked at each second: {error} (fs.inotify.max_user_instances)"
                )),
            }
        }
        self.watch.clone()
    }

    /// Keeps what is heard of a job while its files are looked at; gives back what is not of such a one.
    pub(super) fn unless_away(&mut self, message: Message) -> Option<Message> {
        let id = match &message {
            Message::Began(attempt) | Message::Found(attempt) | Message::Ended(attempt) => &attempt.id,
            Message::Look(attempt, _) => &attempt.id,
            _ => return Some(message),
        };
        match self.away.get_mut(id) {
            Some(away) => away.messages.push(message),
            None => return Some(message),
        }
        None
    }

    /// Whoever wants to know of a look that is under way.
    pub(super) fn answer_when_back(&mut self, id: &JobId, done: oneshot::Sender<()>) {
        if let Some(away) = self.away.get_mut(id) {
            away.asked.push(done);
        }
    }

    /// A write was told of by a watch that nobody here has, or of a job whose files are being looked at.
    pub(super) fn heard_away(&mut self, number: i32, id: Option<&JobId>) {
        for away in self.away.iter_mut().filter(|(away, _)| id.is_none_or(|id| id == *away)) {
            away.1.told.push(number);
        }
    }

    /// An errand is back.
    pub(super) fn take_back(&mut self, back: Back) {
        let Back { id, errand, found } = back;
        let Some(Away { messages, asked, told, halted }) = self.away.remove(&id) else { return };
        if let Some((mut tracked, found)) = found {
            if let Some(quota) = &mut self.quota {
                quota.grew(tracked.take_balance());
            }
            if halted {
                tracked.halted();
            }
            let soon = self.soon_of(&mut tracked, found.soon);
            let mut is_told = false;
            for file in &mut tracked.files {
                if let Some(number) = file.watch.take_if(|number| told.contains(number)) {
                    self.watched.remove(&number);
                    is_told = true;
                }
            }
            for number in tracked.files.iter().filter_map(|file| file.watch) {
                let jobs = self.watched.entry(number).or_default();
                if !jobs.contains(&id) {
                    jobs.push(id.clone());
                }
            }
            let (is_new, watched) = self.told_of(&found.is_new, &found.watched);
            if errand.last {
                for number in tracked.files.iter().filter_map(|file| file.watch) {
                    self.forget_watch(number, &id);
                }
            } else {
                if is_new || is_told || !watched {
                    let time = Instant::now();
                    let cannot = errand.watch && !is_new && !is_told;
                    let pause = if cannot { 10 * SWEEP } else { SWEEP };
                    let note = errand.due.filter(|_| !is_new && !is_told).unwrap_or(time + pause);
                    self.active.insert(id.clone(), Due { note, cap: time + soon });
                }
                self.tracked.insert(id, tracked);
            }
        }
        asked.into_iter().for_each(|done| _ = done.send(()));
        messages.into_iter().for_each(|message| self.take(message));
    }

    /// Says what went wrong. Whether something is new, and whether every file is watched.
    fn told_of(&mut self, is_new: &io::Result<bool>, watched: &io::Result<bool>) -> (bool, bool) {
        if let Err(error) = is_new {
            self.say(format!("when jobs write cannot be noted: {error}"));
        }
        if let Err(error) = watched {
            self.say(format!("log files are looked at each second: {error} (fs.inotify.max_user_watches)"));
        }
        (*is_new.as_ref().unwrap_or(&true), *watched.as_ref().unwrap_or(&false))
    }

    /// How soon the cap of a job is to be looked at again.
    pub(super) fn soon_of(&mut self, tracked: &mut Tracked, soon: io::Result<Duration>) -> Duration {
        match soon {
            Ok(soon) => soon,
            Err(error) => {
                if super::is_unsupported(&error) {
                    tracked.forget_cap();
                }
                let first = tracked.files.first();
                let place = first.and_then(|file| file.path.parent()).map(std::path::Path::to_owned);
                let place = place.unwrap_or_else(|| "/".into());
                self.say(format!("logs in '{}' grow beyond their cap: {error}", place.display()));
                SWEEP
            }
        }
    }
}
