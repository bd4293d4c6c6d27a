//! What keepers leave that are dead, or that do not answer: their gates and their journals.

use nodejobs_core::backend::{BackendEvent, BackendReport, Receipt};
use nodejobs_core::id::AttemptId;
use nodejobs_core::logs::LogStart;
use nodejobs_core::status::Reason;
use nodejobs_core::time::BootTime;

use super::link::{ALL_WRITTEN, Buried, BuriedFate, LinkError};
use super::{Flight, Loop, Running};
use crate::failpoint::{Failpoint, reached};
use crate::gates::closing::{close_all, is_unexecuted};
use crate::gates::{Gates, State};
use crate::identity::{Found, LocalProcess, ProcStat};
use crate::journal::{self, Contents, Entry, Event, Unreadable, without_void_starts};
use crate::keeper::KeeperFiles;
use crate::machine::now;

/// How often somebody is looked at again who may yet execute a program, in milliseconds, at first and at last.
const LOOK_AGAIN_MS: (u64, u64) = (20, 2_000);

/// What is left of a keeper, once its gates are closed.
#[derive(Default)]
struct Remains {
    contents: Contents,
    /// What the journal does not say proves nothing.
    is_damaged: bool,
    /// They have noted themselves and not executed their programs yet.
    unsettled: Vec<(AttemptId, u32)>,
    fate: Option<BuriedFate>,
}

/// A launch whose keeper is dead, and which may come to either.
pub(super) struct Unsettled {
    attempt: AttemptId,
    pid: u32,
    files: KeeperFiles,
    since: BootTime,
    /// When its process was started, in clock ticks, and what its receipt has for a position: its entry cannot be read.
    unread: Option<(u64, u64)>,
}

/// Where entries are said to be that cannot be read: no journal is so long.
const UNREAD: u64 = ALL_WRITTEN / 2;

impl Loop {
    /// Closes the gates of a keeper and reads its journal.
    fn examine(&self, files: &KeeperFiles) -> Result<Remains, LinkError> {
        let boot_id = &self.config.machine.boot_id;
        let journal = journal::read(&files.journal());
        let in_header = journal.as_ref().ok().map(|contents| contents.boot_id.as_str());
        let in_header = in_header.filter(|boot| !boot.is_empty()).map(|boot| boot == boot_id);
        let is_of_this_boot = files.is_of_boot(boot_id).or(in_header).unwrap_or(self.is_of_this_boot());
        let last = self.config.previous_boot_id.as_ref();
        let is_of_last_owner = last.is_none_or(|last| {
            let in_header = || journal.as_ref().is_ok_and(|contents| contents.boot_id == *last);
            files.is_of_boot(last).unwrap_or_else(in_header)
        });
        let mut remains = Remains::default();
        let mut passages = Vec::new();
        if is_of_this_boot && files.boot().is_some() {
            let closed = Gates::open(&files.gates()).and_then(|gates| {
                gates.raise_fence(self.config.generation + 1);
                close_all(&gates, files)
            });
            match closed {
                Ok(closed) => passages = closed,
                // The page is made before the journal, and nothing is launched before that.
                Err(_) if journal.as_ref().is_ok_and(|contents| contents.boot_id.is_empty()) => {}
                Err(_) => remains.is_damaged = true,
            }
        }
        // Read once nobody goes through any more: who has, has noted itself before.
        match journal::read(&files.journal()) {
            // The last owner has settled all that is of another boot than its own, and times of two boots cannot be compared.
            Ok(_) if !is_of_this_boot && !is_of_last_owner => {
                remains.fate = Some(BuriedFate::RemovedAfterRecovery);
            }
            Ok(contents) => {
                remains.is_damaged |= contents.is_damaged;
                remains.contents = contents;
            }
            Err(error) if trusts_journals() => return Err(unreadable(files, error)),
            // Its processes are gone, and so is what they have not told: nothing that it could say changes anything.
            Err(_) if !is_of_this_boot => remains.fate = Some(BuriedFate::RemovedAfterRecovery),
            Err(error @ Unreadable::Version(_)) => return Err(unreadable(files, error)),
            Err(_) => remains.is_damaged = true,
        }
        if remains.is_damaged && is_of_this_boot {
            remains.fate = Some(BuriedFate::SetAside);
        }
        // An earlier owner has said what became of all launches that it might have told of.
        remains.is_damaged &= is_of_this_boot && !files.answered().exists();
        let entries = &mut remains.contents.entries;
        entries.retain(|(_, entry)| !passages.iter().any(|passage| passage.makes_void(entry)));
        without_void_starts(entries);
        let noted = passages.into_iter().filter(|passage| passage.state == State::Noted);
        let children = noted.filter_map(|passage| Some((passage.attempt, passage.pid?)));
        let is_told = |pid: u32| entries.iter().any(|(_, entry)| entry.is_of_child(pid));
        // One that has gone through and is not told of may have been executed, and may have ended.
        let open = children.filter(|(_, pid)| !is_told(*pid) || is_unexecuted(*pid, files).unwrap_or(true));
        remains.unsettled = open.collect();
        Ok(remains)
    }

