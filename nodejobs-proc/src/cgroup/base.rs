//! The base: the directory in which groups for jobs may be made, where it is known from, and which limits are in force
//! there.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::{LEAF, Place, job_group_around, may_move, may_write, processes_in, write};
use crate::identity::ProcStat;
use crate::machine::DISABLE_VARIABLE;
use crate::tree::{DAEMON_MARK, marks_of};

/// Names the base, before `config.toml` does.
const VARIABLE: &str = "NODEJOBS_CGROUP";
/// A longer path leaves no room for the name of a group in a launch.
const MAX_PATH: usize = 512;
/// How often processes of ours are looked for before some are new each time.
const ROUNDS: u32 = 3;
/// How many generations of processes are looked at: no chain of parents is longer that was not made for it.
const MOST_ABOVE: usize = 100;
/// What [`DISABLE_VARIABLE`] calls this.
const DISABLED: &str = "cgroups";

/// What the kernel can limit for all processes of a group together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Controllers {
    /// `--memory`.
    pub memory: bool,
    /// `--cpu`.
    pub cpu: bool,
    /// `--pids`.
    pub pids: bool,
}

impl Controllers {
    const ALL: Self = Self { memory: true, cpu: true, pids: true };

    fn read(text: &str) -> Self {
        let has = |name: &str| text.split_ascii_whitespace().any(|word| word == name);
        Self { memory: has("memory"), cpu: has("cpu"), pids: has("pids") }
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        [("memory", self.memory), ("cpu", self.cpu), ("pids", self.pids)]
            .into_iter()
            .filter(|(_, there)| *there)
            .map(|(name, _)| name)
    }

    fn without(self, other: Self) -> Self {
        Self {
            memory: self.memory && !other.memory,
            cpu: self.cpu && !other.cpu,
            pids: self.pids && !other.pids,
        }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Those that are missing.
    #[must_use]
    pub fn missing(self) -> Self {
        Self::ALL.without(self)
    }
}

impl fmt::Display for Controllers {
    /// `memory, cpu`, or `none`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.names().collect();
        f.write_str(if names.is_empty() { "none".to_owned() } else { names.join(", ") }.as_str())
    }
}

/// From where a base is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `NODEJOBS_CGROUP` names it, or `cgroup` in `config.toml`.
    Configured,
    /// It is the owner's own group.
    Own,
}

/// A directory in which groups for jobs may be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// The directory.
    pub directory: PathBuf,
    /// From where it is known.
    pub origin: Origin,
    /// What its groups can be limited in, or will be able to once the first job asks for it.
    pub controllers: Controllers,
    /// Why the others are there and cannot be used.
    pub obstacle: Option<String>,
}

/// There is no base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoBase {
    /// Why not.
    pub why: String,
    /// What to do about it.
    pub way_out: String,
}

impl NoBase {
    fn new(why: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { why: why.into(), way_out: way_out.into() }
    }
}

const WITHOUT_SYSTEMD: &str = "make a directory in cgroup v2, give it to this user with all its files (chown -R), and name it with \
                               cgroup in [limits] of config.toml, or NODEJOBS_CGROUP; a user who is not root has to start \
                               the daemon in there";

/// What has an auto-started daemon, or one that is started by hand, get a part of its own.
fn with_systemd(is_root: bool) -> String {
    let user = if is_root { "" } else { "--user " };
    format!("nodejobs daemon stop; systemd-run {user}--scope -p Delegate=yes nodejobs daemon start")
}

/// What gives an owner a base with everything in force.
pub fn way_out() -> String {
    let is_root = rustix::process::geteuid().is_root();
    if has_systemd() { with_systemd(is_root) } else { WITHOUT_SYSTEMD.to_owned() }
}

fn has_systemd() -> bool {
    Path::new("/run/systemd/system").exists()
}

/// Whether systemd has given this group away. What it has not, root could write as well, and must not.
fn is_delegated(directory: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].iter().any(|name| {
        let mut value = [0_u8; 8];
        rustix::fs::getxattr(directory, *name, &mut value).is_ok_and(|length| value[..length] == *b"1")
    })
}

/// What `NODEJOBS_CGROUP` names in the environment of a process, else what the settings do.
fn configured(setting: Option<&Path>, pid: Option<u32>) -> Option<PathBuf> {
    let variable = variable_of(pid, VARIABLE).filter(|value| !value.is_empty());
    variable.map(PathBuf::from).or_else(|| setting.map(Path::to_owned))
}

