//! The group of one attempt: a directory with its limits, and a link to it beside the keepers' files, by which the next
//! owner finds it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use nodejobs_core::JobId;
use nodejobs_core::id::AttemptId;
use nodejobs_core::job::ResourceUsage;
use nodejobs_core::spec::Limits;

use super::base::Base;
use super::{Place, groups_in, job_group_around, name_of, processes_in, write};
use crate::identity::{ProcStat, if_there};
use crate::tree::{DAEMON_MARK, marks_of};

/// Of the names of the links.
pub(crate) const LINK_ENDING: &str = ".cgroup";
/// How many jobs of one id may have left processes in groups that are still there.
const MOST_OF_ONE_ID: u32 = 100;
/// Over which processor time is measured out, in microseconds: the kernel's own default.
const CPU_PERIOD_US: u64 = 100_000;

/// A group that is there, or was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    directory: PathBuf,
    link: PathBuf,
}

/// What could not be done for a group.
#[derive(Debug)]
pub(crate) struct GroupError {
    pub(crate) what: String,
    pub(crate) error: io::Error,
}

/// The living processes of a group, without the daemons that its job was first to need and what is below these.
pub(crate) struct Members {
    pub(crate) processes: Vec<ProcStat>,
    /// There are such daemons.
    pub(crate) has_daemon: bool,
}

/// What the kernel says about memory that was asked for and not given, in this group itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct MemoryEvents {
    /// How often its own limit was reached, and nothing could be given back.
    oom: u64,
    /// How many processes were killed, for whatever limit, or for want of memory on the machine.
    oom_kill: u64,
}

impl MemoryEvents {
    fn read(text: &str) -> Self {
        let count = |name: &str| number_after(text, name).unwrap_or(0);
        Self { oom: count("oom"), oom_kill: count("oom_kill") }
    }

    /// Whether somebody was killed for want of memory: `Some(true)` for the group's own limit.
    pub(crate) fn killed(self) -> Option<bool> {
        (self.oom_kill > 0).then_some(self.oom > 0)
    }
}

impl Group {
    /// Makes the group of an attempt, with what the base can limit of the limits.
    ///
    /// # Errors
    /// With what could not be done. Nothing is left then.
    pub(crate) fn make(
        base: &Base,
        links: &Path,
        directory_id: &str,
        attempt: &AttemptId,
        limits: &Limits,
    ) -> Result<Self, GroupError> {
        let failed = |what: &str, path: &Path, error| {
            Err(GroupError { what: format!("cannot {what} '{}'", path.display()), error })
        };
        for more in 0..MOST_OF_ONE_ID {
            let group = Self {
                directory: base.directory.join(name_of(directory_id, attempt, more)),
                link: links.join(link_name(attempt, more)),
            };
            // What is left of an earlier try to launch it has nobody in it. If somebody is, they are of an earlier job of
            // that id: their group stays as it is.
            match Self::at_link(&group.link)
                .map_or(Ok(()), |earlier| earlier.remove())
                .and_then(|()| group.remove())
            {
                Err(error) if is_busy(&error) => continue,
                Err(error) => return failed("remove cgroup", &group.directory, error),
                Ok(()) => {}
            }
            // First, so that nobody leaves a directory that nobody knows of.
            if let Err(error) = std::os::unix::fs::symlink(&group.directory, &group.link) {
                return failed("make the link", &group.link, error);
            }
            if let Err(error) = std::fs::create_dir(&group.directory) {
                let _ = group.remove();
                return failed("make cgroup", &group.directory, error);
            }
            if let Err(error) = group.set(base, limits) {
                let _ = group.remove();
                return Err(error);
            }
            return Ok(group);
        }
        let why = format!("{MOST_OF_ONE_ID} earlier jobs of this id have left processes in theirs");
        failed("make cgroup", &base.directory.join(name_of(directory_id, attempt, 0)), io::Error::other(why))
    }

    /// The groups that links beside the keepers' files tell of, those of earlier jobs of an id first.
    pub(crate) fn all_linked(links: &Path) -> Vec<(AttemptId, Self)> {
        let entries = std::fs::read_dir(links).into_iter().flatten().flatten();
        let mut found: Vec<_> = entries
            .filter_map(|entry| {
                let (attempt, more) = parse_link_name(entry.file_name().to_str()?)?;
                Some((attempt, more, Self::at_link(&entry.path())?))
            })
            .collect();
        found.sort_by_key(|(_, more, _)| *more);
        found.into_iter().map(|(attempt, _, group)| (attempt, group)).collect()
    }

