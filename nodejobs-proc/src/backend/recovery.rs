//! Taking over: from an earlier owner when this one begins, and from a keeper's processes when they die.

use std::collections::HashMap;

use nodejobs_core::backend::{BackendError, BackendEvent, BackendReport, KnownAttempt};
use nodejobs_core::id::AttemptId;
use nodejobs_core::status::Reason;
use nodejobs_core::time::BootTime;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::link::{Heard, Link, LinkError, Past};
use super::pulse::patience_ms;
use super::{Flight, Loop, Running};

use crate::identity::LocalProcess;
use crate::keeper::KeeperFiles;
use crate::machine::now;
use crate::tree::children_of;

impl Loop {
    pub(super) fn recover(&mut self, attempts: &[KnownAttempt]) -> Result<Vec<BackendReport>, BackendError> {
        let mut reports = Vec::new();
        self.find_groups(attempts);
        self.asked = attempts.iter().map(|known| (known.attempt.clone(), known.launch_asked)).collect();
        for name in self.keeper_names() {
            self.approach(&name, &mut reports).map_err(|error| cannot_take_over(&name, error))?;
        }
        self.greet_all(&mut reports)?;
        self.asked.clear();
        self.drop_old_inputs();
        // Journals also tell of earlier launches of the attempt, and of earlier jobs of that id. These answer nothing.
        let mut answered: HashMap<AttemptId, BootTime> = HashMap::new();
        for (report, at) in reports.iter().filter_map(|report| Some((report, report.event.at()?.boot))) {
            let last = answered.entry(report.attempt.clone()).or_insert(at);
            *last = at.max(*last);
        }
        let known: HashMap<&AttemptId, BootTime> =
            attempts.iter().map(|known| (&known.attempt, known.launch_asked)).collect();
        let is_known = |attempt: &AttemptId| {
            known.get(attempt).is_some_and(|asked| answered.get(attempt).is_some_and(|last| last >= asked))
        };
        // A dead keeper's journal also tells of those whose end the store knows; nobody waits for them.
        reports
            .retain(|report| !matches!(report.event, BackendEvent::Lost { .. }) || is_known(&report.attempt));
        self.unwatched.retain(|(attempt, _)| is_known(attempt));
        self.running.retain(|attempt, running| running.keeper.is_some() || is_known(attempt));
        // Their main processes are gone, and what those left behind may be with a keeper that has nothing else to do: it may
        // leave before anybody looks.
        self.orphans_anywhere |= attempts.iter().any(|known| known.ended);
        for known in attempts {
            let is_answered = is_known(&known.attempt);
            if !is_answered && known.process.is_none() {
                // What runs by that name is of an earlier launch.
                self.running.remove(&known.attempt);
            }
            if !self.running.contains_key(&known.attempt) && !is_answered {
                self.look_for(known, &mut reports);
            }
        }
        self.take_over_limits(attempts);
        self.choose_keeper();
        Ok(reports)
    }

    /// Hears the past of all keepers that there is a connection to, for as long as one may take to answer. Those that do not
    /// are fenced.
    fn greet_all(&mut self, reports: &mut Vec<BackendReport>) -> Result<(), BackendError> {
        let deadline = now().boot.plus_millis(patience_ms());
        loop {
            let greeting = |link: &&Link| link.is_greeting();
            let left = deadline.millis_since(now().boot);
            if left == 0 || !self.links.values().any(|link| greeting(&link)) {
                break;
            }
            let mut fds: Vec<_> = self
                .links
                .values()
                .filter(greeting)
                .map(|link| PollFd::from_borrowed_fd(std::os::fd::AsFd::as_fd(link), PollFlags::IN))
                .collect();
            // A worker that is halted has to be let go on in time.
            let millis = left.min(100);
            let timeout = Timespec { tv_sec: 0, tv_nsec: (millis * 1_000_000).cast_signed() };
            let _ = poll(&mut fds, Some(&timeout));
            let names: Vec<String> =
                self.links.iter().filter(|(_, link)| greeting(link)).map(|(name, _)| name.clone()).collect();
            for name in names {
                self.hear_greeting(&name, reports).map_err(|error| cannot_take_over(&name, error))?;
            }
            self.care_for_keepers(reports);
        }
        let silent: Vec<String> =
            self.links.iter().filter(|(_, link)| link.is_greeting()).map(|(name, _)| name.clone()).collect();
        for name in silent {
            self.fence(&name, reports);
        }
        Ok(())
    }

