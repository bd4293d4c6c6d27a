//! The machine: what tells processes apart here, how much of them there may be, and what outlives a logout.

use std::path::{Path, PathBuf};

use nodejobs_proc::KeeperProgram;
use nodejobs_proc::look::KernelFeatures;
use nodejobs_proc::machine::Machine;
use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::daemon::in_scope_of_its_own;

/// With fewer open files than this, an owner of many jobs runs short.
const FEW_FILES: u64 = 4096;
/// With fewer processes than this, jobs soon cannot be started.
const FEW_PROCESSES: u64 = 1024;

/// `daemon` is the process of a daemon that answers.
pub(super) fn look(daemon: Option<u32>) -> Vec<Finding> {
    let mut findings = identity();
    findings.extend([trees(), open_files(), processes(), inotify()]);
    findings.push(logout(&Surroundings::read(daemon)));
    findings.push(keeper_program());
    findings
}

fn identity() -> Vec<Finding> {
    const CHECK: &str = "identity";
    let machine = match Machine::read() {
        Ok(machine) => machine,
        Err(error) => {
            return vec![Finding::problem(
                CHECK,
                format!("this machine cannot be told from others: {error}"),
                "mount /proc",
            )];
        }
    };
    let machine_id = match &machine.machine_id {
        Some(id) => Finding::ok("machine id", id),
        None => Finding::weaker(
            "machine id",
            "/etc/machine-id is missing: a directory that was copied to another machine is not recognised",
            "systemd-machine-id-setup, or dbus-uuidgen --ensure=/etc/machine-id",
        ),
    };
    // The first namespace has a number of its own since there are namespaces.
    let namespace = match machine.pid_namespace {
        0xEFFF_FFFC => "the machine's own pid namespace".to_owned(),
        number => format!("pid namespace {number} (a container's)"),
    };
    let boot = Finding::ok(CHECK, format!("boot {}, {namespace}", machine.boot_id));
    let features = KernelFeatures::of(&machine);
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let kernel = if !features.pidfds {
        let text =
            format!("Linux {release} has no descriptors of processes, without which none is signalled");
        Finding::problem("kernel", text, "Linux 5.3 or later")
    } else {
        let missing: Vec<&str> = [
            (features.pidfs, "no process numbers that are never used twice (6.14): start times tell processes apart"),
            (features.exit_statuses, "no exit statuses of strangers' children (6.15): a job whose keeper is killed whole may be lost"),
        ]
        .into_iter()
        .filter_map(|(there, words)| (!there).then_some(words))
        .collect();
        match missing.as_slice() {
            [] => Finding::ok(
                "kernel",
                format!("Linux {release}: pidfds, pidfs, exit statuses by PIDFD_GET_INFO"),
            ),
            missing => {
                let text = format!("Linux {release}: {}", missing.join("; "));
                Finding::weaker("kernel", text, "a newer kernel, and no NODEJOBS_DISABLE")
            }
        }
    };
    vec![machine_id, boot, kernel]
}

/// By what the processes of a job are found.
fn trees() -> Finding {
    const CHECK: &str = "trees";
    if nodejobs_proc::look::has_traces() {
        return Finding::ok(
            CHECK,
            "found by descent, session, mark and trace, and by their cgroup if they have one",
        );
    }
    let text = "found by descent, session and mark: the limit of resident memory is in use, so who leaves its session, \
                clears its environment and loses its parent is not found";
    Finding::weaker(CHECK, text, "ulimit -Hm unlimited, before the daemon is started")
}

fn open_files() -> Finding {
    const CHECK: &str = "open files";
    let limit = getrlimit(Resource::Nofile);
    let text = format!(
        "soft {}, hard {}; an owner takes all it may, jobs get the soft one",
        shown(limit.current),
        shown(limit.maximum)
    );
    match limit.maximum {
        Some(most) if most < FEW_FILES => {
            let text = format!("{text}: an owner needs one for each job that it watches itself");
            Finding::weaker(CHECK, text, "raise the hard limit: ulimit -Hn, limits.conf or LimitNOFILE=")
        }
        _ => Finding::ok(CHECK, text),
    }
}

fn processes() -> Finding {
    const CHECK: &str = "processes";
    let limit = getrlimit(Resource::Nproc);
    let most = number("/proc/sys/kernel/pid_max");
    let text =
        format!("soft {}, hard {}, pid_max {}", shown(limit.current), shown(limit.maximum), shown(most));
    match limit.current {
        // Root may have as many as it likes.
        Some(soft) if soft < FEW_PROCESSES && !rustix::process::geteuid().is_root() => {
            let text =
                format!("{text}: all processes of the user count, and jobs wait when there is no room");
            Finding::weaker(CHECK, text, "raise it: ulimit -u, limits.conf or TasksMax=")
        }
        _ => Finding::ok(CHECK, text),
    }
}

fn inotify() -> Finding {
    const CHECK: &str = "inotify";
    let [instances, watches] =
        ["instances", "watches"].map(|name| number(&format!("/proc/sys/fs/inotify/max_user_{name}")));
    let text = format!("{} instances, {} watches a user", shown(instances), shown(watches));
    match (instances, watches) {
        (Some(0..32), _) | (_, Some(0..1024)) => {
            let text = format!("{text}: keepers and followers need some");
            Finding::weaker(
                CHECK,
                text,
                "sysctl fs.inotify.max_user_instances=128 fs.inotify.max_user_watches=8192",
            )
        }
        _ => Finding::ok(CHECK, text),
    }
}