    /// The group in which the main process of an attempt is, for whoever has no links to go by, and removes nothing.
    pub(crate) fn around(pid: u32, directory_id: &str, attempt: &AttemptId) -> Option<Self> {
        let directory = job_group_around(&Place::of(pid)?.directory)?;
        let name = directory.file_name()?.to_str()?;
        let rest = name.strip_prefix(name_of(directory_id, attempt, 0).as_str())?;
        (rest.is_empty() || rest.starts_with('~')).then(|| Self { directory, link: PathBuf::new() })
    }

    fn at_link(link: &Path) -> Option<Self> {
        Some(Self { directory: std::fs::read_link(link).ok()?, link: link.to_owned() })
    }

    fn set(&self, base: &Base, limits: &Limits) -> Result<(), GroupError> {
        let set = |file: &str, value: String| {
            write(&self.directory, file, &value).map_err(|error| GroupError {
                what: format!("cannot write {value} to '{}/{file}'", self.directory.display()),
                error,
            })
        };
        if let Some(bytes) = limits.memory.filter(|_| base.controllers.memory) {
            // Swap would be memory that nobody counts. There may be none on this machine.
            if self.directory.join("memory.swap.max").exists() {
                set("memory.swap.max", "0".to_owned())?;
            }
            set("memory.oom.group", "1".to_owned())?;
            set("memory.max", bytes.to_string())?;
        }
        if let Some(milli) = limits.cpu_milli.filter(|_| base.controllers.cpu) {
            set("cpu.max", format!("{} {CPU_PERIOD_US}", u64::from(milli) * CPU_PERIOD_US / 1000))?;
        }
        if let Some(pids) = limits.pids.filter(|_| base.controllers.pids) {
            set("pids.max", pids.to_string())?;
        }
        Ok(())
    }

    /// What a process of it writes a 0 to.
    pub(crate) fn entrance(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }

    /// Whether the kernel keeps a limit on its memory.
    pub(crate) fn limits_memory(&self) -> bool {
        self.read("memory.max").is_ok_and(|text| text.trim().parse::<u64>().is_ok())
    }

    /// Its living processes.
    ///
    /// # Errors
    /// When there is no room to look.
    pub(crate) fn members(&self) -> io::Result<Members> {
        let mut inside = HashMap::new();
        let mut daemons = Vec::new();
        let mut directories = vec![self.directory.clone()];
        let is_populated = if_there(self.read("cgroup.events"))?
            .is_some_and(|text| number_after(&text, "populated") != Some(0));
        while let Some(directory) = directories.pop().filter(|_| is_populated) {
            for pid in if_there(processes_in(&directory))?.into_iter().flatten() {
                let Some(stat) = ProcStat::read(pid)?.filter(|stat| !stat.is_dead()) else { continue };
                if marks_of(pid)?.iter().any(|mark| mark == DAEMON_MARK.as_bytes()) {
                    daemons.push(pid);
                }
                inside.insert(pid, stat);
            }
            directories.extend(if_there(groups_in(&directory))?.into_iter().flatten());
        }
        let is_below_daemon = |stat: &ProcStat| {
            let mut above = Some(stat);
            // No chain of parents is longer, unless numbers were used again while we looked.
            for _ in 0..=inside.len() {
                match above {
                    Some(stat) if daemons.contains(&stat.pid) => return true,
                    Some(stat) => above = inside.get(&stat.parent),
                    None => return false,
                }
            }
            false
        };
        let processes = inside.values().filter(|stat| !is_below_daemon(stat)).cloned().collect();
        Ok(Members { processes, has_daemon: !daemons.is_empty() })
    }

    /// Kills everybody in it at once, also those who are just being made. Not if there is a daemon that the job was first to
    /// need.
    ///
    /// # Errors
    /// When the kernel cannot (before Linux 5.14), or there is no room to look.
    pub(crate) fn kill(&self) -> io::Result<()> {
        if self.members()?.has_daemon {
            return Ok(());
        }
        write(&self.directory, "cgroup.kill", "1")
    }

    /// What all its processes have used so far, those that have ended included. What is not counted here is taken from
    /// `otherwise`; nothing, if that is unknown as well.
    pub(crate) fn usage(&self, otherwise: Option<ResourceUsage>) -> Option<ResourceUsage> {
        let cpu = self.read("cpu.stat").ok().and_then(|text| number_after(&text, "usage_usec"));
        let peak = self.read("memory.peak").ok().and_then(|text| text.trim().parse::<u64>().ok());
        Some(ResourceUsage {
            cpu_ms: cpu.map(|us| us / 1000).or(otherwise.map(|usage| usage.cpu_ms))?,
            peak_memory_kib: peak
                .map(|bytes| bytes / 1024)
                .or(otherwise.map(|usage| usage.peak_memory_kib))?,
        })
    }

