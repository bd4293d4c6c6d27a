//! Taking over: from an earlier owner when this one begins, and from a keeper's processes when they die.

use std::collections::HashMap;

use nodejobs_core::backend::{BackendError, BackendEvent, BackendReport, KnownAttempt};
use nodejobs_core::id::AttemptId;
use nodejobs_core::status::Reason;
use nodejobs_core::time::BootTime;

use super::link::{Buried, Link, LinkError};
use super::{Loop, Running};
use crate::failpoint::{Failpoint, reached};
use crate::identity::LocalProcess;
use crate::machine::now;
use crate::tree::children_of;

impl Loop {
    pub(super) fn recover(&mut self, attempts: &[KnownAttempt]) -> Result<Vec<BackendReport>, BackendError> {
        let failed =
            |operation: String, source: LinkError| BackendError { operation, source: Box::new(source) };
        let mut reports = Vec::new();
        self.find_groups(attempts);
        for name in self.keeper_names() {
            self.attach(&name, &mut reports)
                .map_err(|error| failed(format!("take over from keeper {name}"), error))?;
        }
        self.drop_all_inputs();
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
            if !self.running.contains_key(&known.attempt) && !is_known(&known.attempt) {
                self.look_for(known, &mut reports);
            }
        }
        self.take_over_limits(attempts);
        self.choose_keeper();
        Ok(reports)
    }

    /// Goes on with the keeper that was used last, or with one that never was: there is such a one if an owner was killed
    /// while it started a keeper.
    fn choose_keeper(&mut self) {
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
                || in_flight.values().any(|(keeper, _)| keeper == name)
                || running.values().any(|running| running.keeper.as_ref() == Some(name))
                || has_children(link)
        });
    }

    /// The keepers that have left files, oldest first.
    pub(super) fn keeper_names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.config.keepers).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                name.strip_suffix(".journal").or_else(|| name.strip_suffix(".sock")).map(str::to_owned)
            })
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Connects to a keeper and hears its past, or reads it from the journal of a dead one.
    pub(super) fn attach(&mut self, name: &str, reports: &mut Vec<BackendReport>) -> Result<(), LinkError> {
        let files = self.files(name);
        let (link, past) = match Link::connect(&files, self.config.generation) {
            Ok(connected) => connected,
            Err(LinkError::Dead) => {
                let (buried, past) = Buried::open(files)?;
                reached(Failpoint::OwnerBuried);
                // It has not left in order, so what its jobs have left behind is not with any keeper.
                self.orphans_anywhere |= !past.is_empty();
                self.handle_entries(name, buried.boot_id(), past, reports);
                self.orphan(name, reports);
                self.never_launched(name, reports);
                self.bury(buried);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.links.insert(name.to_owned(), link);
        let boot_id = self.config.machine.boot_id.clone();
        self.handle_entries(name, &boot_id, past, reports);
        // The keeper has been cut off from whoever spoke to it before, and its past is complete: what it was told to
        // launch and has not noted was never executed.
        self.never_launched(name, reports);
        Ok(())
    }

    pub(super) fn bury(&mut self, buried: Buried) {
        if buried.is_settled() {
            buried.remove();
        } else {
            self.buried.push(buried);
        }
    }

    /// The keeper is gone or out of reach: its jobs are watched from here.
    pub(super) fn orphan(&mut self, name: &str, reports: &mut Vec<BackendReport>) {
        let orphans: Vec<AttemptId> = self.jobs_of(name).cloned().collect();
        for attempt in orphans {
            let Some(running) = self.running.get_mut(&attempt) else { continue };
            running.keeper = None;
            let process = running.process.clone();
            self.orphans_anywhere = true;
            self.watch(attempt, process, reports);
        }
    }

    /// What the keeper was told to launch and is not in its journal, of which all is known and no launch is in flight.
    fn never_launched(&mut self, name: &str, reports: &mut Vec<BackendReport>) {
        self.give_up_in_flight(name, &BackendEvent::NeverLaunched, reports);
    }

    fn give_up_in_flight(&mut self, name: &str, event: &BackendEvent, reports: &mut Vec<BackendReport>) {
        let given_up: Vec<_> = self.in_flight.extract_if(|_, (keeper, _)| *keeper == name).collect();
        for (attempt, _) in given_up {
            self.drop_input(&attempt);
            self.groups.discard(&attempt);
            reports.push(BackendReport { attempt, event: event.clone(), receipt: None });
        }
    }

    /// No keeper knows the attempt; what is on disk has to do.
    pub(super) fn look_for(&mut self, known: &KnownAttempt, reports: &mut Vec<BackendReport>) {
        let attempt = known.attempt.clone();
        match known.process.as_ref().and_then(LocalProcess::from_process) {
            // Its end is on disk; the engine asks for what is left of its tree, wherever that is.
            Some(_) if known.ended => {}
            Some(process) => {
                self.orphans_anywhere = true;
                self.running.insert(attempt.clone(), Running { process: process.clone(), keeper: None });
                self.watch(attempt, process, reports);
            }
            None => {
                let is_of_this_boot = self
                    .config
                    .previous_boot_id
                    .as_ref()
                    .is_none_or(|boot| *boot == self.config.machine.boot_id);
                let event = if is_of_this_boot {
                    // All keepers have been fenced and none has noted it, so it never executed anything.
                    BackendEvent::NeverLaunched
                } else {
                    // Journals are not synced: what was executed just before the power went is in none of them.
                    BackendEvent::Lost { reason: Reason::Reboot, at: now() }
                };
                self.groups.discard(&attempt);
                reports.push(BackendReport { attempt, event, receipt: None });
            }
        }
    }

    /// Says which of a keeper's processes are gone although it has jobs: they do not leave by themselves then.
    fn tell_of_the_dead(&self, name: &str, its_jobs: &[AttemptId]) {
        let jobs = its_jobs.iter().filter(|attempt| self.running.contains_key(*attempt)).count();
        let gone = match self.links.get(name).map(|link| link.status(jobs)) {
            // One that has left, or whose jobs have ended with it, is missed by nobody.
            _ if jobs == 0 => return,
            None => "both of its processes are gone; its jobs are watched by their identities",
            Some(status) if status.pid.is_none() => {
                "its guard is gone; its worker sees its jobs to their ends"
            }
            Some(status) if status.worker_pid.is_none() => {
                "its worker is gone; its guard sees its jobs to their ends"
            }
            Some(_) => return,
        };
        self.host.warn(format!("keeper {name}: {gone}"));
    }

    /// The connection ended: one of the two processes is gone, or the keeper has left. Whoever is there now tells
    /// what happened; if nobody is, the journal does.
    pub(super) fn reattach(&mut self, name: &str, reports: &mut Vec<BackendReport>) {
        self.links.remove(name);
        if self.launching.as_deref() == Some(name) {
            self.launching = None;
        }
        let its_jobs: Vec<AttemptId> = self.jobs_of(name).cloned().collect();
        let mut past = Vec::new();
        match self.attach(name, &mut past) {
            Ok(()) => {
                reports.append(&mut past);
                // If it has left, whoever is still being ended is nobody's child that we know of.
                self.orphans_anywhere |= !self.links.contains_key(name) && !self.endings.is_empty();
                self.tell_of_the_dead(name, &its_jobs);
            }
            Err(error) => {
                // Its jobs are watched by identity, which is all that is left of it.
                self.host.warn(format!("keeper {name}: {error}; its jobs are watched by their identities"));
                reports.append(&mut past);
                self.orphan(name, reports);
                // Whether it has executed, or will yet execute, what it was told to is not known, so it must not be
                // asked of another keeper.
                let unknown = BackendEvent::Lost { reason: Reason::Unknown, at: now() };
                self.give_up_in_flight(name, &unknown, reports);
            }
        }
    }
}