fn number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn shown(limit: Option<u64>) -> String {
    limit.map_or_else(|| "unlimited".to_owned(), |limit| limit.to_string())
}

/// What decides about a logout.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Surroundings {
    has_systemd: bool,
    /// Whether the daemon is in the scope of a login session, which ends with it, or would be if it was started from here.
    in_session: bool,
    kills_user_processes: bool,
    lingers: bool,
}

impl Surroundings {
    fn read(daemon: Option<u32>) -> Self {
        let uid = rustix::process::geteuid();
        let (process, has_scope) = match daemon {
            Some(pid) => (pid, false),
            None => (std::process::id(), in_scope_of_its_own(Path::new("nodejobs")).is_some()),
        };
        let cgroup = std::fs::read_to_string(format!("/proc/{process}/cgroup")).unwrap_or_default();
        let drop_ins = ["/usr/lib", "/run", "/etc"].map(|place| format!("{place}/systemd/logind.conf.d"));
        let mut settings: Vec<PathBuf> =
            vec!["/usr/lib/systemd/logind.conf".into(), "/etc/systemd/logind.conf".into()];
        for directory in drop_ins {
            let mut files: Vec<PathBuf> = std::fs::read_dir(directory)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .collect();
            files.sort();
            settings.extend(files);
        }
        let texts: Vec<String> =
            settings.iter().filter_map(|path| std::fs::read_to_string(path).ok()).collect();
        let user = std::env::var("USER").unwrap_or_default();
        let lingers = !user.is_empty()
            && !user.contains('/')
            && Path::new("/var/lib/systemd/linger").join(user).exists();
        Self {
            has_systemd: Path::new("/run/systemd/system").exists(),
            in_session: !has_scope && cgroup.contains("/session-") && cgroup.contains(".scope"),
            kills_user_processes: kills_user_processes(&texts) && !uid.is_root(),
            lingers,
        }
    }
}

/// What the last of these files that says something says. Without a word it is no, unless a distribution has changed it.
fn kills_user_processes(settings: &[String]) -> bool {
    let mut values = settings.iter().flat_map(|text| text.lines()).rev().filter_map(|line| {
        let (name, value) = line.trim().split_once('=')?;
        (name.trim() == "KillUserProcesses").then(|| value.trim())
    });
    values.next().is_some_and(|value| ["yes", "true", "on", "1"].contains(&value))
}

fn logout(around: &Surroundings) -> Finding {
    const CHECK: &str = "logout";
    match around {
        Surroundings { has_systemd: false, .. } => {
            Finding::ok(CHECK, "no systemd here: a logout ends no job")
        }
        Surroundings { in_session: true, kills_user_processes: true, .. } => Finding::weaker(
            CHECK,
            "systemd ends everything of this session with it (KillUserProcesses=yes), keepers and jobs included",
            "loginctl enable-linger, and start the first job with `systemd-run --user --scope nodejobs …`",
        ),
        Surroundings { in_session: false, lingers: false, kills_user_processes: true, .. } => {
            Finding::weaker(
                CHECK,
                "systemd ends everything of this user with the last session (KillUserProcesses=yes)",
                "loginctl enable-linger",
            )
        }
        Surroundings { in_session, lingers, .. } => {
            let place = if *in_session { "a login session" } else { "no login session" };
            let linger = if *lingers { ", the user lingers" } else { "" };
            Finding::ok(CHECK, format!("systemd, {place}{linger}; a logout ends no job"))
        }
    }
}

fn keeper_program() -> Finding {
    const CHECK: &str = "keeper program";
    match KeeperProgram::find() {
        Ok(KeeperProgram::Path(path)) => Finding::ok(CHECK, path.display().to_string()),
        Ok(KeeperProgram::ThisExecutable) => Finding::weaker(
            CHECK,
            "nodejobs-keeper is not beside this program, which keeps the jobs itself and takes more memory for it",
            "install nodejobs-keeper in the same directory",
        ),
        Err(error) => {
            Finding::problem(CHECK, error.to_string(), "install nodejobs-keeper beside this program")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_logout_is_dangerous_only_where_systemd_kills() {
        let level = |has_systemd, in_session, kills_user_processes, lingers| {
            logout(&Surroundings { has_systemd, in_session, kills_user_processes, lingers }).level
        };
        assert_eq!(level(true, true, true, false), Level::Weaker);
        assert_eq!(
            level(true, true, true, true),
            Level::Weaker,
            "lingering keeps the user's manager, not the session"
        );
        assert_eq!(level(true, false, true, false), Level::Weaker);
        assert_eq!(level(true, false, true, true), Level::Ok);
        assert_eq!(level(true, true, false, false), Level::Ok);
        assert_eq!(level(false, true, true, false), Level::Ok);
    }

    #[test]
    fn the_last_word_of_logind_counts() {
        let says = |texts: &[&str]| {
            kills_user_processes(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
        };
        assert!(!says(&[]) && !says(&["#KillUserProcesses=yes\n"]));
        assert!(says(&["[Login]\nKillUserProcesses = yes\n"]));
        assert!(!says(&["KillUserProcesses=yes\n", "KillUserProcesses=no\n"]));
    }
}
