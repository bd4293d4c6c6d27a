//! What is done with files, mount by mount: at most so many at a time, and everything else of that mount waits.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nodejobs_core::Timestamp;
use nodejobs_proc::machine::now;

use super::mounts::{Device, Table};
use super::walk::Walk;

/// So many may be stuck in one file system.
pub(super) const PER_MOUNT: usize = 2;
/// At each so many tasks those are taken out that nobody wants any more.
const SWEPT: u64 = 256;
/// Of so many paths it is remembered that their text does not say where they lead to.
const REMEMBERED: usize = 1024;

/// Something to do with a file.
pub(super) struct Task {
    pub(super) doing: &'static str,
    pub(super) path: PathBuf,
    /// Touches the file, and nothing else that has a descriptor.
    pub(super) work: Box<dyn FnOnce() + Send>,
    /// Tells of it, done or not.
    pub(super) done: Box<dyn FnOnce() + Send>,
    /// Whether nobody wants it any more.
    pub(super) given_up: Option<Arc<AtomicBool>>,
}

impl Task {
    fn is_wanted(&self) -> bool {
        self.given_up.as_ref().is_none_or(|given_up| !given_up.load(Ordering::Relaxed))
    }
}

/// A task under way to its file.
pub(super) struct Under {
    pub(super) number: u64,
    pub(super) device: Device,
    pub(super) walk: Walk,
    pub(super) task: Task,
}

struct Running {
    number: u64,
    doing: &'static str,
    path: PathBuf,
    since: Instant,
    since_wall: Timestamp,
}

#[derive(Default)]
struct Lane {
    running: Vec<Running>,
    waiting: VecDeque<Under>,
}

/// Something that has not come back from a file for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stuck {
    pub(crate) doing: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) since: Timestamp,
    /// How much waits for the same file system.
    pub(crate) waiting: usize,
}

#[derive(Default)]
pub(super) struct Lanes {
    lanes: HashMap<Device, Lane>,
    /// Those that a thread may go on with.
    pub(super) ready: VecDeque<Under>,
    /// The mounts as they were when they were last looked at.
    pub(super) mounts: Arc<Table>,
    /// Directories whose files are on another mount than their text says.
    elsewhere: HashMap<PathBuf, Device>,
    last_number: u64,
}

impl Lanes {
    /// Takes a task in. Now and then it gives back what nobody wants any more, so that it
    /// does not gather while a file system hangs.
    pub(super) fn add(&mut self, task: Task) -> Vec<Task> {
        let (walk, device) = Walk::begin(&task.path, &self.mounts);
        self.last_number += 1;
        self.put(Under { number: self.last_number, device, walk, task });
        if self.last_number.is_multiple_of(SWEPT) { self.given_up() } else { Vec::new() }
    }

    fn put(&mut self, under: Under) {
        let lane = self.lanes.entry(under.device).or_default();
        if lane.running.len() < PER_MOUNT {
            lane.running.push(Running {
                number: under.number,
                doing: under.task.doing,
                path: under.task.path.clone(),
                since: Instant::now(),
                since_wall: now().wall,
            });
            self.ready.push_back(under);
        } else {
            lane.waiting.push_back(under);
        }
    }

    /// The path of a task leads to another file system: it goes on there, when it is its turn.
    pub(super) fn moves(&mut self, under: Under, device: Device) -> Vec<Task> {
        let given_up = self.ended(&under);
        if self.elsewhere.len() >= REMEMBERED {
            self.elsewhere.clear();
        }
        self.elsewhere.insert(directory(&under.task.path).to_owned(), device);
        self.put(Under { device, ..under });
        given_up
    }

    /// A task is no longer under way there: the next one's turn. Those that nobody wants any more are given back.
    pub(super) fn ended(&mut self, under: &Under) -> Vec<Task> {
        let mut given_up = Vec::new();
        let Some(lane) = self.lanes.get_mut(&under.device) else { return given_up };
        lane.running.retain(|running| running.number != under.number);
        while let Some(next) = lane.waiting.pop_front() {
            if next.task.is_wanted() {
                self.put(next);
                return given_up;
            }
            given_up.push(next.task);
        }
        if lane.running.is_empty() {
            self.lanes.remove(&under.device);
        }
        given_up
    }

    fn given_up(&mut self) -> Vec<Task> {
        let mut found = Vec::new();
        for lane in self.lanes.values_mut() {
            let (wanted, unwanted) =
                std::mem::take(&mut lane.waiting).into_iter().partition(|under| under.task.is_wanted());
            lane.waiting = wanted;
            let unwanted: VecDeque<Under> = unwanted;
            found.extend(unwanted.into_iter().map(|under| under.task));
        }
        found
    }

    /// For how long something has been stuck where this path leads to, as far as that is known.
    pub(super) fn stuck_for(&self, path: &Path) -> Option<Duration> {
        let by_text = self.mounts.of(path).1;
        let devices = [Some(by_text), self.elsewhere.get(directory(path)).copied()];
        let lanes = devices.iter().flatten().filter_map(|device| self.lanes.get(device));
        lanes.flat_map(|lane| &lane.running).map(|running| running.since.elapsed()).max()
    }

    /// What has been under way for longer than that.
    pub(super) fn stuck(&self, longer: Duration) -> Vec<Stuck> {
        let of_lane = |lane: &Lane| {
            let waiting = lane.waiting.len();
            let stuck = lane.running.iter().filter(|running| running.since.elapsed() >= longer);
            stuck
                .map(|running| Stuck {
                    doing: running.doing,
                    path: running.path.clone(),
                    since: running.since_wall,
                    waiting,
                })
                .collect::<Vec<_>>()
        };
        let mut stuck: Vec<Stuck> = self.lanes.values().flat_map(of_lane).collect();
        stuck.sort_by(|one, other| (one.since, &one.path).cmp(&(other.since, &other.path)));
        stuck
    }
}

fn directory(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}
