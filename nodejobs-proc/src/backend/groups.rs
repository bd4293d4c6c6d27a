//! The cgroups of jobs with limits of their whole trees: made before a launch, read at the end, removed when the outcome is in
//! the store.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use nodejobs_core::backend::{BackendEvent, KnownAttempt, LaunchSpec, Receipt, StartFailure};
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::{ExitStatus, ResourceUsage};
use nodejobs_core::spec::Limits;

use super::{Config, Loop};
use crate::cgroup::base::{Base, Bases};
use crate::cgroup::group::{Group, GroupError, is_busy};
use crate::cgroup::{Place, may_move};
use crate::limits;

/// What is known of the groups of attempts.
pub(super) struct Groups {
    bases: Arc<Bases>,
    of: HashMap<AttemptId, Kept>,
    /// Of earlier jobs whose ids are used again, with processes that were to be kept.
    left: Vec<Group>,
    /// Something has ended since it was last looked for groups to be removed.
    is_untidy: bool,
}

struct Kept {
    group: Group,
    /// The limit on its memory, in bytes.
    memory: Option<u64>,
    /// What its processes had used when the main one ended.
    usage: Option<ResourceUsage>,
    ended: Ended,
}

/// Whether a group is still needed.
enum Ended {
    No,
    /// The end of its main process is told, and has to be told again as long as this is not acknowledged.
    Told(Receipt),
    /// Nobody will ask any more.
    Known,
}

impl Groups {
    pub(super) fn new(config: &Config) -> Self {
        let is_disabled = !config.machine.use_cgroups;
        let bases = Bases::new(config.cgroup.clone(), &config.directory_id, is_disabled);
        Self { bases: Arc::new(bases), of: HashMap::new(), left: Vec::new(), is_untidy: false }
    }

    /// For those who have to know what can be limited.
    pub(super) fn bases(&self) -> Arc<Bases> {
        Arc::clone(&self.bases)
    }

    pub(super) fn of(&self, attempt: &AttemptId) -> Option<&Group> {
        self.of.get(attempt).map(|kept| &kept.group)
    }

    /// All of them, for somebody who looks at processes elsewhere.
    pub(super) fn all(&self) -> HashMap<AttemptId, Group> {
        self.of.iter().map(|(attempt, kept)| (attempt.clone(), kept.group.clone())).collect()
    }

    fn keep(&mut self, attempt: AttemptId, group: Group, memory: Option<u64>) {
        let kept = Kept { group, memory, usage: None, ended: Ended::No };
        if let Some(earlier) = self.of.insert(attempt, kept)
            && self.of.values().all(|kept| kept.group != earlier.group)
        {
            self.left.push(earlier.group);
        }
    }

    /// The group was made for a launch that did not happen.
    pub(super) fn discard(&mut self, attempt: &AttemptId) {
        if let Some(kept) = self.of.get_mut(attempt) {
            kept.ended = Ended::Known;
            self.is_untidy = true;
        }
    }

    /// What all of it has used. Of those without a group, what is said of the main process.
    fn usage(&mut self, attempt: &AttemptId, of_main: Option<ResourceUsage>) -> Option<ResourceUsage> {
        let Some(kept) = self.of.get_mut(attempt) else { return of_main };
        kept.usage = kept.group.usage(of_main.or(kept.usage));
        kept.usage.or(of_main)
    }

    /// The same when its tree has ended, if it has a group.
    pub(super) fn last_usage(&mut self, attempt: &AttemptId) -> Option<ResourceUsage> {
        self.is_untidy |= self.of.contains_key(attempt);
        self.usage(attempt, None)
    }

    /// That the kernel has killed it for want of memory, if it has.
    fn killed_for_memory(&self, attempt: &AttemptId, exit: ExitStatus) -> Option<BackendEvent> {
        const KILL: i32 = libc::SIGKILL;
        let kept = self.of.get(attempt)?;
        let limit = kept.memory?;
        let (ExitStatus::Signal { number: KILL, .. }, Some(by_limit)) =
            (exit, kept.group.memory_events().killed())
        else {
            return None;
        };
        let detail = match by_limit {
            true => format!(
                "its processes wanted more than the {} that they may have: the kernel has killed them",
                limits::mebibytes(limit)
            ),
            false => "the machine had no memory left: the kernel has killed it".to_owned(),
        };
        Some(BackendEvent::OverMemory { detail })
    }

    /// Its main process has ended: what the end is to be told with, and what goes before it.
    pub(super) fn main_ended(
        &mut self,
        attempt: &AttemptId,
        exit: ExitStatus,
        of_main: Option<ResourceUsage>,
        receipt: Option<&Receipt>,
    ) -> (Option<ResourceUsage>, Option<BackendEvent>) {
        let usage = self.usage(attempt, of_main);
        let killed = self.killed_for_memory(attempt, exit);
        if let Some(kept) = self.of.get_mut(attempt) {
            kept.ended = receipt.map_or(Ended::Known, |receipt| Ended::Told(receipt.clone()));
            self.is_untidy |= receipt.is_none();
        }
        (usage, killed)
    }