    /// Both processes of a keeper are gone.
    pub(super) fn bury(&mut self, name: &str, reports: &mut Vec<BackendReport>) -> Result<(), LinkError> {
        let files = self.files(name);
        if files.boot().is_none() && journal::is_locked(&files.journal()) {
            // Of the first version: a child of it may yet execute its program, and there is no gate to be closed.
            if self.mute.insert(name.to_owned()) {
                self.host.warn(format!(
                    "keeper {name} is dead and a launch of it stands still: its launches stay as they are until that ends"
                ));
            }
            self.orphan(name, reports);
            return Ok(());
        }
        let Remains { contents, is_damaged, unsettled, fate } = self.examine(&files)?;
        reached(Failpoint::OwnerBuried);
        let before = reports.len();
        let Contents { boot_id, entries, .. } = contents;
        let mut buried = Buried::new(files.clone(), &entries, fate.unwrap_or(BuriedFate::Removed));
        // It has not left in order, so what its jobs have left behind is not with any keeper.
        self.orphans_anywhere |= !entries.is_empty();
        let stands = |attempt: &AttemptId| unsettled.iter().any(|(standing, _)| standing == attempt);
        let (held, entries): (Vec<_>, Vec<_>) = entries
            .into_iter()
            .partition(|(_, entry)| entry.is_start() && entry.attempt().is_some_and(stands));
        for (position, entry) in &held {
            entry.attempt().into_iter().for_each(|attempt| buried.hold(attempt, *position));
        }
        self.handle_entries(name, &boot_id, entries, reports);
        self.orphan(name, reports);
        let unknown = BackendEvent::Lost { reason: Reason::Unknown, at: now() };
        let event = if is_damaged { &unknown } else { &BackendEvent::NeverLaunched };
        self.give_up_in_flight(name, event, &|attempt| !stands(attempt), reports);
        for ((attempt, pid), position) in unsettled.into_iter().zip(UNREAD..) {
            self.is_launching(&attempt, name);
            let since = now().boot;
            let is_read = held.iter().any(|(_, entry)| entry.attempt() == Some(&attempt));
            let unread = (!is_read).then(|| {
                // Without its files the next owner would know nothing of it.
                buried.hold(&attempt, position);
                let stat = ProcStat::read(pid).ok().flatten();
                (stat.map_or(0, |stat| stat.start_ticks), position)
            });
            self.unsettled.push(Unsettled { attempt, pid, files: files.clone(), since, unread });
        }
        self.note_damage(&files, is_damaged);
        if fate == Some(BuriedFate::SetAside) && self.is_recovered {
            // With the last of what followed from it.
            match reports[before..].last_mut() {
                Some(last) => {
                    let source = name.to_owned();
                    last.receipt = Some(Receipt { source, position: ALL_WRITTEN });
                }
                None => buried.recovery_is_written(),
            }
        }
        self.mute.remove(name);
        self.keep_buried(buried);
        self.decide_undecided(reports);
        Ok(())
    }

