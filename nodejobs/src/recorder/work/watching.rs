//! The one-shot watches of files that nobody writes to.

use std::io;
use std::sync::Arc;

use nodejobs_core::JobId;
use nodejobs_proc::logs::{new_write_watch, unwatch, watch_next_write, written_files};
use nodejobs_proc::machine::now;

use super::{Errand, Work};

impl Work {
    /// What was written to since the last time.
    pub(super) fn hear(&mut self) {
        let Some(watch) = &self.watch else { return };
        let (mut numbers, mut missed) = (Vec::new(), false);
        let heard = written_files(watch, |number| match number {
            Some(number) => numbers.push(number),
            None => missed = true,
        });
        if let Err(error) = heard {
            self.say(format!("writes to log files are not heard of: {error}"));
        }
        if missed {
            numbers.extend(self.watched.keys());
        }
        let time = now().wall;
        for number in numbers {
            let jobs = self.watched.remove(&number);
            if jobs.is_none() {
                // Of an errand that is not back.
                self.heard_away(number, None);
            }
            for id in jobs.unwrap_or_default() {
                if self.away.contains_key(&id) {
                    self.heard_away(number, Some(&id));
                } else if let Some(tracked) = self.tracked.get_mut(&id) {
                    tracked
                        .files
                        .iter_mut()
                        .filter(|file| file.watch == Some(number))
                        .for_each(|file| file.watch = None);
                    if !self.send_away(&id, Errand { heard: Some(time), ..Errand::LOOK })
                        && let Some(tracked) = self.tracked.get_mut(&id)
                    {
                        tracked.heard(time);
                        self.activate(&id);
                    }
                }
            }
            if missed && let Some(watch) = &self.watch {
                unwatch(watch, number);
            }
        }
    }

    /// Has the next write to any of its files told; whether all of them are watched.
    pub(super) fn watch_files(&mut self, id: &JobId) -> bool {
        let watch = match self.watch.take().map_or_else(|| new_write_watch().map(Arc::new), Ok) {
            Ok(watch) => self.watch.insert(watch),
            Err(error) => {
                self.say(format!(
                    "log files are looked at each second: {error} (fs.inotify.max_user_instances)"
                ));
                return false;
            }
        };
        let Some(tracked) = self.tracked.get_mut(id) else { return true };
        let mut unwatched = None;
        for file in tracked.files.iter_mut().filter(|file| file.watch.is_none()) {
            match watch_next_write(&*watch, &file.path) {
                Ok(number) => {
                    file.watch = Some(number);
                    self.watched.entry(number).or_default().push(id.clone());
                }
                // Removed by somebody, so nobody will find what is written to it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => unwatched = Some(error),
            }
        }
        let Some(error) = unwatched else { return true };
        self.say(format!("log files are looked at each second: {error} (fs.inotify.max_user_watches)"));
        false
    }

    pub(super) fn forget_watch(&mut self, number: i32, id: &JobId) {
        let Some(jobs) = self.watched.get_mut(&number) else { return };
        jobs.retain(|job| job != id);
        if jobs.is_empty() {
            self.watched.remove(&number);
            if let Some(watch) = &self.watch {
                unwatch(watch, number);
            }
        }
    }
}