    /// Everything before these places is in the store.
    pub(super) fn acknowledge(&mut self, receipts: &[Receipt]) {
        for kept in self.of.values_mut() {
            let Ended::Told(told) = &kept.ended else { continue };
            let covers =
                |receipt: &Receipt| told.source == receipt.source && told.position <= receipt.position;
            if receipts.iter().any(covers) {
                kept.ended = Ended::Known;
                self.is_untidy = true;
            }
        }
    }
}

impl Loop {
    /// Makes the group of an attempt whose limits want one. Gives what its child enters it by.
    ///
    /// # Errors
    /// When a limit could not be kept otherwise.
    pub(super) fn make_group(
        &mut self,
        attempt: &AttemptId,
        spec: &LaunchSpec,
    ) -> Result<Option<PathBuf>, StartFailure> {
        let Some(limits) = spec.limits.as_deref().filter(|limits| limits.is_of_whole_tree()) else {
            return Ok(None);
        };
        let base = self.groups.bases.prepared();
        limits::check_group_limits(limits, base.as_ref()).map_err(StartFailure::permanent)?;
        let Ok(base) = base else {
            // Looked after as where there are no groups.
            self.limit_memory(attempt, limits.memory);
            return Ok(None);
        };
        self.prefer_keeper_near(&base);
        let links = &self.config.keepers;
        let group = Group::make(&base, links, &self.config.directory_id, attempt, limits).map_err(
            |GroupError { what, error }| {
                let detail = format!("{what}: {error}");
                match error.raw_os_error() {
                    Some(libc::EAGAIN | libc::ENOMEM | libc::ENOSPC) => StartFailure::no_room(detail),
                    _ => StartFailure::permanent(detail),
                }
            },
        )?;
        let entrance = group.entrance();
        self.keep_group(attempt, group, limits.memory, base.controllers.memory);
        Ok(Some(entrance))
    }

    fn keep_group(&mut self, attempt: &AttemptId, group: Group, memory: Option<u64>, by_kernel: bool) {
        self.groups.keep(attempt.clone(), group, memory.filter(|_| by_kernel));
        self.limit_memory(attempt, memory.filter(|_| !by_kernel));
    }

    /// Has the next launches go to a new keeper if the children of this one may not enter the groups of the base: it was
    /// started somewhere else.
    fn prefer_keeper_near(&mut self, base: &Base) {
        if rustix::process::geteuid().is_root() {
            return;
        }
        let collector = self.launching.as_ref().and_then(|name| self.links.get(name)?.collector());
        if let Some(place) = collector.and_then(Place::of)
            && !may_move(&place.directory, &base.directory)
        {
            self.launching = None;
        }
    }

    /// Takes over the groups that earlier owners have made. To be called before anything is heard of their attempts.
    pub(super) fn find_groups(&mut self, attempts: &[KnownAttempt]) {
        let limits: HashMap<&AttemptId, Option<u64>> =
            attempts.iter().map(|known| (&known.attempt, known.memory_limit)).collect();
        for (attempt, group) in Group::all_linked(&self.config.keepers) {
            let memory = limits.get(&attempt).copied().flatten().filter(|_| group.limits_memory());
            self.groups.keep(attempt, group, memory);
        }
    }

    /// Has limits on memory looked after that no kernel keeps. Groups of other attempts than these are of some that have
    /// ended.
    pub(super) fn take_over_limits(&mut self, attempts: &[KnownAttempt]) {
        let known: HashSet<&AttemptId> = attempts.iter().map(|known| &known.attempt).collect();
        for (attempt, kept) in &mut self.groups.of {
            if !known.contains(attempt) && !self.running.contains_key(attempt) {
                kept.ended = Ended::Known;
                self.groups.is_untidy = true;
            }
        }
        for known in attempts {
            let by_kernel = self.groups.of.get(&known.attempt).is_some_and(|kept| kept.memory.is_some());
            self.limit_memory(&known.attempt, known.memory_limit.filter(|_| !by_kernel));
        }
    }

    /// Removes groups that nobody needs any more. One with processes that were to be kept stays, and is tried again when the
    /// next one has ended.
    pub(super) fn tidy_groups(&mut self) {
        if !std::mem::take(&mut self.groups.is_untidy) {
            return;
        }
        let Self { groups, endings, running, in_flight, host, .. } = self;
        let remove = |group: &Group| match group.remove() {
            Ok(()) => true,
            Err(error) if is_busy(&error) => false,
            Err(error) => {
                host.warn(format!("a cgroup that nobody needs any more cannot be removed: {error}"));
                true
            }
        };
        groups.left.retain(|group| !remove(group));
        groups.of.retain(|attempt, kept| {
            let is_needed = !matches!(kept.ended, Ended::Known)
                || endings.contains_key(attempt)
                || running.contains_key(attempt)
                || in_flight.contains_key(attempt);
            is_needed || !remove(&kept.group)
        });
    }
}

/// Whether limits of whole trees can be kept. A limit on memory always can.
pub(super) fn check_limits(bases: &Bases, wanted: &Limits) -> Result<(), String> {
    if wanted.cpu_milli.is_none() && wanted.pids.is_none() {
        return Ok(());
    }
    limits::check_group_limits(wanted, bases.prepared().as_ref())
}
