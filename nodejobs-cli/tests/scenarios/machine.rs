//! Limits that the kernel keeps: a cgroup for each job with one. What takes all controllers of version 2 is ignored here, and
//! run in a machine of its own by `cargo xtask machine`.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use serde_json::Value;

use crate::support::{Cue, Home, eventually, is_alive, kill, lines, millis, pid_of, said, text};

/// Where version 2 is mounted, if jobs get groups there.
fn base() -> Option<PathBuf> {
    static BASE: OnceLock<Option<PathBuf>> = OnceLock::new();
    BASE.get_or_init(find_base).clone()
}

fn find_base() -> Option<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mount = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let path = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    let mount = mount.filter(|_| rustix::process::geteuid().is_root());
    let home = Home::new();
    let job = home.nodejobs(["run", "--wait", "--memory", "100M", "--", "cat", "/proc/self/cgroup"]);
    let has_group =
        mount.is_some() && home.stdout(&id_of(&job.text())).windows(9).any(|part| part == b"nodejobs-");
    mount.filter(|_| has_group)
}

fn id_of(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// The directory of the group in which a process is.
fn group_of(pid: u32) -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("cgroup v2");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("a process");
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/")).expect("in version 2").to_owned();
    Path::new(mount.split(' ').nth(1).expect("a path")).join(own)
}

fn group_of_job(home: &Home, id: &str) -> PathBuf {
    let group = group_of(pid_of(&home.running(id)["last_pid"]));
    let name = group.file_name().expect("not the root").to_string_lossy().into_owned();
    assert!(name.starts_with("nodejobs-") && name.ends_with(&format!("-{id}.1")), "{name}");
    group
}

/// The group of an ended job goes once its outcome is in the store, which is a moment later.
fn is_removed(group: &Path) {
    eventually(&format!("{} is removed", group.display()), || (!group.exists()).then_some(()));
}

fn links(home: &Home) -> Vec<String> {
    let entries = std::fs::read_dir(home.data_dir().join("keepers")).expect("keepers").flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".cgroup")).collect()
}

/// A script of processes that have left everything by which descendants are known: session, environment, parent, and the
/// limit that is the trace. Each writes its number to the file.
fn escape(file: &str) -> String {
    let last = format!("echo $$ >> {file}; exec sleep 1000");
    format!("ulimit -m 1000000; setsid env -i L='{last}' /bin/sh -c 'env -i /bin/sh -c \"$L\" & exec true' &")
}

#[test]
fn who_has_left_everything_else_is_found_by_the_cgroup_and_ended() {
    if base().is_none() {
        return;
    }
    for force in [false, true] {
        let home = Home::new();
        let file = home.path().join("escaped").display().to_string();
        let script = format!("{}{} exec sleep 1000", escape(&file), escape(&file));
        let said = home.nodejobs(["run", "--memory", "500M", "--shell", "--", &script]);
        let id = id_of(&said.text());
        let group = group_of_job(&home, &id);
        let escaped = eventually("two have escaped", || {
            let pids: Vec<u32> =
                lines(Path::new(&file)).iter().map(|line| line.parse().expect("a number")).collect();
            (pids.len() == 2).then_some(pids)
        });
        assert!(escaped.iter().all(|pid| is_alive(*pid) && group_of(*pid) == group), "{escaped:?}");
        if force {
            home.ok(["stop", "--force", &id]);
        } else {
            home.ok(["stop", &id]);
        }
        assert!(!escaped.iter().any(|pid| is_alive(*pid)), "{escaped:?}");
        let record = home.record(&id);
        assert!(escaped.iter().all(|pid| text(&record, "detail").contains(&format!("{pid} ("))), "{record}");
        is_removed(&group);
        assert_eq!(links(&home), [""; 0]);
    }
}

#[test]
fn a_plain_job_has_no_cgroup() {
    if base().is_none() {
        return;
    }
    let home = Home::new();
    let id = home.ok(["run", "--nice", "3", "--", "sleep", "1000"]);
    let pid = pid_of(&home.running(&id)["last_pid"]);
    assert_eq!(group_of(pid), group_of(home.keeper().1), "it is where its keeper is");
    assert_eq!(links(&home), [""; 0]);
}