/// A variable of another process, or of this one.
fn variable_of(pid: Option<u32>, name: &str) -> Option<OsString> {
    let Some(pid) = pid else { return std::env::var_os(name) };
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    Some(OsString::from_vec(value.to_vec()))
}

fn choose(configured: Option<&Path>, place: Option<&Place>) -> Result<(PathBuf, Origin), NoBase> {
    let is_root = rustix::process::geteuid().is_root();
    let found = match configured {
        Some(directory) => {
            let shown = directory.display();
            let refused = |why: String| Err(NoBase::new(why, "mend it, or leave it out"));
            if !directory.is_absolute() || !directory.join("cgroup.procs").exists() {
                return refused(format!("the configured cgroup '{shown}' is no directory of cgroup v2"));
            }
            if !is_writable(directory) {
                return refused(format!("the configured cgroup '{shown}' may not be written"));
            }
            if !is_root && !place.is_some_and(|place| may_move(&place.directory, directory)) {
                let why = format!(
                    "processes may not be moved into the configured cgroup '{shown}' from where the daemon is: that \
                     takes the right to write what is around both"
                );
                return Err(NoBase::new(why, "start the daemon in there, or as root"));
            }
            (directory.to_owned(), Origin::Configured)
        }
        None => {
            let Some(Place { directory, .. }) = place else {
                let why = "no cgroup v2 is mounted here, and version 1 is not used";
                return Err(NoBase::new(
                    why,
                    "mount -t cgroup2, or boot with systemd.unified_cgroup_hierarchy=1",
                ));
            };
            if let Some(group) = job_group_around(directory) {
                let why = format!(
                    "the daemon is in the cgroup of the job that was first to need it, '{}', and may not leave it",
                    group.display()
                );
                return Err(NoBase::new(why, "nodejobs daemon restart, from outside of the job"));
            }
            let is_leaf = directory.file_name().is_some_and(|name| name == LEAF);
            let directory = if is_leaf { directory.parent().unwrap_or(directory) } else { directory };
            if !is_writable(directory) || (is_root && has_systemd() && !is_delegated(directory)) {
                let why = format!("the daemon's cgroup '{}' is not its own to divide", directory.display());
                return Err(NoBase::new(why, way_out()));
            }
            (directory.to_owned(), Origin::Own)
        }
    };
    if found.0.as_os_str().len() > MAX_PATH {
        return Err(NoBase::new(
            format!("the path of a cgroup has more than {MAX_PATH} bytes"),
            "choose a shorter one",
        ));
    }
    Ok(found)
}

fn is_writable(directory: &Path) -> bool {
    may_write(directory) && may_write(&directory.join("cgroup.procs"))
}

/// What there is at a base, and what stands in the way of the rest.
struct Found {
    enabled: Controllers,
    /// There, and not given to its groups yet.
    to_enable: Controllers,
    /// In the group itself, where none may be if its groups are to be limited.
    ours: Vec<u32>,
    strangers: usize,
    may_enable: bool,
}

impl Found {
    fn at(directory: &Path, is_ours: &dyn Fn(u32) -> bool) -> Self {
        let read = |file: &str| std::fs::read_to_string(directory.join(file)).unwrap_or_default();
        let enabled = Controllers::read(&read("cgroup.subtree_control"));
        let to_enable = Controllers::read(&read("cgroup.controllers")).without(enabled);
        // The root of all may have processes.
        let is_root = !directory.join("cgroup.type").exists();
        let inside = if is_root || to_enable.is_empty() {
            Vec::new()
        } else {
            processes_in(directory).unwrap_or_default()
        };
        let (ours, strangers): (Vec<_>, Vec<_>) = inside.into_iter().partition(|pid| is_ours(*pid));
        let may_enable = may_write(&directory.join("cgroup.subtree_control"));
        Self { enabled, to_enable, ours, strangers: strangers.len(), may_enable }
    }

    fn obstacle(&self, directory: &Path) -> Option<String> {
        let Self { to_enable, strangers, may_enable, .. } = self;
        match (to_enable.is_empty(), may_enable, strangers) {
            (true, ..) | (false, true, 0) => None,
            (_, false, _) => {
                Some(format!("'{}/cgroup.subtree_control' may not be written", directory.display()))
            }
            (.., count) => Some(format!(
                "{count} processes that are not ours are in '{}' itself, which the kernel does not allow there; they have to go into one below it",
                directory.display()
            )),
        }
    }