    pub(crate) fn memory_events(&self) -> MemoryEvents {
        self.read("memory.events.local")
            .map_or_else(|_| MemoryEvents::default(), |text| MemoryEvents::read(&text))
    }

    /// Removes it, with the groups that its processes have made in it. What is not there is fine.
    ///
    /// # Errors
    /// [`is_busy`] while there are processes in it; others if it cannot be.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove_with_those_below(&self.directory)?;
        remove_if_there(std::fs::remove_file(&self.link))
    }

    fn read(&self, file: &str) -> io::Result<String> {
        std::fs::read_to_string(self.directory.join(file))
    }
}

/// Whether a group could not be removed because somebody is in it.
pub(crate) fn is_busy(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY))
}

fn remove_if_there(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Err(error)
        }
        _ => Ok(()),
    }
}

fn remove_with_those_below(directory: &Path) -> io::Result<()> {
    match remove_if_there(std::fs::remove_dir(directory)) {
        Err(error) if is_busy(&error) => {
            let below = groups_in(directory)?;
            if below.is_empty() {
                return Err(error);
            }
            below.iter().try_for_each(|below| remove_with_those_below(below))?;
            remove_if_there(std::fs::remove_dir(directory))
        }
        removed => removed,
    }
}

/// The number behind a name at the beginning of a line.
fn number_after(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

fn link_name(attempt: &AttemptId, more: u32) -> String {
    let more = if more == 0 { String::new() } else { format!("~{more}") };
    format!("{}.{}{more}{LINK_ENDING}", attempt.id, attempt.attempt)
}

fn parse_link_name(name: &str) -> Option<(AttemptId, u32)> {
    let name = name.strip_suffix(LINK_ENDING)?;
    let (name, more) = match name.split_once('~') {
        None => (name, 0),
        Some((name, more)) => (name, more.parse().ok()?),
    };
    let (id, attempt) = name.rsplit_once('.')?;
    Some((AttemptId { id: JobId::new(id).ok()?, attempt: attempt.parse().ok()? }, more))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_found_by_the_names_they_were_given() {
        for (id, number, more) in [("a", 1, 0), ("a.1", 2, 0), ("a.1", 2, 3), ("x-_.9", u32::MAX, u32::MAX)] {
            let attempt = AttemptId { id: JobId::new(id).expect("valid"), attempt: number };
            assert_eq!(parse_link_name(&link_name(&attempt, more)), Some((attempt, more)));
        }
        for other in ["a.cgroup", ".1.cgroup", "a.1", "a.1~.cgroup", "a.1~x.cgroup", "00000001-1.journal"] {
            assert_eq!(parse_link_name(other), None, "{other}");
        }
    }

    #[test]
    fn whether_the_limit_or_the_machine_was_full_is_told_apart() {
        let killed = |text: &str| MemoryEvents::read(text).killed();
        let none = "low 0\nhigh 0\nmax 3\noom 0\noom_kill 0\noom_group_kill 0\n";
        assert_eq!(killed(none), None, "it was full, and something could be given back");
        assert_eq!(killed("max 9\noom 1\noom_kill 2\noom_group_kill 1\n"), Some(true));
        assert_eq!(killed("max 0\noom 0\noom_kill 1\n"), Some(false));
        assert_eq!(killed(""), None);
    }

    #[test]
    fn numbers_are_those_of_whole_names() {
        let text = "usage_usec 12\nuser_usec 7\n";
        assert_eq!((number_after(text, "usage_usec"), number_after(text, "usage")), (Some(12), None));
        assert_eq!(number_after("populated x\n", "populated"), None);
    }

    #[test]
    fn what_was_never_made_is_removed_without_a_word() {
        let directory = tempfile::tempdir().expect("a directory");
        let attempt = AttemptId { id: JobId::new("a").expect("valid"), attempt: 1 };
        let link = directory.path().join(link_name(&attempt, 0));
        std::os::unix::fs::symlink(directory.path().join("not/there"), &link).expect("a link");
        let found = Group::all_linked(directory.path());
        assert_eq!(found.len(), 1);
        let (of, group) = &found[0];
        assert_eq!(of, &attempt);
        assert!(group.members().expect("room").processes.is_empty() && !group.limits_memory());
        assert_eq!(group.usage(None), None);
        group.remove().expect("nothing is in the way");
        assert!(Group::all_linked(directory.path()).is_empty() && group.remove().is_ok());
    }
}
