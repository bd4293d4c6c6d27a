//! When an attempt wrote what, as far as anybody knows: its side index, and what its record adds.

use std::path::Path;

use nodejobs_core::Timestamp;
use nodejobs_core::job::Job;
use nodejobs_core::log_index::{Entry, since, until};
use nodejobs_core::logs::LogStart;
use nodejobs_proc::machine::now;

use crate::api::{LogStream, ProblemKind, Written};
use crate::error::Error;
use crate::log_files::LogFile;
use crate::recorder::{entries_of, index_of};

/// What is known of an attempt.
#[derive(Clone, Debug)]
pub(crate) struct Timeline {
    start: LogStart,
    entries: Vec<Entry>,
}

impl Timeline {
    /// As it is now. Of a job that has not ended, the recorder has to look first.
    pub(crate) fn of(job: &Job, own_logs: &Path, files: &[Option<LogFile>; 2]) -> Result<Self, Error> {
        let path = index_of(own_logs, job);
        let mut entries = entries_of(&path, job.seq).map_err(|error| {
            Error::new(ProblemKind::Failed, format!("log index '{}' cannot be read", path.display()))
                .with_source(error)
        })?;
        let start = job.state.log_start;
        if let Some(started) = job.state.started {
            let ended = job.state.ended.filter(|_| job.state.status.is_terminal());
            let length = |index: usize| files[index].as_ref()?.end_now();
            let last = entries.last().map_or(start, Entry::lengths);
            let all = LogStart {
                stdout: length(0).unwrap_or(0).max(last.stdout),
                stderr: length(1).unwrap_or(0).max(last.stderr),
            };
            // What came last, and all of a job that was over before anybody looked.
            let latest = ended.unwrap_or_else(now).wall;
            if all != last {
                let after = entries.last().map_or(started.wall, |entry| entry.before);
                let before = latest.max(after);
                entries.push(Entry { after, before, stdout: all.stdout, stderr: all.stderr });
            }
        }
        Ok(Self { start, entries })
    }

    /// Where what was written since then begins, as early as it may.
    pub(crate) fn since(&self, time: Timestamp) -> LogStart {
        since(&self.entries, self.start, time)
    }

    /// Where what was written until then ends, as late as it may; `None` if it is all.
    pub(crate) fn until(&self, time: Timestamp) -> Option<LogStart> {
        until(&self.entries, self.start, time)
    }

    /// What comes next behind these offsets, of streams that have a file: how far it goes, and when it was written.
    pub(crate) fn next(&self, offsets: &[(LogStream, u64)]) -> Option<(LogStream, u64, Written)> {
        let end = |entry: &Entry, stream| match stream {
            LogStream::Stdout => entry.stdout,
            LogStream::Stderr => entry.stderr,
        };
        let is_told = |entry: &Entry| offsets.iter().all(|(stream, offset)| end(entry, *stream) <= *offset);
        let entry = self.entries.get(self.entries.partition_point(is_told))?;
        let (stream, _) = offsets.iter().find(|(stream, offset)| end(entry, *stream) > *offset)?;
        let written = Written { after: entry.after, before: entry.before };
        Some((*stream, end(entry, *stream), written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_take_turns_in_the_order_of_the_index() {
        let at = Timestamp::from_millis;
        let entry = |n: i64, stdout, stderr| Entry { after: at(n), before: at(n + 1), stdout, stderr };
        let entries = vec![entry(1, 5, 0), entry(2, 5, 3), entry(3, 9, 8)];
        let timeline = Timeline { start: LogStart::default(), entries };
        let mut offsets = [(LogStream::Stdout, 0), (LogStream::Stderr, 0)];
        let mut told = Vec::new();
        while let Some((stream, end, written)) = timeline.next(&offsets) {
            told.push((stream, end, written.after.as_millis()));
            offsets.iter_mut().filter(|(known, _)| *known == stream).for_each(|(_, offset)| *offset = end);
        }
        let (out, err) = (LogStream::Stdout, LogStream::Stderr);
        assert_eq!(told, [(out, 5, 1), (err, 3, 2), (out, 9, 3), (err, 8, 3)]);
        assert_eq!(timeline.next(&[(err, 2)]).map(|(_, end, _)| end), Some(3));
        assert_eq!(
            timeline.next(&[(out, 100), (err, 0)]).map(|(stream, end, _)| (stream, end)),
            Some((err, 3))
        );
    }
}