    /// What can be used, if all is done that can be.
    fn usable(&self, directory: &Path) -> Controllers {
        if self.obstacle(directory).is_some() {
            return self.enabled;
        }
        let Controllers { memory, cpu, pids } = self.to_enable;
        Controllers {
            memory: self.enabled.memory || memory,
            cpu: self.enabled.cpu || cpu,
            pids: self.enabled.pids || pids,
        }
    }
}

/// Looks for the base that an owner would have, without changing anything: one that is there, in process `pid`, or that this
/// process would be.
///
/// # Errors
/// [`NoBase`].
pub fn look(setting: Option<&Path>, pid: Option<u32>) -> Result<Base, NoBase> {
    let disabled = variable_of(pid, DISABLE_VARIABLE).unwrap_or_default();
    check_enabled(disabled.to_string_lossy().split(',').any(|name| name.trim() == DISABLED))?;
    let place = pid.map_or_else(Place::own, Place::of);
    let (directory, origin) = choose(configured(setting, pid).as_deref(), place.as_ref())?;
    let owner = pid.unwrap_or_else(std::process::id);
    let found = Found::at(&directory, &|pid| pid == owner || is_of(pid, owner, |mark| mark == DAEMON_MARK));
    let (controllers, obstacle) = (found.usable(&directory), found.obstacle(&directory));
    Ok(Base { directory, origin, controllers, obstacle })
}

fn check_enabled(is_disabled: bool) -> Result<(), NoBase> {
    match is_disabled {
        true => Err(NoBase::new("cgroups are switched off by NODEJOBS_DISABLE", "unset NODEJOBS_DISABLE")),
        false => Ok(()),
    }
}

/// Whether a process, or one above it, has such a mark; or is a command that speaks to the daemon, which `owner` is.
fn is_of(pid: u32, owner: u32, is_it: impl Fn(&str) -> bool) -> bool {
    let has_mark = |pid: u32| {
        let marks = marks_of(pid).unwrap_or_default();
        marks.iter().any(|mark| str::from_utf8(mark).is_ok_and(&is_it))
    };
    if has_mark(owner) && is_command_of(pid, owner) {
        return true;
    }
    // Whoever has cleared its environment is below a keeper, at the latest when its parent has ended.
    let above = |pid: &u32| Some(ProcStat::read(*pid).ok()??.parent).filter(|parent| *parent > 1);
    std::iter::successors(Some(pid), above).take(MOST_ABOVE).any(has_mark)
}

/// Whether a process is the command line of a daemon: both are of the same file, or `nodejobs` beside the daemon's.
fn is_command_of(pid: u32, daemon: u32) -> bool {
    let program = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let (Some(command), Some(daemon)) = (program(pid), program(daemon)) else { return false };
    command == daemon || command == daemon.with_file_name("nodejobs")
}

/// The base of an owner, found and prepared when it is first needed.
#[derive(Debug)]
pub(crate) struct Bases {
    setting: Option<PathBuf>,
    directory_id: String,
    /// `NODEJOBS_DISABLE` says otherwise.
    is_disabled: bool,
    prepared: Mutex<Option<Base>>,
}

impl Bases {
    pub(crate) fn new(setting: Option<PathBuf>, directory_id: &str, is_disabled: bool) -> Self {
        Self { setting, directory_id: directory_id.to_owned(), is_disabled, prepared: Mutex::new(None) }
    }

    /// What [`prepared`](Self::prepared) would give, without its effects.
    pub(crate) fn look(&self) -> Result<Base, NoBase> {
        check_enabled(self.is_disabled)?;
        let prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        prepared.clone().map_or_else(|| look(self.setting.as_deref(), None), Ok)
    }

