//! What is done to keepers: killed, halted, their files damaged, and their machine restarted.

use crate::store::conformance::random::Random;
use crate::time::BootTime;

use super::{KeeperIndex, World, pick};

impl World {
    /// One of a keeper's two processes is killed; without both, nobody collects what has not been.
    pub(in super::super) fn kill_keeper(&mut self, index: KeeperIndex, worker: bool) {
        let keeper = &mut self.keepers[index];
        let process = if worker { &mut keeper.worker } else { &mut keeper.guard };
        if !std::mem::replace(process, false) {
            return;
        }
        // A worker that drains cuts its connections, and those of a dead one are cut.
        keeper.connection += 1;
        keeper.inbox.clear();
        keeper.said.clear();
        if !keeper.lives() {
            for run in self.uncollected(index) {
                self.runs[run].may_be_lost = true;
            }
        }
    }

    /// A keeper's worker or its guard is halted, or goes on.
    pub(in super::super) fn halt_keeper(&mut self, index: KeeperIndex, worker: bool) {
        let keeper = &mut self.keepers[index];
        let halted = if worker { &mut keeper.worker_halted } else { &mut keeper.guard_halted };
        *halted = !*halted;
    }

    /// All that is halted goes on.
    pub(in super::super) fn all_go_on(&mut self) {
        for keeper in &mut self.keepers {
            (keeper.worker_halted, keeper.guard_halted) = (false, false);
        }
    }

    /// Bits are flipped in a keeper's journal, or in its page of gates. It is noticed by whoever has to read them.
    pub(in super::super) fn damage(&mut self, index: KeeperIndex, random: &mut Random) {
        let Self { keepers, runs, .. } = self;
        let keeper = &mut keepers[index];
        if keeper.gone || keeper.boot != self.boot {
            return;
        }
        if random.below(3) == 0 && keeper.has_gates {
            keeper.page_is_damaged = true;
            return;
        }
        let places: Vec<usize> = (0..keeper.journal.len()).collect();
        let Some((_, entry)) = pick(&places, random).map(|place| &mut keeper.journal[*place]) else { return };
        entry.is_bad = true;
        // What the entry says is nowhere else, unless a process of the keeper remembers it.
        runs[entry.run].may_be_lost = true;
    }

    /// The power goes: what was written last is gone, in some journals, and nothing lives.
    pub(in super::super) fn reboot(&mut self, random: &mut Random) {
        for index in 0..self.keepers.len() {
            self.kill_keeper(index, true);
            self.kill_keeper(index, false);
            let keeper = &mut self.keepers[index];
            keeper.launches.clear();
            (keeper.worker_halted, keeper.guard_halted) = (false, false);
            let unsynced = keeper.end.saturating_sub(keeper.acknowledged);
            let left = keeper.end - if random.below(2) == 0 { random.below(unsynced + 1) } else { 0 };
            for (_, entry) in keeper.journal.iter().filter(|(position, _)| *position >= left) {
                self.runs[entry.run].may_be_lost = true;
            }
            keeper.journal.retain(|(position, _)| *position < left);
        }
        for run in &mut self.runs {
            run.main.alive = false;
            run.children.clear();
        }
        self.boot += 1;
        self.now.boot = BootTime(random.below(20_000));
        self.set_wall(30_000);
    }
}
