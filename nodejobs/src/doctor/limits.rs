//! Which limits on jobs can be kept here, by whom, and what to do for those that cannot.

use std::path::Path;

use nodejobs_proc::{Base, Controllers, NoBase, Origin};

use super::Finding;
use super::owner::Running;
use crate::config::Config;
use crate::daemon::in_scope_of_its_own;

const CHECK: &str = "limits";
/// Kept wherever there are processes.
const ALWAYS: &str = "open files, nice values and users by the kernel";

pub(super) fn look(data_dir: &Path, running: &Running) -> Vec<Finding> {
    // A mistake in the file is told by the look at it.
    let setting = Config::load(data_dir).unwrap_or_default().cgroup;
    let daemon = match running {
        Running::Daemon(status) => Some(status),
        Running::Nobody | Running::Silent => None,
    };
    let base = nodejobs_proc::look_for_base(setting.as_deref(), daemon.map(|status| status.pid));
    let asks = matches!(running, Running::Nobody) && in_scope_of_its_own(Path::new("nodejobs")).is_some();
    let mut findings = vec![if asks { in_scope() } else { limits(base.as_ref(), has_version_1()) }];
    if let Some(status) = daemon {
        let keepers = status.keepers.iter().flat_map(|keeper| [keeper.pid, keeper.worker_pid]).flatten();
        let inside = [status.pid].into_iter().chain(keepers);
        findings.extend(inside.filter_map(|pid| Some(stuck(pid, &nodejobs_proc::job_group_of(pid)?))));
    }
    findings
}

/// What nobody has yet.
fn in_scope() -> Finding {
    let text = format!(
        "a daemon that a command starts from here asks the user's systemd for a scope of its own, where memory, processor \
         time and processes are limited by the kernel as far as systemd has the controllers; {ALWAYS}"
    );
    Finding::ok(CHECK, text)
}

fn limits(base: Result<&Base, &NoBase>, has_version_1: bool) -> Finding {
    let (base, why, way_out) = match base {
        Ok(base) => {
            let missing = base.controllers.missing();
            let from = match base.origin {
                Origin::Configured => "named by NODEJOBS_CGROUP or config.toml",
                Origin::Own => "the daemon's own",
            };
            let place = format!("cgroups of jobs are made in '{}' ({from})", base.directory.display());
            if missing.is_empty() {
                let text = format!("memory, processor time and processes by the kernel: {place}; {ALWAYS}");
                return Finding::ok(CHECK, text);
            }
            let why = base.obstacle.clone().unwrap_or_else(|| {
                let version_1 = if has_version_1 { "; those of version 1 are not used" } else { "" };
                format!("the kernel gives no more there{version_1}")
            });
            let way_out = match (&base.obstacle, has_version_1) {
                (None, true) => {
                    "boot with cgroup_no_v1=all, or systemd.unified_cgroup_hierarchy=1".to_owned()
                }
                _ => nodejobs_proc::base_way_out(),
            };
            (Some(base), format!("{place}, without the controllers {missing}, since {why}"), way_out)
        }
        Err(NoBase { why, way_out }) => (None, format!("jobs get no cgroups: {why}"), way_out.clone()),
    };
    let in_force = base.map_or_else(Controllers::default, |base| base.controllers);
    let memory = if in_force.memory { "memory by the kernel" } else { "memory by sampling" };
    let kept =
        |there, what| format!("{what} {}", if there { "by the kernel" } else { "not at all (refused)" });
    let (cpu, pids) = (kept(in_force.cpu, "processor time"), kept(in_force.pids, "the number of processes"));
    Finding::weaker(CHECK, format!("{memory}, {cpu}, {pids}; {ALWAYS}. {why}"), way_out)
}

/// A daemon or keeper that a job was first to need, and that could not leave its cgroup.
fn stuck(pid: u32, group: &Path) -> Finding {
    let text = format!(
        "process {pid} is in the cgroup of the job that was first to need it, '{}': the limits of that job are its own as well",
        group.display()
    );
    Finding::weaker("cgroup", text, "nodejobs daemon restart, from outside of that job")
}

fn has_version_1() -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let is_version_1 = |line: &str| {
        let mut fields = line.split(' ').skip(2);
        fields.next() == Some("cgroup")
            && fields.next().is_some_and(|options| {
                options.split(',').any(|option| ["memory", "cpu", "pids"].contains(&option))
            })
    };
    mounts.lines().any(is_version_1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    fn base(controllers: Controllers, obstacle: Option<&str>) -> Base {
        let obstacle = obstacle.map(str::to_owned);
        Base { directory: "/x".into(), origin: Origin::Own, controllers, obstacle }
    }

    #[test]
    fn what_is_in_force_is_said_and_what_is_missing_has_a_way_out() {
        let all = Controllers { memory: true, cpu: true, pids: true };
        let whole = limits(Ok(&base(all, None)), false);
        assert_eq!(
            (whole.level, whole.text.contains("made in '/x' (the daemon's own)")),
            (Level::Ok, true),
            "{whole:?}"
        );
        let no_cpu =
            limits(Ok(&base(Controllers { cpu: false, ..all }, Some("somebody is in the way"))), false);
        assert_eq!(no_cpu.level, Level::Weaker);
        for said in [
            "memory by the kernel",
            "processor time not at all",
            "controllers cpu, since somebody is in the way",
        ] {
            assert!(no_cpu.text.contains(said), "{said}: {no_cpu:?}");
        }
        let version_1 = limits(Ok(&base(Controllers::default(), None)), true);
        assert!(
            version_1.text.contains("memory by sampling")
                && version_1.text.contains("of version 1 are not used")
        );
        assert!(version_1.way_out.expect("one").contains("cgroup_no_v1"));
        let none = NoBase { why: "none is mounted".to_owned(), way_out: "mount one".to_owned() };
        let none = limits(Err(&none), false);
        assert!(none.text.contains("no cgroups: none is mounted"), "{none:?}");
        assert_eq!(none.way_out.as_deref(), Some("mount one"));
    }
}
