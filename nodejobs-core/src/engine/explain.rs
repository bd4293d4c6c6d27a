//! Why a job waits, as the engine knows it.

use std::collections::{HashSet, VecDeque};

use crate::explain::{Explanation, Holders, QueuePlace, Shortage};
use crate::group::DEFAULT_GROUP;
use crate::id::JobId;
use crate::job::WaitingOn;
use crate::spec::Dependency;

use super::Engine;
use super::live::Live;
use super::queue::{Lack, Standing, Want};

impl Engine {
    /// What keeps a job from running now, and what keeps those from it that it waits for; `None` if it is not live.
    pub fn explain(&self, id: &JobId) -> Option<Explanation> {
        let mut explanation = self.explain_one(id)?;
        let mut known = HashSet::from([id.clone()]);
        let mut next = VecDeque::from(explanation.after.clone());
        while let Some(Dependency { id, .. }) = next.pop_front() {
            if explanation.chain.len() == Explanation::CHAINED {
                break;
            }
            if let Some(awaited) = self.explain_one(&id).filter(|_| known.insert(id)) {
                next.extend(awaited.after.iter().cloned());
                explanation.chain.push(awaited);
            }
        }
        Some(explanation)
    }

    fn explain_one(&self, id: &JobId) -> Option<Explanation> {
        let live = self.live.get(id)?;
        let waits_for_time = live.state.waiting_on == Some(WaitingOn::Time);
        Some(Explanation {
            held_up: None,
            id: id.clone(),
            attempt: live.state.attempt,
            status: live.state.status,
            waiting_on: live.state.waiting_on.map(|waiting| waiting.as_str().to_owned()),
            next_start_at: waits_for_time.then(|| live.start.due(live.created_at)).flatten(),
            queue: (live.place.standing == Standing::Waits).then(|| self.queue_place(live)),
            after: self.waits_for(id),
            chain: Vec::new(),
        })
    }

    fn queue_place(&self, live: &Live) -> QueuePlace {
        let group = live.place.want().group.as_deref();
        let lacks: Vec<_> = self.queue.lacks_now(live.place.want());
        let behind = if lacks.is_empty() { self.queue.kept_by(&live.place) } else { None };
        QueuePlace {
            group: group.unwrap_or(DEFAULT_GROUP).to_owned(),
            position: self.queue.before(&live.place) + 1,
            waiting: self.queue.group(group).map_or(0, |load| load.waiting),
            priority: live.place.priority,
            lacks: lacks.iter().map(|lack| self.shortage(live, lack)).collect(),
            behind,
        }
    }

    /// What there is of what is missing, and who has it.
    pub(super) fn shortage(&self, live: &Live, lack: &Lack) -> Shortage {
        let want = live.place.want();
        let group = want.group.as_deref().unwrap_or(DEFAULT_GROUP).to_owned();
        let load = self.queue.group(want.group.as_deref()).copied().unwrap_or_default();
        let capacity = self.queue.capacity();
        match lack {
            Lack::Paused => Shortage::Paused { group },
            Lack::Slots => Shortage::Slots {
                group,
                wants: u64::from(want.slots),
                taken: load.taken,
                total: u64::from(load.slots().unwrap_or_default()),
                held_by: self.holders(|other| other.group == want.group),
            },
            Lack::Processes => Shortage::Processes {
                taken: u64::from(self.queue.running()),
                total: u64::from(capacity.max_processes.unwrap_or_default().max(1)),
                held_by: self.holders(|_| true),
            },
            Lack::Memory => Shortage::Memory {
                wants: want.memory,
                taken: self.queue.memory(),
                total: capacity.max_memory.unwrap_or_default(),
                held_by: self.holders(|other| other.memory > 0),
            },
            Lack::Resource(name) => {
                let total = capacity.resources.get(name).copied().unwrap_or_default();
                Shortage::Resource {
                    name: name.clone(),
                    wants: want.needs.get(name).copied().map_or(0, u64::from),
                    taken: u64::from(self.queue.resources().used(name, total)),
                    total: u64::from(total),
                    held_by: self.holders(|other| other.needs.contains_key(name)),
                }
            }
        }
    }

    fn holders(&self, holds: impl Fn(&Want) -> bool) -> Holders {
        let have = self.live.iter().filter(|(_, live)| live.place.standing == Standing::Has);
        have.filter(|(_, live)| holds(live.place.want())).map(|(id, _)| id.clone()).collect()
    }
}