    fn hear_greeting(&mut self, name: &str, reports: &mut Vec<BackendReport>) -> Result<(), LinkError> {
        let Some(link) = self.links.get_mut(name) else { return Ok(()) };
        match link.receive(false, now().boot) {
            Ok(Heard::Past(past)) => {
                self.greeted(name, past, reports);
                Ok(())
            }
            Ok(_) => Ok(()),
            Err(LinkError::Dead) => {
                self.links.remove(name);
                self.bury(name, reports)
            }
            Err(error) => Err(error),
        }
    }

    /// Goes on with the keeper that was used last, or with one that never was: there is such a one if an owner was killed
    /// while it started a keeper.
    pub(super) fn choose_keeper(&mut self) {
        let willing = self.links.iter().filter(|(_, link)| link.takes_launches());
        self.launching =
            willing.max_by_key(|(name, link)| (link.has_history(), *name)).map(|(name, _)| name.clone());
        self.let_go();
    }

    /// Lets go of keepers that get no launches and have nothing more to tell, be they spare or of another version: without an
    /// owner they leave. Those that drain leave by themselves, and if one is killed meanwhile, the end of its connection says
    /// that its files are to be cleared away.
    pub(super) fn let_go(&mut self) {
        if self.links.len() <= usize::from(self.launching.is_some()) {
            return;
        }
        // What ended jobs have left behind is looked for among the children of keepers that there is a link to.
        let has_children = |link: &Link| {
            let children = link.collector().map(children_of);
            !matches!(children, Some(Ok(Some(children))) if children.is_empty())
        };
        let Self { links, running, in_flight, launching, .. } = self;
        links.retain(|name, link| {
            launching.as_ref() == Some(name)
                || link.is_draining()
                || !link.is_settled()
                || in_flight.values().any(|flight| flight.keeper == *name)
                || running.values().any(|running| running.keeper.as_ref() == Some(name))
                || has_children(link)
        });
    }

    /// The keepers that have left files, oldest first.
    fn keeper_names(&self) -> Vec<String> {
        KeeperFiles::names(&self.config.keepers).unwrap_or_default()
    }

    /// Connects to a keeper, whose past is then to be heard, or reads what a dead one has left.
    pub(super) fn approach(&mut self, name: &str, reports: &mut Vec<BackendReport>) -> Result<(), LinkError> {
        match Link::connect(&self.files(name), self.config.generation, now().boot) {
            Ok(link) => {
                self.links.insert(name.to_owned(), link);
                Ok(())
            }
            Err(LinkError::Dead) => self.bury(name, reports),
            Err(error) => Err(error),
        }
    }