    /// A keeper does not answer. What it was told to launch and has not noted is never executed, also once it goes on; its jobs
    /// stay as they are until it tells of them.
    pub(super) fn fence(&mut self, name: &str, reports: &mut Vec<BackendReport>) {
        let files = self.files(name);
        if self.launching.as_deref() == Some(name) {
            self.launching = None;
        }
        let Some(link) = self.links.get_mut(name) else { return };
        link.retire();
        if files.boot().is_none() {
            // Of the first version, which has no gates: nothing can be decided.
            if self.mute.insert(name.to_owned()) {
                self.host.warn(format!(
                    "keeper {name} does not answer: its jobs and its launches stay as they are until it does"
                ));
            }
            return self.publish();
        }
        if self.has_no_process(&files) {
            self.links.remove(name);
            if let Err(error) = self.bury(name, reports) {
                self.host.warn(format!("keeper {name}: {error}"));
            }
            return self.publish();
        }
        let remains = match self.examine(&files) {
            Ok(remains) => remains,
            Err(error) => {
                self.host.warn(format!("keeper {name}: {error}"));
                Remains { is_damaged: true, ..Remains::default() }
            }
        };
        let Remains { contents, is_damaged, unsettled, fate: _ } = remains;
        self.host.warn(format!(
            "keeper {name} does not answer: what it has not executed is launched by another one; its jobs run on, and their \
             ends are told once it goes on"
        ));
        reached(Failpoint::OwnerFencedSilent);
        let Contents { boot_id, mut entries, .. } = contents;
        let stands = |attempt: &AttemptId| unsettled.iter().any(|(standing, _)| standing == attempt);
        entries.retain(|(_, entry)| !entry.attempt().is_some_and(stands) || !entry.is_start());
        self.handle_entries(name, &boot_id, entries, reports);
        for (attempt, _) in &unsettled {
            self.is_launching(attempt, name);
        }
        let unknown = BackendEvent::Lost { reason: Reason::Unknown, at: now() };
        let event = if is_damaged { &unknown } else { &BackendEvent::NeverLaunched };
        self.give_up_in_flight(name, event, &|attempt| !stands(attempt), reports);
        self.note_damage(&files, is_damaged);
        self.publish();
    }

    /// It has noted itself, and what becomes of it is told later.
    fn is_launching(&mut self, attempt: &AttemptId, name: &str) {
        let told = self.asked.get(attempt).copied().unwrap_or_else(|| now().boot);
        let flight = Flight { keeper: name.to_owned(), told, is_called_off: false };
        self.in_flight.entry(attempt.clone()).or_insert(flight);
        self.keep_input(attempt);
    }

    fn note_damage(&mut self, files: &KeeperFiles, is_damaged: bool) {
        if is_damaged {
            self.is_damaged |= !self.is_recovered;
            self.host.warn(format!(
                "the journal '{}', or the page of gates beside it, is damaged: launches that it should tell of and does not are \
                 lost, and are not launched again",
                files.journal().display()
            ));
        }
    }

    /// Whether both processes of a keeper are gone: a child of it that stands still may have its socket open.
    fn has_no_process(&self, files: &KeeperFiles) -> bool {
        let Ok(gates) = Gates::open(&files.gates()) else { return false };
        let lives = |pid: u32, start_ticks: u64| match ProcStat::read(pid) {
            Ok(stat) => stat.is_some_and(|stat| stat.start_ticks == start_ticks && !stat.is_dead()),
            Err(_) => true,
        };
        let processes = [gates.guard(), gates.worker()];
        !processes.into_iter().flatten().any(|process| lives(process.pid, process.start_ticks))
    }

    pub(super) fn keep_buried(&mut self, buried: Buried) {
        if buried.is_settled() {
            self.clear_away(&buried);
        } else {
            self.buried.push(buried);
        }
    }

    pub(super) fn clear_away(&self, buried: &Buried) {
        if let Some(sentence) = buried.remove() {
            self.host.warn(sentence);
        }
    }

    /// Looks whether launches of dead keepers have come to something.
    pub(super) fn look_at_unsettled(&mut self, reports: &mut Vec<BackendReport>) {
        for unsettled in std::mem::take(&mut self.unsettled) {
            let flight = self.in_flight.get(&unsettled.attempt);
            let is_called_off = flight.is_none_or(|flight| flight.is_called_off);
            if !is_called_off && is_unexecuted(unsettled.pid, &unsettled.files).unwrap_or(true) {
                self.unsettled.push(unsettled);
            } else {
                self.tell_unsettled(&unsettled, reports);
            }
        }
    }