#[test]
fn the_next_owner_knows_the_cgroups_and_removes_what_nobody_needs() {
    if base().is_none() {
        return;
    }
    let home = Home::new();
    let id = id_of(&home.nodejobs(["run", "--memory", "500M", "--", "sleep", "1000"]).text());
    let group = group_of_job(&home, &id);
    let keep = ["run", "--memory", "500M", "--keep-children", "--shell", "--", "sleep 1000 & echo $!"];
    let kept = id_of(&home.nodejobs(keep).text());
    home.ended(&kept);
    let child: u32 =
        String::from_utf8(home.stdout(&kept)).expect("a number").trim().parse().expect("a number");
    let group_of_kept = group_of(child);
    kill(home.daemon_pid());
    // Of an owner that was killed before it made the group.
    let link = home.data_dir().join("keepers/nobody.1.cgroup");
    std::os::unix::fs::symlink(group.with_file_name("nodejobs-0000000000000000-nobody.1"), &link)
        .expect("a link");
    assert_eq!(text(&home.record(&id), "status"), "running");
    eventually("what nobody needs is gone", || std::fs::symlink_metadata(&link).is_err().then_some(()));
    assert!(is_alive(child) && group_of_kept.exists(), "children that were kept keep their group");
    home.ok(["stop", &id]);
    is_removed(&group);
    // An earlier job of that id has somebody in its group, who is not the next one's.
    home.ok(["rm", &kept]);
    let again = home.nodejobs(["run", "--id", &kept, "--memory", "500M", "--", "sleep", "1000"]);
    assert_eq!(again.code, 0, "{again:?}");
    let other = group_of(pid_of(&home.running(&kept)["last_pid"]));
    assert!(other != group_of_kept && other.exists(), "{}", other.display());
    home.ok(["stop", "--force", &kept]);
    assert!(is_alive(child), "it was not asked to end");
    is_removed(&other);
    kill(child);
    home.ok(["daemon", "stop"]);
    home.ok(["daemon", "start"]);
    is_removed(&group_of_kept);
    assert_eq!(links(&home), [""; 0]);
}

#[test]
fn a_daemon_that_a_limited_job_was_first_to_need_leaves_its_cgroup() {
    let Some(mount) = base() else { return };
    let (outer, inner) = (Home::new(), Home::new());
    let script = format!(
        "{} --data-dir {} run --id inner -- sleep 1000; exec sleep 1000",
        crate::support::NODEJOBS,
        inner.data_dir().display()
    );
    let id = id_of(&outer.nodejobs(["run", "--memory", "900M", "--shell", "--", &script]).text());
    let group = group_of_job(&outer, &id);
    eventually("the inner job runs", || {
        (inner.nodejobs(["daemon", "status"]).code == 0 && inner.nodejobs(["status", "inner"]).code == 0)
            .then_some(())
    });
    let job = pid_of(&inner.running("inner")["last_pid"]);
    let (guard, worker) = inner.keeper();
    for pid in [inner.daemon_pid(), guard, worker, job] {
        assert_eq!(group_of(pid), mount.join("nodejobs.daemons"), "{pid}");
    }
    outer.ok(["stop", "--force", &id]);
    is_removed(&group);
    assert!([inner.daemon_pid(), guard, worker, job].into_iter().all(is_alive));
    drop(inner);
    std::fs::remove_dir(mount.join("nodejobs.daemons")).expect("nobody is left in it");
}

#[test]
fn a_cgroup_that_cannot_be_entered_is_named() {
    if base().is_none() {
        return;
    }
    let home = Home::new();
    home.ok(["daemon", "start"]);
    // The keeper that is there goes on when the directory of its daemon's groups has gone.
    let wrong = home.path().join("no-cgroup");
    std::fs::create_dir(&wrong).expect("a directory");
    std::fs::write(
        home.data_dir().join("config.toml"),
        format!("[limits]\ncgroup = \"{}\"\n", wrong.display()),
    )
    .expect("written");
    home.ok(["daemon", "restart"]);
    let said = home.nodejobs(["run", "--cpu", "1", "--", "true"]);
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("'") && said.stderr.contains("is no directory of cgroup v2"), "{said:?}");
    let said = home.nodejobs(["run", "--memory", "100M", "--wait", "--", "true"]);
    assert!(said.code == 0 && said.stderr.contains("kept by looking at the processes"), "{said:?}");
}

const IGNORED: &str = "takes all controllers of cgroup v2: cargo xtask machine";

