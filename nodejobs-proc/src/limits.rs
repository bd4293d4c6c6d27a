//! Which limits can be enforced on this machine, and what is said of those that could not be set.

use std::io;

use nodejobs_core::spec::{Limits, OpenFiles};
use rustix::process::{Resource, getrlimit};

use crate::cgroup::base::{Base, Controllers, NoBase};
use crate::journal::Stage;

/// Whether they can be enforced, as far as this process can know. The keeper has the same rights.
///
/// # Errors
/// Which one cannot, why, and the way out.
pub(crate) fn check(limits: &Limits) -> Result<(), String> {
    let is_root = rustix::process::geteuid().is_root();
    if let Some(files) = limits.open_files {
        check_open_files(files, most_open_files(), getrlimit(Resource::Nofile).maximum, is_root)?;
    }
    if let Some(nice) = limits.nice.filter(|_| !is_root) {
        let own = rustix::process::getpriority_process(None).unwrap_or(0);
        let allowed = getrlimit(Resource::Nice).current.unwrap_or(40);
        check_nice(nice, own, allowed)?;
    }
    if let Some(user) = limits.user.as_ref().filter(|_| !is_root) {
        let message = "only root may run jobs as somebody else, and the daemon is not root's";
        return Err(format!("it cannot run as user '{user}': {message}; leave out the user"));
    }
    Ok(())
}

/// Whether the limits that only a cgroup can keep can be kept in those of this base. Memory can be looked after otherwise.
///
/// # Errors
/// Which one cannot, why, and the way out.
pub(crate) fn check_group_limits(limits: &Limits, base: Result<&Base, &NoBase>) -> Result<(), String> {
    let in_force = base.map_or_else(|_| Controllers::default(), |base| base.controllers);
    let (what, controller, instead) = if limits.cpu_milli.is_some() && !in_force.cpu {
        ("processor time", "cpu", "leave out the limit, or give the job a nice value")
    } else if limits.pids.is_some() && !in_force.pids {
        ("the number of processes", "pids", "leave out the limit")
    } else {
        return Ok(());
    };
    let why = match base {
        Err(NoBase { why, .. }) => why.clone(),
        Ok(Base { directory, obstacle, .. }) => {
            let missing = format!("it is not in force in '{}'", directory.display());
            obstacle
                .as_ref()
                .map_or_else(|| missing.clone(), |obstacle| format!("{missing}, because {obstacle}"))
        }
    };
    Err(format!(
        "{what} cannot be limited here: that takes the {controller} controller of cgroup v2, and {why}; {instead}, or see \
         `nodejobs doctor`"
    ))
}

/// A size for people: `50.0 MiB`.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{}.{} MiB", bytes >> 20, ((bytes % (1 << 20)) * 10) >> 20)
}

/// No process may have more open files, whoever asks for them.
fn most_open_files() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/fs/nr_open").unwrap_or_default();
    text.trim().parse().unwrap_or(u64::MAX)
}

fn check_open_files(
    OpenFiles { soft, hard }: OpenFiles,
    most: u64,
    own_hard: Option<u64>,
    is_root: bool,
) -> Result<(), String> {
    let wanted = hard.unwrap_or(soft);
    if wanted > most {
        return Err(format!(
            "{wanted} open files are more than the {most} that this machine allows (fs.nr_open)"
        ));
    }
    match own_hard.filter(|own| wanted > *own && !is_root) {
        Some(own) => Err(format!(
            "{wanted} open files are more than the hard limit of {own}, which only root may raise; give at most {own}"
        )),
        None => Ok(()),
    }
}

/// `allowed` is the soft limit `RLIMIT_NICE`: 20 minus the lowest nice value that may be taken.
fn check_nice(nice: i32, own: i32, allowed: u64) -> Result<(), String> {
    let lowest = own.min(20 - i32::try_from(allowed).unwrap_or(40).min(40));
    if nice >= lowest {
        return Ok(());
    }
    Err(format!(
        "only root may go below nice value {lowest} here, and {nice} was asked for; give at least {lowest}"
    ))
}

