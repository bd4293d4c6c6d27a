//! Groups as somebody makes, changes and removes them, and what jobs may want of them.
//!
//! A group counts once its document is on disk: until then the store can still refuse it.

use crate::group::{DEFAULT_GROUP, Group, GroupChange, GroupStatus};
use crate::job::Definition;
use crate::store::{DocumentChange, DocumentKind, Unit};

use super::{Answer, Effect, Engine, Ticket, Turn};

/// Why something makes no sense as things are set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nobody has made the group.
    #[error("there is no group '{name}'; there are {}; `nodejobs group set {name}` makes it", known.join(", "))]
    UnknownGroup {
        /// Its name.
        name: String,
        /// Those that there are, some of them if they are many.
        known: Vec<String>,
    },
    /// It could never start.
    #[error(
        "it takes {wants} slots, and group '{group}' has {slots}; `nodejobs group set {group} --slots N` changes that"
    )]
    MoreSlots {
        /// Its group.
        group: String,
        /// So many it takes.
        wants: u32,
        /// So many there are.
        slots: u32,
    },
    /// Nobody has said that there is such a thing.
    #[error("there is no resource '{name}'; {}", there_are(known))]
    UnknownResource {
        /// Its name.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// It could never start.
    #[error(
        "it needs {wants} of resource '{name}', and there are {total}; [resources] of config.toml says so"
    )]
    MoreThanExist {
        /// The resource.
        name: String,
        /// So many it needs.
        wants: u32,
        /// So many there are.
        total: u32,
    },
    /// It is not empty.
    #[error(
        "group '{name}' still has jobs: {running} running, {others} waiting; stop them, or wait for them"
    )]
    HasJobs {
        /// The group.
        name: String,
        /// Jobs that have a place.
        running: usize,
        /// All other live ones.
        others: usize,
    },
    /// A schedule has its jobs in it.
    #[error(
        "jobs of schedule '{schedule}' are in group '{name}'; remove it, or change its group with `schedule add --replace`"
    )]
    HasSchedule {
        /// The group.
        name: String,
        /// The first of them.
        schedule: String,
    },
    /// Something else, in words.
    #[error("{0}")]
    Other(String),
    /// It always exists.
    #[error("group '{DEFAULT_GROUP}' is that of all jobs without one, and stays")]
    DefaultGroup,
}

fn there_are(known: &[String]) -> String {
    let add = "[resources] of config.toml says what there is, such as gpu = 2";
    if known.is_empty() { add.to_owned() } else { format!("there are {}; {add}", known.join(", ")) }
}

/// At most so many names are listed.
const LISTED: usize = 20;

/// The name under which the queue has a group.
fn queued_name(name: &str) -> Option<&str> {
    Some(name).filter(|name| *name != DEFAULT_GROUP)
}

/// Whether these are nothing but groups.
pub(super) fn are_of_groups(documents: &[DocumentChange]) -> bool {
    !documents.is_empty() && documents.iter().all(|document| group_of(document).is_some())
}

/// The group that a change stores, or removes.
fn group_of(document: &DocumentChange) -> Option<(&str, Option<&[u8]>)> {
    match document {
        DocumentChange::Put { kind: DocumentKind::Group, key, body }
        | DocumentChange::PutIfAbsent { kind: DocumentKind::Group, key, body } => Some((key, Some(body))),
        DocumentChange::Remove { kind: DocumentKind::Group, key } => Some((key, None)),
        _ => None,
    }
}

impl Engine {
    /// Takes in the groups that an earlier owner left, before its jobs.
    ///
    /// # Errors
    /// When one cannot be understood: its name, and what is wrong with it.
    pub fn restore_groups(
        &mut self,
        documents: &[(String, Vec<u8>)],
    ) -> Result<(), (String, serde_json::Error)> {
        for (name, body) in documents {
            let group = serde_json::from_slice(body).map_err(|error| (name.clone(), error))?;
            self.queue.set_group(queued_name(name), Some(group));
        }
        Ok(())
    }