    /// A keeper has told its past. It has been cut off from whoever spoke to it before, so that is complete: what it was told to
    /// launch and does not know of was never executed.
    pub(super) fn greeted(&mut self, name: &str, past: Past, reports: &mut Vec<BackendReport>) {
        let Past { entries, launching, is_damaged } = past;
        self.is_damaged |= is_damaged;
        let held_before: Vec<AttemptId> = self.jobs_of(name).cloned().collect();
        let told: std::collections::HashSet<AttemptId> =
            entries.iter().filter_map(|(_, entry)| entry.attempt().cloned()).collect();
        let boot_id = self.config.machine.boot_id.clone();
        self.handle_entries(name, &boot_id, entries, reports);
        for attempt in &launching {
            let told = self.asked.get(attempt).copied().unwrap_or_else(|| now().boot);
            let flight = Flight { keeper: name.to_owned(), told, is_called_off: false };
            let flight = self.in_flight.entry(attempt.clone()).or_insert(flight);
            flight.keeper = name.to_owned();
            if flight.is_called_off
                && let Some(link) = self.links.get(name)
            {
                link.call_off(attempt);
            }
            self.keep_input(attempt);
        }
        let unknown = BackendEvent::Lost { reason: Reason::Unknown, at: now() };
        let event = if is_damaged { unknown } else { BackendEvent::NeverLaunched };
        self.give_up_in_flight(name, &event, &|attempt| !launching.contains(attempt), reports);
        // What it went on with does not show them: they are watched from here.
        for attempt in held_before.into_iter().filter(|attempt| !told.contains(attempt)) {
            self.orphan_one(attempt, reports);
        }
        if !self.links.values().any(Link::is_greeting) {
            self.decide_undecided(reports);
        }
        self.publish();
    }

    /// The keeper is gone or out of reach: its jobs are watched from here.
    pub(super) fn orphan(&mut self, name: &str, reports: &mut Vec<BackendReport>) {
        let orphans: Vec<AttemptId> = self.jobs_of(name).cloned().collect();
        orphans.into_iter().for_each(|attempt| self.orphan_one(attempt, reports));
    }

    pub(super) fn orphan_one(&mut self, attempt: AttemptId, reports: &mut Vec<BackendReport>) {
        let Some(running) = self.running.get_mut(&attempt) else { return };
        running.keeper = None;
        let process = running.process.clone();
        self.orphans_anywhere = true;
        self.watch(attempt, process, reports);
    }

    /// Answers for launches of a keeper that has said all that it will ever say of them.
    pub(super) fn give_up_in_flight(
        &mut self,
        name: &str,
        event: &BackendEvent,
        which: &dyn Fn(&AttemptId) -> bool,
        reports: &mut Vec<BackendReport>,
    ) {
        let is_meant = |attempt: &AttemptId, flight: &mut Flight| flight.keeper == name && which(attempt);
        let given_up: Vec<_> =
            self.in_flight.extract_if(|attempt, flight| is_meant(attempt, flight)).collect();
        for (attempt, _) in given_up {
            self.drop_input(&attempt);
            self.groups.discard(&attempt);
            reports.push(BackendReport { attempt, event: event.clone(), receipt: None });
        }
    }

    /// No keeper knows the attempt; what is on disk has to do.
    fn look_for(&mut self, known: &KnownAttempt, reports: &mut Vec<BackendReport>) {
        let attempt = known.attempt.clone();
        match known.process.as_ref().and_then(LocalProcess::from_process) {
            // Its end is on disk; the engine asks for what is left of its tree, wherever that is.
            _ if known.ended => {}
            // Some keeper is about to tell.
            _ if self.in_flight.contains_key(&attempt) => {}
            Some(process) => {
                self.orphans_anywhere = true;
                self.running.insert(attempt.clone(), Running { process: process.clone(), keeper: None });
                self.watch(attempt, process, reports);
            }
            // One that is silent may know of it, and what it knows nobody else does.
            None if !self.mute.is_empty() => self.undecided.push(known.clone()),
            None => {
                let event = if !self.is_of_this_boot() {
                    // Journals are not synced: what was executed just before the power went is in none of them.
                    BackendEvent::Lost { reason: Reason::Reboot, at: now() }
                } else if self.is_damaged {
                    // What should tell of it is not what was written.
                    BackendEvent::Lost { reason: Reason::Unknown, at: now() }
                } else {
                    // All keepers have been fenced and none has noted it, so it never executed anything.
                    BackendEvent::NeverLaunched
                };
                self.groups.discard(&attempt);
                reports.push(BackendReport { attempt, event, receipt: None });
            }
        }
    }