    /// The base, with everything in force that can be. What stands in the way may go, so it is tried again each time.
    ///
    /// # Errors
    /// [`NoBase`].
    pub(crate) fn prepared(&self) -> Result<Base, NoBase> {
        check_enabled(self.is_disabled)?;
        let mut prepared = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) =
            prepared.as_ref().filter(|base| base.obstacle.is_none() && base.directory.exists())
        {
            return Ok(base.clone());
        }
        *prepared = None;
        let (directory, origin) =
            choose(configured(self.setting.as_deref(), None).as_deref(), Place::own().as_ref())?;
        let base = self.prepare(directory, origin);
        *prepared = Some(base.clone());
        Ok(base)
    }

    fn is_ours(&self, pid: u32) -> bool {
        let is_of_directory =
            |mark: &str| mark.strip_prefix(&self.directory_id).is_some_and(|rest| rest.starts_with(':'));
        let own = std::process::id();
        pid == own || is_of(pid, own, |mark| mark == DAEMON_MARK || is_of_directory(mark))
    }

    fn prepare(&self, directory: PathBuf, origin: Origin) -> Base {
        let is_ours = |pid| self.is_ours(pid);
        let mut found = Found::at(&directory, &is_ours);
        for _ in 0..ROUNDS {
            if found.ours.is_empty() || found.obstacle(&directory).is_some() {
                break;
            }
            let leaf = directory.join(LEAF);
            let _ = std::fs::create_dir(&leaf);
            for pid in &found.ours {
                // Whoever has ended meanwhile need not be moved; what else fails shows when it is looked at again.
                let _ = write(&leaf, "cgroup.procs", &pid.to_string());
            }
            found = Found::at(&directory, &is_ours);
        }
        let mut obstacle = found.obstacle(&directory);
        if obstacle.is_none() {
            for name in found.to_enable.names() {
                // One that cannot be had, such as cpu beside realtime processes, does not stand in the others' way.
                if let Err(error) = write(&directory, "cgroup.subtree_control", &format!("+{name}")) {
                    obstacle = Some(format!(
                        "controller {name} cannot be enabled in '{}': {error}",
                        directory.display()
                    ));
                }
            }
        }
        let controllers = Found::at(&directory, &is_ours).enabled;
        Base { directory, origin, controllers, obstacle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_read_and_shown() {
        let read = Controllers::read("cpuset cpu io memory hugetlb\n");
        assert_eq!(read, Controllers { memory: true, cpu: true, pids: false });
        assert_eq!(
            (read.to_string(), read.missing().to_string()),
            ("memory, cpu".to_owned(), "pids".to_owned())
        );
        assert!(Controllers::read("cpuset").is_empty());
        assert_eq!(Controllers::default().to_string(), "none");
    }

    fn found(to_enable: bool, strangers: usize, may_enable: bool) -> Found {
        let to_enable = if to_enable {
            Controllers { cpu: true, ..Controllers::default() }
        } else {
            Controllers::default()
        };
        let enabled = Controllers { memory: true, ..Controllers::default() };
        Found { enabled, to_enable, ours: vec![1], strangers, may_enable }
    }

    #[test]
    fn strangers_are_never_moved_and_keep_what_is_missing_out_of_force() {
        let at = Path::new("/x");
        assert_eq!(found(true, 0, true).usable(at).to_string(), "memory, cpu", "ours go out of the way");
        let blocked = found(true, 2, true);
        assert_eq!(blocked.usable(at).to_string(), "memory");
        assert!(blocked.obstacle(at).expect("an obstacle").starts_with("2 processes that are not ours"));
        assert!(found(true, 0, false).obstacle(at).expect("an obstacle").contains("subtree_control"));
        assert_eq!(found(false, 2, false).obstacle(at), None, "nothing is missing");
    }

    #[test]
    fn a_configured_base_that_is_none_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        for path in [Path::new("relative"), Path::new("/no/such/directory"), directory.path()] {
            let refused = choose(Some(path), None).expect_err("no cgroup");
            assert!(
                refused.why.contains(&format!("'{}' is no directory of cgroup v2", path.display())),
                "{refused:?}"
            );
        }
        let none = choose(None, None).expect_err("no cgroup");
        assert!(none.why.contains("version 1 is not used"), "{none:?}");
    }

    #[test]
    fn a_daemon_in_the_group_of_a_job_has_no_base() {
        let place = Place { directory: "/sys/fs/cgroup/nodejobs-0123456789abcdef-x.1".into() };
        let refused = choose(None, Some(&place)).expect_err("no base");
        assert!(refused.why.contains("the cgroup of the job that was first to need it"), "{refused:?}");
    }

    #[test]
    fn what_is_switched_off_is_not_looked_for() {
        let bases = Bases::new(None, "0", true);
        assert!(bases.prepared().expect_err("disabled").why.contains("NODEJOBS_DISABLE"));
        assert_eq!(bases.look(), bases.prepared());
    }
}