    /// Either it is executed, or it has said why not, or it was killed; or it is to be ended, and then it counts as executed.
    fn tell_unsettled(&mut self, unsettled: &Unsettled, reports: &mut Vec<BackendReport>) {
        let Unsettled { attempt, files, .. } = unsettled;
        let contents = journal::read(&files.journal());
        if unsettled.unread.is_none() && contents.is_err() {
            let event = BackendEvent::Lost { reason: Reason::Unknown, at: now() };
            return self.give_up_in_flight(&files.name, &event, &|other| other == attempt, reports);
        }
        let Contents { boot_id, mut entries, .. } = contents.unwrap_or_default();
        without_void_starts(&mut entries);
        entries.retain(|(_, entry)| entry.attempt() == Some(attempt));
        if let Some((start_ticks, position)) = unsettled.unread.filter(|_| entries.is_empty()) {
            return self.tell_unread(unsettled, start_ticks, position, reports);
        }
        if let Some((last, _)) = entries.last() {
            let its = self.buried.iter_mut().filter(|buried| buried.is_of(files));
            its.for_each(|buried| buried.hold(attempt, *last));
        }
        self.handle_entries(&files.name, &boot_id, entries, reports);
        self.orphan_one(attempt.clone(), reports);
    }

    /// The entry of a start cannot be read. The gate tells which process it is.
    fn tell_unread(
        &mut self,
        unsettled: &Unsettled,
        start_ticks: u64,
        position: u64,
        reports: &mut Vec<BackendReport>,
    ) {
        let Unsettled { attempt, pid, files, .. } = unsettled;
        self.in_flight.remove(attempt);
        self.drop_input(attempt);
        let machine = &self.config.machine;
        let process = LocalProcess { pid: *pid, start_ticks, ..LocalProcess::unknown(machine) };
        let lives = matches!(process.find(machine), Ok(Found::Alive(_)));
        let event = if lives {
            let log_start = LogStart::default();
            BackendEvent::Started { process: process.to_process(), log_start, at: now() }
        } else {
            BackendEvent::Lost { reason: Reason::Unknown, at: now() }
        };
        let receipt = Some(Receipt { source: files.name.clone(), position: position + 1 });
        reports.push(BackendReport { attempt: attempt.clone(), event, receipt });
        if lives {
            self.running.insert(attempt.clone(), Running { process, keeper: None });
            self.orphan_one(attempt.clone(), reports);
        }
    }

    /// When to look at them again.
    pub(super) fn unsettled_deadline(&self) -> Option<BootTime> {
        let at = now().boot;
        let (first, last) = LOOK_AGAIN_MS;
        let pause = |unsettled: &Unsettled| (at.millis_since(unsettled.since) / 8).clamp(first, last);
        self.unsettled.iter().map(pause).min().map(|pause| at.plus_millis(pause))
    }
}

fn unreadable(files: &KeeperFiles, error: Unreadable) -> LinkError {
    let way_out = match error {
        Unreadable::Version(_) => "start the version of this program that wrote it",
        _ => "once its jobs have ended, delete it",
    };
    LinkError::Journal { journal: format!("journal '{}'", files.journal().display()), error, way_out }
}

/// As the first version did it: a journal that cannot be read stops the recovery. For a test of the test that shows why not.
fn trusts_journals() -> bool {
    cfg!(debug_assertions)
        && std::env::var_os("NODEJOBS_MUTANT").is_some_and(|mutant| mutant == "trust-journals")
}

impl Entry {
    /// Whether it tells how the launch went that had this child.
    fn is_of_child(&self, child: u32) -> bool {
        match self {
            Entry::Attempt { event: Event::Started { pid, .. }, .. } => *pid == child,
            Entry::Attempt { event: Event::StartFailed(failed), .. } => failed.child == Some(child),
            _ => false,
        }
    }

    fn is_start(&self) -> bool {
        matches!(self, Entry::Attempt { event: Event::Started { .. }, .. })
    }
}