/// What there has to be in a machine of its own; not a test, so that none passes without it.
fn controllers() -> PathBuf {
    let mount = base().expect(IGNORED);
    let there = std::fs::read_to_string(mount.join("cgroup.controllers")).expect("controllers");
    for controller in ["memory", "cpu", "pids"] {
        assert!(there.split_whitespace().any(|word| word == controller), "{IGNORED}: {there}");
    }
    mount
}

fn number(record: &Value, name: &str) -> f64 {
    record[name].as_f64().unwrap_or_else(|| panic!("no {name}: {record}"))
}

#[test]
#[ignore = "takes all controllers of cgroup v2: cargo xtask machine"]
fn who_wants_more_memory_than_it_may_is_killed_by_the_kernel_with_all_its_processes() {
    controllers();
    let home = Home::new();
    assert_eq!(home.nodejobs(["-o", "json", "daemon", "start"]).json()["memory_limits"], "kernel");
    let script = format!("{} (head -c 400M /dev/zero | tail -n 1) & exec sleep 1000", escape("escaped"));
    let said = home.nodejobs(["run", "--memory", "50M", "--shell", "--", &script]);
    assert_eq!((said.code, said.stderr.as_str()), (0, ""));
    let record = home.ended(&said.text());
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("failed", "memory"), "{record}");
    assert_eq!(record["signal"], 9, "{record}");
    assert!(
        text(&record, "detail").contains("more than the 50.0 MiB that they may have: the kernel"),
        "{record}"
    );
    let peak = number(&record, "peak_memory_mb");
    assert!((45.0..=50.0).contains(&peak), "{record}");
    let escaped = lines(&home.path().join("escaped"));
    assert!(escaped.len() == 1 && !is_alive(escaped[0].parse().expect("a number")), "{escaped:?}");
    assert_eq!(home.job_processes(), []);
    println!("machine: --memory 50M: killed at {peak} MiB after {} ms", record["runtime_ms"]);
    // Whoever stays below goes on, and its peak is that of the whole tree.
    let hold = "head -c 25M /dev/zero | tail -n 1 | wc -c";
    let script = format!("{hold} & {hold}; wait");
    let record = home.ended(&home.ok(["run", "--memory", "200M", "--shell", "--", &script]));
    let peak = number(&record, "peak_memory_mb");
    assert_eq!(text(&record, "status"), "finished", "{record}");
    assert!(peak > 26.0 && peak < 200.0, "more than either of the two: {record}");
}

#[test]
#[ignore = "takes all controllers of cgroup v2: cargo xtask machine"]
fn the_peak_is_that_of_all_processes_together() {
    controllers();
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    // Both hold theirs at the same time, and the main process holds nothing.
    let hold = "(head -c 25M /dev/zero; echo >> held; read x < cue) | tail -n 1 > /dev/null";
    let script = format!("{hold} & {hold} & wait");
    let id = home.ok(["run", "--memory", "300M", "--shell", "--", &script]);
    eventually("both hold theirs", || (lines(&home.path().join("held")).len() == 2).then_some(()));
    cue.say("go");
    cue.say("go");
    let record = home.ended(&id);
    assert_eq!(text(&record, "status"), "finished", "{record}");
    let peak = number(&record, "peak_memory_mb");
    assert!((50.0..200.0).contains(&peak), "{record}");
    println!("machine: two of 25 MiB together: {peak} MiB");
}

#[test]
#[ignore = "takes all controllers of cgroup v2: cargo xtask machine"]
fn a_limit_of_processor_time_is_that_of_all_processes_together() {
    controllers();
    let home = Home::new();
    let spin = "while :; do :; done";
    let script = format!("({spin}) & ({spin}) & sleep 4; kill $(jobs -p) 2> /dev/null; exit 0");
    let share = |options: &[&str]| {
        let said = home.nodejobs(["run"].iter().chain(options).chain(&["--shell", "--", &script]));
        let record = home.ended(&said.text());
        assert_eq!(text(&record, "status"), "finished", "{record}");
        number(&record, "cpu_ms") / number(&record, "runtime_ms")
    };
    let (half, free) = (share(&["--cpu", "0.5"]), share(&["--memory", "100M"]));
    println!("machine: --cpu 0.5: {half:.2} processors; without: {free:.2}");
    assert!((0.35..=0.60).contains(&half), "{half}");
    assert!(free > 0.9, "it would take more: {free}");
}