/// What could not be set in the child.
pub(crate) fn failure(stage: Stage, limits: Option<&Limits>, error: &io::Error) -> String {
    let wanted = |value: Option<String>| value.map_or_else(String::new, |value| format!(" {value}"));
    let what = match stage {
        Stage::OpenFiles => {
            let files = wanted(limits.and_then(|limits| limits.open_files).map(|files| files.to_string()));
            format!("cannot set the limit of open files{files}")
        }
        Stage::Nice => {
            let nice = wanted(limits.and_then(|limits| limits.nice).map(|nice| nice.to_string()));
            format!("cannot take nice value{nice}")
        }
        _ => {
            let user = limits.and_then(|limits| limits.user.as_ref()).map(|user| format!("'{user}'"));
            format!("cannot become user{}", wanted(user))
        }
    };
    format!("{what}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::base::Origin;

    #[test]
    fn more_open_files_than_there_may_be_are_refused() {
        let files = |soft, hard| OpenFiles { soft, hard };
        assert_eq!(check_open_files(files(100, None), 1000, Some(100), false), Ok(()));
        assert_eq!(check_open_files(files(100, Some(1000)), 1000, None, false), Ok(()));
        assert_eq!(check_open_files(files(100, Some(1000)), 1000, Some(50), true), Ok(()));
        let refused = |files, is_root| check_open_files(files, 1000, Some(50), is_root).expect_err("refused");
        assert!(refused(files(51, None), false).contains("hard limit of 50"));
        assert!(refused(files(20, Some(51)), false).contains("51 open files"));
        assert!(refused(files(1001, None), true).contains("fs.nr_open"));
    }

    #[test]
    fn going_first_takes_the_right_to() {
        assert_eq!(check_nice(5, 0, 0), Ok(()));
        assert_eq!(check_nice(0, 0, 0), Ok(()));
        assert_eq!(check_nice(-5, 0, 25), Ok(()), "a limit of 25 allows -5");
        assert_eq!(check_nice(-20, 0, u64::MAX), Ok(()));
        assert!(check_nice(-1, 0, 0).expect_err("refused").contains("nice value 0 here, and -1"));
        assert!(check_nice(0, 5, 0).expect_err("refused").contains("at least 5"));
    }

    #[test]
    fn what_only_a_cgroup_can_keep_is_refused_by_name_without_one() {
        let wanted = |cpu_milli, pids| Limits { cpu_milli, pids, memory: Some(1 << 30), ..Limits::default() };
        let none = NoBase { why: "none is mounted".to_owned(), way_out: String::new() };
        let refused = |limits: &Limits, base| check_group_limits(limits, base).expect_err("refused");
        assert!(
            refused(&wanted(Some(500), None), Err(&none))
                .starts_with("processor time cannot be limited here")
        );
        let pids = refused(&wanted(None, Some(9)), Err(&none));
        assert!(pids.contains("the number of processes") && pids.contains("none is mounted"), "{pids}");
        assert_eq!(
            check_group_limits(&wanted(None, None), Err(&none)),
            Ok(()),
            "memory is looked after otherwise"
        );
        let controllers = Controllers { cpu: true, ..Controllers::default() };
        let obstacle = Some("somebody is in the way".to_owned());
        let base = Base { directory: "/x".into(), origin: Origin::Own, controllers, obstacle };
        assert_eq!(check_group_limits(&wanted(Some(500), None), Ok(&base)), Ok(()));
        let pids = refused(&wanted(Some(500), Some(9)), Ok(&base));
        assert!(pids.contains("not in force in '/x', because somebody is in the way"), "{pids}");
    }

    #[test]
    fn what_could_not_be_set_is_named() {
        let limits = Limits { nice: Some(-5), user: Some("bob".to_owned()), ..Limits::default() };
        let error = io::Error::from_raw_os_error(libc::EPERM);
        let words = |stage| failure(stage, Some(&limits), &error);
        assert!(words(Stage::Nice).starts_with("cannot take nice value -5: "), "{}", words(Stage::Nice));
        assert!(words(Stage::User).starts_with("cannot become user 'bob': "), "{}", words(Stage::User));
        assert!(failure(Stage::OpenFiles, None, &error).starts_with("cannot set the limit of open files: "));
    }
}
