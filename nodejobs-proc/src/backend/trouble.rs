//! What holds up launches and keepers, in words, for whoever asks: read from the gates, without the backend's thread.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use nodejobs_core::backend::{KeeperStatus, LaunchInput, LaunchSpec};
use nodejobs_core::id::AttemptId;
use nodejobs_core::time::BootTime;
use nodejobs_core::units::show_duration;

use super::{LocalBackend, Loop};
use crate::gates::{self, Passage, State};
use crate::identity::ProcStat;
use crate::journal::Stage;
use crate::keeper::KeeperFiles;
use crate::machine::now;

/// A launch that takes less is not worth a word, in milliseconds.
const WORTH_A_WORD_MS: u64 = 1_000;

/// What the backend's thread has said last.
#[derive(Debug, Default)]
pub(super) struct Published {
    statuses: BTreeMap<String, KeeperStatus>,
    /// Since when keepers do not answer.
    silent: BTreeMap<String, BootTime>,
    /// The keepers of launches that are not answered.
    at: BootTime,
}

impl Loop {
    /// Says how the keepers are.
    pub(super) fn publish(&self) {
        let status =
            |name: &String| Some((name.clone(), self.links.get(name)?.status(self.jobs_of(name).count())));
        let silent = |link: &super::Link| link.pulse.silent_since();
        let published = Published {
            statuses: self.links.keys().filter_map(status).collect(),
            silent: self
                .links
                .iter()
                .filter_map(|(name, link)| Some((name.clone(), silent(link)?)))
                .collect(),
            at: now().boot,
        };
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = published;
    }
}

impl LocalBackend {
    /// What the thread has answered, or said last, with what is seen of keepers and their launches from here.
    pub(super) fn with_trouble(&self, answered: Option<Vec<KeeperStatus>>) -> Vec<KeeperStatus> {
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now().boot;
        let is_late = answered.is_none();
        let mut statuses: Vec<(String, KeeperStatus)> = match answered {
            // In the order of their names.
            Some(statuses) => published.statuses.keys().cloned().zip(statuses).collect(),
            None => published.statuses.clone().into_iter().collect(),
        };
        for (name, status) in &mut statuses {
            if let Some(since) = published.silent.get(name) {
                status.trouble.push(format!("does not answer, since {}", age(*since, at)));
            }
            if is_late {
                let age = age(published.at, at);
                status.trouble.push(format!("this is from {age} ago: the daemon is busy with processes"));
            }
            let files = KeeperFiles { directory: self.keepers.clone(), name: name.clone() };
            let passages = gates::peek(&files.gates()).unwrap_or_default();
            let late = passages.iter().filter(|passage| is_late_passage(passage, at));
            status.trouble.extend(late.map(|passage| {
                let sentence = sentence(passage, self.host.launch_spec(&passage.attempt).ok().as_ref(), at);
                format!("{}: {sentence}", passage.attempt.id)
            }));
        }
        statuses.into_iter().map(|(_, status)| status).collect()
    }

    /// What holds up the launch of an attempt.
    pub(super) fn trouble_of(&self, attempt: &AttemptId) -> Option<String> {
        let at = now().boot;
        for name in KeeperFiles::names(&self.keepers).unwrap_or_default() {
            let files = KeeperFiles { directory: self.keepers.clone(), name };
            let passages = gates::peek(&files.gates()).unwrap_or_default();
            let mut its = passages.iter().filter(|passage| passage.attempt == *attempt);
            if let Some(passage) = its.find(|passage| is_late_passage(passage, at)) {
                return Some(sentence(passage, self.host.launch_spec(attempt).ok().as_ref(), at));
            }
        }
        let published = self.published.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, since) = published.silent.iter().next()?;
        Some(format!("keeper {name} does not answer, since {}", age(*since, at)))
    }
}

/// Whether a launch takes long, and has not come to its end.
pub(crate) fn is_late_passage(passage: &Passage, at: BootTime) -> bool {
    let is_open = matches!(passage.state, State::Open | State::Noting | State::Noted);
    is_open && at.millis_since(passage.opened) >= WORTH_A_WORD_MS
}

/// What a launch waits for: the step that it is at, with the path if the spec is known.
pub(crate) fn sentence(passage: &Passage, spec: Option<&LaunchSpec>, at: BootTime) -> String {
    let step = passage.stage.map_or_else(|| "its first step".to_owned(), |stage| step(stage, spec));
    let stat = passage.pid.and_then(|pid| ProcStat::read(pid).ok().flatten());
    let why = match stat.map(|stat| stat.state) {
        Some(b'T' | b't') => "its process is stopped by a signal",
        Some(b'R') => "it is under way",
        _ => "the file system does not answer",
    };
    let pid = passage.pid.map(|pid| format!(" (process {pid})")).unwrap_or_default();
    format!("its launch has been in {step} for {}: {why}{pid}", age(passage.opened, at))
}

fn step(stage: Stage, spec: Option<&LaunchSpec>) -> String {
    let path = |path: Option<String>| path.map(|path| format!("\"{path}\"")).unwrap_or_default();
    let parent = |file: String| file.rsplit_once('/').map(|(directory, _)| directory.to_owned());
    match stage {
        Stage::Stdin => {
            let file = spec.and_then(|spec| match &spec.input {
                LaunchInput::File(path) => Some(path.to_string()),
                _ => None,
            });
            format!("open({})", path(file))
        }
        Stage::Stdout => format!("open({})", path(spec.map(|spec| spec.output.stdout.to_string()))),
        Stage::Stderr => format!("open({})", path(spec.map(|spec| spec.output.stderr.to_string()))),
        Stage::LogDirectory => {
            format!("mkdir({})", path(spec.and_then(|spec| parent(spec.output.stdout.to_string()))))
        }
        Stage::Cwd => format!("chdir({})", path(spec.map(|spec| spec.cwd.to_string()))),
        Stage::Exec => {
            let words = spec.map(|spec| spec.command.to_argv()).unwrap_or_default();
            format!("execve({})", path(words.first().map(ToString::to_string)))
        }
        _ => "its preparation".to_owned(),
    }
}

fn age(since: BootTime, at: BootTime) -> String {
    // Whole seconds: it is looked at by people.
    show_duration(at.millis_since(since) / 1000 * 1000)
}