#[test]
#[ignore = "takes all controllers of cgroup v2: cargo xtask machine"]
fn a_fork_bomb_has_no_more_processes_than_it_may() {
    controllers();
    let home = Home::new();
    let bomb = "bomb() { bomb | bomb & }; bomb; exec sleep 1000";
    let id = home.ok(["run", "--pids", "10", "--shell", "--", bomb]);
    let group = group_of_job(&home, &id);
    let read = |file: &str| std::fs::read_to_string(group.join(file)).expect("a file of the group");
    eventually("it was refused a process", || (!read("pids.events").starts_with("max 0")).then_some(()));
    let count: u32 = read("pids.current").trim().parse().expect("a number");
    assert!(count <= 10, "{count}");
    assert_eq!((read("pids.max").as_str(), &home.record(&id)["limits"]["pids"]), ("10\n", &10.into()));
    home.ok(["stop", "--force", &id]);
    assert_eq!(home.job_processes(), []);
    is_removed(&group);
}

#[test]
#[ignore = "takes all controllers of cgroup v2: cargo xtask machine"]
fn limits_hold_after_the_owner_was_killed_and_after_both_halves_of_the_keeper_were() {
    controllers();
    for harm in ["daemon", "keeper", "all"] {
        let home = Home::new();
        let cue = Cue::new(&home, "cue");
        let script = "read x < cue; head -c 400M /dev/zero | tail -n 1";
        let id = home.ok(["run", "--memory", "30M", "--cpu", "0.9", "--pids", "20", "--shell", "--", script]);
        let pid = pid_of(&home.running(&id)["last_pid"]);
        let (guard, worker) = home.keeper();
        let daemon = home.daemon_pid();
        if harm != "keeper" {
            kill(daemon);
        }
        if harm != "daemon" {
            for pid in [guard, worker] {
                crate::support::signal(pid, rustix::process::Signal::KILL);
            }
            [guard, worker].into_iter().for_each(kill);
        }
        // Somebody has to be there to be told of the end, or its exit status would go unseen before Linux 6.15.
        assert_eq!(text(&home.record(&id), "status"), "running", "{harm}");
        cue.say("grow");
        let record = home.ended(&id);
        assert_eq!(pid_of(&record["last_pid"]), pid, "{record}");
        if harm == "daemon" {
            assert_eq!((text(&record, "status"), text(&record, "reason")), ("failed", "memory"), "{record}");
            assert!(number(&record, "peak_memory_mb") <= 30.0, "{record}");
        } else {
            // Killed by the limit all the same; what nobody saw is lost on such a kernel.
            let ended = (text(&record, "status"), text(&record, "reason"));
            assert!([("lost", "unknown"), ("failed", "memory")].contains(&ended), "{record}");
        }
        assert_eq!(home.job_processes(), [], "{harm}");
        eventually("no group is left", || links(&home).is_empty().then_some(()));
    }
}

#[test]
#[ignore = "takes all controllers of cgroup v2: cargo xtask machine"]
fn what_happened_while_no_owner_was_there_is_told_to_the_next_one() {
    controllers();
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let script = "read x < cue; head -c 400M /dev/zero | tail -n 1";
    let id = home.ok(["run", "--memory", "30M", "--shell", "--", script]);
    let pid = pid_of(&home.running(&id)["last_pid"]);
    kill(home.daemon_pid());
    cue.say("grow");
    eventually("it is killed", || (!is_alive(pid)).then_some(()));
    let record = home.ended(&id);
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("failed", "memory"), "{record}");
    assert!((25.0..=30.0).contains(&number(&record, "peak_memory_mb")), "{record}");
}