    /// All groups: the default one first, then the others by their names.
    pub fn groups(&self) -> Vec<GroupStatus> {
        let default = self.queue.group(None).into_iter().map(|load| (DEFAULT_GROUP, load));
        let all = default.chain(self.queue.groups());
        let shown = all.map(|(name, load)| GroupStatus {
            name: name.to_owned(),
            slots: load.slots(),
            taken: load.taken,
            running: load.running,
            waiting: load.waiting,
            paused: load.is_paused(),
        });
        shown.collect()
    }

    fn known_group(&self, name: Option<&str>) -> Option<Group> {
        let settings = self.queue.group(name).and_then(|load| load.settings);
        settings.or_else(|| name.is_none().then(Group::default))
    }

    fn unknown_group(&self, name: &str) -> Refusal {
        let made = self.queue.groups().filter(|(_, load)| load.settings.is_some()).map(|(name, _)| name);
        let known = std::iter::once(DEFAULT_GROUP).chain(made).take(LISTED).map(str::to_owned).collect();
        Refusal::UnknownGroup { name: name.to_owned(), known }
    }

    /// Whether a job could start some time, as things are set.
    pub(super) fn check_place(&self, definition: &Definition) -> Result<(), Refusal> {
        let group = definition.group.as_deref();
        let shown = group.unwrap_or(DEFAULT_GROUP);
        let settings = self.known_group(group).ok_or_else(|| self.unknown_group(shown))?;
        let wants = definition.slots;
        if let Some(slots) = settings.slots.filter(|slots| *slots < wants) {
            return Err(Refusal::MoreSlots { group: shown.to_owned(), wants, slots });
        }
        let resources = &self.queue.capacity().resources;
        for (name, wants) in &definition.needs {
            let (name, wants) = (name.clone(), *wants);
            match resources.get(&name) {
                None => {
                    let known = resources.keys().take(LISTED).cloned().collect();
                    return Err(Refusal::UnknownResource { name, known });
                }
                Some(total) if *total < wants => {
                    return Err(Refusal::MoreThanExist { name, wants, total: *total });
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn change_group(&mut self, ticket: Ticket, name: &str, change: GroupChange, turn: &mut Turn) {
        let known = self.known_group(queued_name(name));
        let answer = if known.is_none() && change.must_exist {
            Answer::Refused(self.unknown_group(name))
        } else {
            let group = change.of(known.unwrap_or_default());
            turn.units.push(Unit { job: None, documents: vec![group.document(name)] });
            Answer::GroupChanged
        };
        turn.effects.push(Effect::Reply { ticket, answer });
    }

    pub(super) fn remove_group(&mut self, ticket: Ticket, name: &str, turn: &mut Turn) {
        let answer = match self.check_removal(name) {
            Ok(()) => {
                let document = DocumentChange::Remove { kind: DocumentKind::Group, key: name.to_owned() };
                turn.units.push(Unit { job: None, documents: vec![document] });
                Answer::GroupChanged
            }
            Err(refusal) => Answer::Refused(refusal),
        };
        turn.effects.push(Effect::Reply { ticket, answer });
    }

    fn check_removal(&self, name: &str) -> Result<(), Refusal> {
        let Some(queued) = queued_name(name) else { return Err(Refusal::DefaultGroup) };
        if self.known_group(Some(queued)).is_none() {
            return Err(self.unknown_group(name));
        }
        let running = self.queue.group(Some(queued)).map_or(0, |load| load.running as usize);
        // Also who waits for a time, and is in no queue yet.
        let live =
            self.live.values().filter(|live| live.place.want().group.as_deref() == Some(queued)).count();
        if live > 0 {
            return Err(Refusal::HasJobs { name: name.to_owned(), running, others: live - running });
        }
        match self.schedules.in_group(queued) {
            Some(schedule) => {
                Err(Refusal::HasSchedule { name: name.to_owned(), schedule: schedule.to_owned() })
            }
            None => Ok(()),
        }
    }

    /// What was committed of groups counts from now on.
    pub(super) fn groups_are_stored(&mut self, documents: &[DocumentChange]) {
        for (name, body) in documents.iter().filter_map(group_of) {
            // It was made by `Group::document`.
            let group = body.and_then(|body| serde_json::from_slice(body).ok());
            self.queue.set_group(queued_name(name), group);
        }
    }
}
