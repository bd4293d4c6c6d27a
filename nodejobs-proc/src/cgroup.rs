//! Groups of processes that the kernel keeps together (cgroup v2): a directory each, for jobs whose limits are those of all
//! their processes. Version 1 is not used.
//!
//! [`base`] finds the directory in which such groups may be made, [`group`] is one of them, and [`leave`] is for daemons
//! and keepers that a job was first to need.

pub(crate) mod base;
pub(crate) mod group;
pub(crate) mod leave;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use nodejobs_core::id::AttemptId;
use rustix::fs::{Access, AtFlags, CWD, accessat};

/// Where the processes of ours are that may not be where the groups of jobs are made.
pub(crate) const LEAF: &str = "nodejobs.daemons";
const PREFIX: &str = "nodejobs-";
/// The length of the id of a data directory, in hexadecimal digits.
const DIRECTORY_ID_LEN: usize = 16;

/// The name of an attempt's group. No id contains what is put in front of `more`, which tells those apart that are left of
/// an earlier job of that id.
pub(crate) fn name_of(directory_id: &str, attempt: &AttemptId, more: u32) -> String {
    let name = format!("{PREFIX}{directory_id}-{}.{}", attempt.id, attempt.attempt);
    if more == 0 { name } else { format!("{name}~{more}") }
}

/// Whether a directory of this name is the group of a job, whoever's.
fn is_of_job(name: &OsStr) -> bool {
    let rest = name.as_bytes().strip_prefix(PREFIX.as_bytes());
    rest.and_then(|rest| rest.split_at_checked(DIRECTORY_ID_LEN))
        .is_some_and(|(id, rest)| id.iter().all(u8::is_ascii_hexdigit) && rest.starts_with(b"-"))
}

/// The group of a job in which a directory is, if it is in one; the outermost, if they are nested.
fn job_group_around(directory: &Path) -> Option<PathBuf> {
    let mut around = PathBuf::new();
    directory.components().find_map(|component| {
        around.push(component);
        matches!(component, Component::Normal(name) if is_of_job(name)).then(|| around.clone())
    })
}

/// Where a process is among the groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The directory of the process's group.
    pub(crate) directory: PathBuf,
}

impl Place {
    /// The place of this process; `None` where there is no cgroup v2, or it cannot be seen from here.
    pub(crate) fn own() -> Option<Self> {
        Self::read("self")
    }

    /// The place of another process.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::read(&pid.to_string())
    }

    fn read(pid: &str) -> Option<Self> {
        let mounts = std::fs::read("/proc/self/mountinfo").ok()?;
        let groups = std::fs::read(format!("/proc/{pid}/cgroup")).ok()?;
        Self::among(&mounts, &groups)
    }

    fn among(mounts: &[u8], groups: &[u8]) -> Option<Self> {
        let path = groups.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
        let path = Path::new(OsStr::from_bytes(path));
        // Of one that was removed the kernel says so behind its name.
        let is_seen = |path: &Path| !path.components().any(|part| part == Component::ParentDir);
        if !is_seen(path) || path.as_os_str().as_bytes().ends_with(b" (deleted)") {
            return None;
        }
        mounts.split(|byte| *byte == b'\n').find_map(|line| {
            let separator = line.windows(3).position(|window| window == b" - ")?;
            line[separator + 3..].strip_prefix(b"cgroup2 ")?;
            let mut fields = line.split(|byte| *byte == b' ').skip(3).map(unescaped);
            let (root, mount) = (PathBuf::from(fields.next()?), PathBuf::from(fields.next()?));
            let below = path.strip_prefix(&root).ok()?;
            Some(Self { directory: if below.as_os_str().is_empty() { mount } else { mount.join(below) } })
        })
    }
}

/// A field of `mountinfo`, in which blanks and the like are octal.
fn unescaped(field: &[u8]) -> OsString {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        let octal = (*first == b'\\').then(|| tail.get(..3)).flatten();
        let code = octal.and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok());
        text.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    OsString::from_vec(text)
}

/// Whether this process may write it, by its effective user.
fn may_write(path: &Path) -> bool {
    accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
}

/// Whether this process may move one from the one group into the other: it has to be allowed to write what is around both.
pub(crate) fn may_move(from: &Path, to: &Path) -> bool {
    let around = to.ancestors().find(|directory| from.starts_with(directory));
    around.is_some_and(|around| may_write(&around.join("cgroup.procs")))
}

fn write(directory: &Path, file: &str, value: &str) -> io::Result<()> {
    // Not created if it is not there: a controller that is not in force has no files.
    std::fs::OpenOptions::new()
        .write(true)
        .open(directory.join(file))
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
}

/// The processes in a group itself, those below it not included.
fn processes_in(directory: &Path) -> io::Result<Vec<u32>> {
    let list = std::fs::read_to_string(directory.join("cgroup.procs"))?;
    // Those of another pid namespace have number 0 here.
    Ok(list.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect())
}

/// The groups in a group.
fn groups_in(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory)?.flatten();
    Ok(entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodejobs_core::JobId;

    fn place(mounts: &str, groups: &str) -> Option<String> {
        Place::among(mounts.as_bytes(), groups.as_bytes()).map(|place| place.directory.display().to_string())
    }

    #[test]
    fn a_process_is_found_where_the_hierarchy_is_mounted() {
        let v1 = "33 31 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n";
        let v2 = "41 31 0:38 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let expected = Some("/sys/fs/cgroup/a/b c".to_owned());
        assert_eq!(place(&format!("{v1}{v2}"), "4:memory:/x\n0::/a/b c\n"), expected);
        assert_eq!(place(v2, "0::/\n").as_deref(), Some("/sys/fs/cgroup"));
        assert_eq!(place(v1, "4:memory:/x\n0::/a\n"), None, "not mounted");
        assert_eq!(place(v2, "4:memory:/x\n"), None, "version 1 alone");
        assert_eq!(place(v2, "0::/../x\n"), None, "outside of the namespace");
        assert_eq!(place(v2, "0::/x (deleted)\n"), None);
    }

    #[test]
    fn a_part_that_is_mounted_somewhere_shows_what_is_in_it() {
        let mounts = "41 31 0:38 /docker/abc /a\\040b rw - cgroup2 cgroup rw\n";
        assert_eq!(place(mounts, "0::/docker/abc/job\n").as_deref(), Some("/a b/job"));
        assert_eq!(place(mounts, "0::/docker/other\n"), None);
        for garbage in ["", "\n", "- cgroup2 ", "1 2 3 - cgroup2 x", "a b c d \\9 - cgroup2 x"] {
            let _ = place(garbage, "0::/\n");
        }
    }

    #[test]
    fn groups_of_jobs_are_known_by_their_names() {
        let attempt =
            AttemptId { id: JobId::new(&"x".repeat(JobId::MAX_LEN)).expect("valid"), attempt: u32::MAX };
        let name = name_of("0123456789abcdef", &attempt, u32::MAX);
        assert!(name.len() <= 255 && is_of_job(name.as_ref()), "{name}");
        for other in
            [LEAF, "nodejobs-daemon.service", "nodejobs-0123456789abcdef", "nodejobs-0123456789abcdeg-x.1"]
        {
            assert!(!is_of_job(other.as_ref()), "{other}");
        }
        let around = |path: &str| job_group_around(Path::new(path)).map(|path| path.display().to_string());
        let job = "/sys/a/nodejobs-0123456789abcdef-x.1";
        assert_eq!(around(&format!("{job}/below/nodejobs-0123456789abcdef-y.1")).as_deref(), Some(job));
        assert_eq!(around("/sys/a"), None);
    }
}