#[test]
#[ignore = "takes all controllers of cgroup v2: cargo xtask machine"]
fn who_is_not_root_has_it_where_a_directory_was_given_to_it() {
    const USER: u32 = 1000;
    let mount = controllers();
    let own = mount.join("given");
    std::fs::create_dir(&own).expect("a cgroup");
    for path in ["", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        chown(own.join(path), Some(USER), Some(USER)).expect("given");
    }
    let home = Home::new();
    chown(home.path(), Some(USER), Some(USER)).expect("given");
    let as_user = |command: &str| {
        let mut shell = home.shell(command);
        shell.uid(USER).gid(USER);
        said(&mut shell)
    };
    // From outside of what was given it has nothing.
    let refused = as_user("$NODEJOBS run --cpu 0.5 -- true");
    assert!(refused.code == 2 && refused.stderr.contains("is not its own to divide"), "{refused:?}");
    let sampled = as_user("$NODEJOBS run --memory 50M --wait -- true");
    assert!(sampled.code == 0 && sampled.stderr.contains("kept by looking"), "{sampled:?}");
    as_user("$NODEJOBS daemon stop");
    // Its daemon is started in there; whoever starts it has left when the first job asks.
    let enter = format!(
        "echo $$ > {}/cgroup.procs; exec /bin/busybox su user -c \"$NODEJOBS daemon start\"",
        own.display()
    );
    let started = said(&mut home.shell(&enter));
    assert_eq!(started.code, 0, "{started:?}");
    let script = "head -c 400M /dev/zero | tail -n 1";
    let run = as_user(&format!("$NODEJOBS run --memory 40M --cpu 0.9 --pids 30 --shell -- '{script}'"));
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:?}");
    let id = run.text();
    let wait = as_user(&format!("$NODEJOBS wait {id}; $NODEJOBS -o json status {id}"));
    let record = wait.json();
    assert_eq!((text(&record, "status"), text(&record, "reason")), ("failed", "memory"), "{record}");
    assert!(number(&record, "peak_memory_mb") <= 40.0, "{record}");
    assert!(millis(&record, "ended_at") >= millis(&record, "started_at"));
    let stopped = as_user("$NODEJOBS daemon stop");
    assert_eq!(stopped.code, 0, "{stopped:?}");
    let leaf = own.join("nodejobs.daemons/cgroup.procs");
    eventually("everybody has left", || {
        std::fs::read_to_string(&leaf).is_ok_and(|list| list.is_empty()).then_some(())
    });
}

/// A stand-in for `systemd-run`, which notes how it was called.
fn with_manager(then: &str) -> (Home, std::os::unix::net::UnixListener) {
    let home = Home::new().with("NODEJOBS_DISABLE", "cgroups");
    let (runtime, bin) = (home.path().join("run"), home.path().join("bin"));
    std::fs::create_dir_all(runtime.join("systemd")).expect("a directory");
    let manager = std::os::unix::net::UnixListener::bind(runtime.join("systemd/private")).expect("a socket");
    std::fs::create_dir(&bin).expect("a directory");
    let called = home.path().join("called");
    let script = format!("#!/bin/sh\necho \"$XDG_RUNTIME_DIR $@\" >> {}\n{then}\n", called.display());
    std::fs::write(bin.join("systemd-run"), script).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(bin.join("systemd-run"), mode).expect("executable");
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap_or_default());
    let runtime = runtime.display().to_string();
    (home.with("PATH", &path).with("XDG_RUNTIME_DIR", &runtime), manager)
}

#[test]
fn a_daemon_asks_the_user_s_manager_for_a_scope_and_does_without_one() {
    let executes = "while [ \"$1\" != -- ]; do shift; done; shift; exec \"$@\"";
    for then in [executes, "exit 1"] {
        let (home, _manager) = with_manager(then);
        let id = home.ok(["run", "--", "sleep", "1000"]);
        assert_eq!(text(&home.running(&id), "status"), "running");
        let called = lines(&home.path().join("called"));
        assert_eq!(called.len(), 1, "{called:?}");
        let expected = format!("{}/run --user --scope", home.path().display());
        assert!(
            called[0].starts_with(&expected) && called[0].contains("--property=Delegate=yes"),
            "{called:?}"
        );
        assert!(
            called[0].ends_with(&format!("{} daemon serve --auto", home.data_dir().display())),
            "{called:?}"
        );
        assert_eq!(crate::support::name_of(home.daemon_pid()), "nodejobs");
        // Also a second one, and in its place.
        kill(home.daemon_pid());
        assert_eq!(text(&home.record(&id), "status"), "running");
        assert_eq!(lines(&home.path().join("called")).len(), 2);
        home.ok(["stop", &id]);
        home.ok(["daemon", "stop"]);
    }
    let (home, manager) = with_manager(executes);
    drop(manager);
    std::fs::remove_file(home.path().join("run/systemd/private")).expect("removed");
    home.ok(["daemon", "start"]);
    assert_eq!(lines(&home.path().join("called")), [""; 0], "nobody is asked who is not there");
}