    /// Decides about launches that keepers of the first version might have known of, once all of these have answered.
    pub(super) fn decide_undecided(&mut self, reports: &mut Vec<BackendReport>) {
        if self.undecided.is_empty() || !self.mute.is_empty() {
            return;
        }
        for known in std::mem::take(&mut self.undecided) {
            let is_answered = |report: &BackendReport| report.attempt == known.attempt;
            if !self.running.contains_key(&known.attempt) && !reports.iter().any(is_answered) {
                self.look_for(&known, reports);
            }
        }
    }

    /// Whether the last owner took over in this boot, as far as that is known.
    pub(super) fn is_of_this_boot(&self) -> bool {
        let previous = self.config.previous_boot_id.as_ref();
        previous.is_none_or(|boot| *boot == self.config.machine.boot_id)
    }

    /// Says which of a keeper's processes are gone although it has jobs: they do not leave by themselves then.
    fn tell_of_the_dead(&self, name: &str) {
        let jobs = self.jobs_of(name).count();
        let gone = match self.links.get(name).map(|link| (link.status(jobs), link.is_stuck())) {
            // One that has left, or whose jobs have ended with it, is missed by nobody.
            _ if jobs == 0 => return,
            None => return,
            Some((_, true)) => "it takes no more launches: too many stand still",
            Some((status, _)) if status.pid.is_none() => {
                "its guard is gone; its worker sees its jobs to their ends"
            }
            Some((status, _)) if status.worker_pid.is_none() => {
                "its worker is gone; its guard sees its jobs to their ends"
            }
            Some(_) => return,
        };
        self.host.warn(format!("keeper {name}: {gone}"));
    }

    /// A keeper that was connected again has told its past.
    pub(super) fn reattached(&mut self, name: &str, past: Past, reports: &mut Vec<BackendReport>) {
        self.greeted(name, past, reports);
        self.tell_of_the_dead(name);
    }

    /// The connection ended: one of the two processes is gone, or the keeper has left. Whoever is there now tells
    /// what happened; if nobody is, the journal does.
    pub(super) fn reattach(&mut self, name: &str, reports: &mut Vec<BackendReport>) {
        self.links.remove(name);
        if self.launching.as_deref() == Some(name) {
            self.launching = None;
        }
        let had_jobs = self.jobs_of(name).count() > 0;
        let mut past = Vec::new();
        let since = self.unreached.remove(name);
        match self.approach(name, &mut past) {
            Ok(()) => {
                reports.append(&mut past);
                let has_left = !self.links.contains_key(name);
                // If it has left, whoever is still being ended is nobody's child that we know of.
                self.orphans_anywhere |= has_left && !self.endings.is_empty();
                if has_left && had_jobs {
                    let gone = "both of its processes are gone; its jobs are watched by their identities";
                    self.host.warn(format!("keeper {name}: {gone}"));
                }
            }
            Err(LinkError::Io(error)) => {
                // That says nothing about it. Its jobs stay as they are until it is reached.
                if since.is_none() {
                    self.host.warn(format!("keeper {name} cannot be reached, and is tried again: {error}"));
                }
                reports.append(&mut past);
                self.unreached.insert(name.to_owned(), since.unwrap_or_else(|| now().boot));
            }
            Err(error) => {
                // Its jobs are watched by identity, which is all that is left of it.
                self.host.warn(format!("keeper {name}: {error}; its jobs are watched by their identities"));
                reports.append(&mut past);
                self.orphan(name, reports);
                // Whether it has executed, or will yet execute, what it was told to is not known, so it must not be
                // asked of another keeper.
                let unknown = BackendEvent::Lost { reason: Reason::Unknown, at: now() };
                self.give_up_in_flight(name, &unknown, &|_| true, reports);
            }
        }
        self.publish();
    }
}

fn cannot_take_over(name: &str, source: LinkError) -> BackendError {
    BackendError { operation: format!("take over from keeper {name}"), source: Box::new(source) }
}
