//! Output beyond a job's cap: the newest is kept, wherever it is read from, and nobody waits for that.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nodejobs::spec::{Command, JobSpec};
use nodejobs::{Jobs, OpenOptions};
use rustix::process::Signal;
use serde_json::Value;

use crate::library::block_on;
use crate::support::{Cue, Home, KEEPER, eventually, is_alive, kill, pid_of, signal, text};

const MIB: u64 = 1 << 20;

/// A script that writes so many numbered lines of 64 bytes each time it is told, and then says so.
fn writer(home: &Home, id: &str, lines: u64) -> (Cue, String) {
    let cue = Cue::new(home, &format!("{id}.cue"));
    let script = format!(
        "exec 9<>'{}'; n=0; while read word <&9 && [ $word != end ]; do
           seq -f '%063.0f' $((n + 1)) $((n + {lines})); n=$((n + {lines})); echo $n > '{}'; done",
        cue.path(),
        home.path().join(format!("{id}.done")).display(),
    );
    (cue, script)
}

/// Has it write, and waits until it has.
fn write(home: &Home, id: &str, cue: &Cue, lines: u64) {
    cue.say("go");
    let done = home.path().join(format!("{id}.done"));
    let expected = format!("{lines}\n");
    eventually("it has written", || (std::fs::read_to_string(&done).ok()? == expected).then_some(()));
}

fn log_of(home: &Home, id: &str) -> PathBuf {
    text(&home.record(id), "logfile").into()
}

fn on_disk(path: &Path) -> u64 {
    path.metadata().expect("a file").blocks() * 512
}

/// Waits until it takes no more than this.
fn settles(path: &Path, bytes: u64) {
    eventually(&format!("{} takes at most {bytes}", path.display()), || {
        (on_disk(path) <= bytes).then_some(())
    });
}

/// Whether these are the last of so many lines, whole but for the first.
fn is_end_of(bytes: &[u8], lines: u64) {
    let text = std::str::from_utf8(bytes).expect("numbers");
    let numbers: Vec<u64> =
        text.lines().skip(1).map(|line| line.parse().unwrap_or_else(|_| panic!("{line:?}"))).collect();
    assert_eq!(numbers.last(), Some(&lines));
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "no gap");
}

const LINES: u64 = 8 * MIB / 64;

#[test]
fn the_newest_output_is_kept_and_its_offsets_stay() {
    let home = Home::new();
    let (cue, script) = writer(&home, "a", LINES);
    home.ok(["run", "--id", "a", "--log-cap", "1M", &script]);
    write(&home, "a", &cue, LINES);
    let log = log_of(&home, "a");
    settles(&log, 2 * MIB);
    assert_eq!(log.metadata().expect("a file").len(), 8 * MIB, "offsets stay what they were");
    assert!(on_disk(&log) >= MIB, "what the cap allows is kept");
    for _ in 0..2 {
        let said = home.nodejobs(["logs", "a"]);
        assert_eq!(said.code, 0);
        is_end_of(&said.stdout, LINES);
        let bytes = said.stdout.len() as u64;
        assert!((MIB..=2 * MIB).contains(&bytes), "{bytes}");
        assert_eq!(home.record("a")["log_bytes"], bytes);
        let tail = home.nodejobs(["logs", "--tail", "3", "a"]).stdout;
        assert_eq!(tail.len(), 3 * 64);
        // Told, and not guessed from a first line in part.
        let said = home.nodejobs(["logs", "-o", "jsonl", "a"]);
        let first: Value = serde_json::from_str(said.text().lines().next().expect("a line")).expect("JSON");
        assert_eq!((&first["truncated"], &first["offset"]), (&true.into(), &(8 * MIB - bytes).into()));
        let token = format!("{}.1.64.0.0", home.record("a")["seq"]);
        let said = home.nodejobs(["logs", "--from", &token, "a"]);
        assert!(said.stderr.contains("is not kept") && said.stdout.len() as u64 == bytes, "{}", said.stderr);
        let token = format!("{}.1.{}.0.0", home.record("a")["seq"], 8 * MIB - 128);
        assert_eq!(home.nodejobs(["logs", "--from", &token, "a"]).stdout.len(), 128);
        let said =
            home.nodejobs(["logs", "--since", "1h", "--timestamps", "--grep", "7$", "--tail", "10", "a"]);
        assert_eq!(said.text().lines().count(), 1, "{said:?}");
        // The same once it has ended.
        cue.say("end");
        home.ended("a");
    }
    let followed = home.nodejobs(["logs", "-f", "a"]);
    assert!(followed.stderr.contains("is not kept"), "{}", followed.stderr);
    is_end_of(&followed.stdout, LINES);
}

#[test]
fn what_was_written_without_an_owner_is_caught_up_with_and_a_halted_one_stalls_nobody() {
    let home = Home::new();
    let (cue, script) = writer(&home, "a", LINES);
    home.ok(["run", "--id", "a", "--log-cap", "64K", &script]);
    let (other, script) = writer(&home, "b", LINES);
    home.ok(["run", "--id", "b", "--log-cap", "1M", &script]);
    let pid = pid_of(&home.running("b")["last_pid"]);
    let logs = ["a", "b"].map(|id| log_of(&home, id));
    let daemon = home.daemon_pid();
    signal(daemon, Signal::STOP);
    write(&home, "a", &cue, LINES);
    assert_eq!(logs[0].metadata().expect("a file").len(), 8 * MIB);
    assert!(on_disk(&logs[0]) >= 7 * MIB, "nobody looks");
    signal(daemon, Signal::CONT);
    settles(&logs[0], 64 * 1024 + MIB);
    kill(daemon);
    write(&home, "a", &cue, 2 * LINES);
    write(&home, "b", &other, LINES);
    other.say("end");
    eventually("b is over", || (!is_alive(pid)).then_some(()));
    assert!(on_disk(&logs[0]) >= 7 * MIB && on_disk(&logs[1]) >= 7 * MIB, "nobody looks");
    home.ok(["daemon", "start"]);
    settles(&logs[0], 64 * 1024 + MIB);
    // Also of one that has ended meanwhile.
    home.ended("b");
    settles(&logs[1], 2 * MIB);
    is_end_of(&home.stdout("a"), 2 * LINES);
    is_end_of(&home.stdout("b"), LINES);
}

#[test]
fn what_is_over_at_once_is_capped_too_and_what_has_no_cap_is_whole() {
    let home = Home::new();
    let write = format!("seq -f '%063.0f' {LINES}; seq -f '%063.0f' {LINES} >&2");
    home.ok(["run", "--id", "a", "--log-cap", "1M", "--wait", &write]);
    let log = log_of(&home, "a");
    settles(&log, 2 * MIB);
    settles(&log.with_extension("err"), 2 * MIB);
    is_end_of(&home.stderr("a"), LINES);
    for (id, options) in [("b", &["--log-cap", "none"][..]), ("c", &["--log-cap", "0"]), ("d", &[])] {
        home.ok(["run", "--id", id].iter().chain(options).chain(&["--wait", &write]));
        assert_eq!(home.record(id)["log_bytes"], 16 * MIB, "{id}");
        assert_eq!(home.stdout(id).len() as u64, 8 * MIB, "{id}");
    }
    // Each attempt has its own.
    home.ok(["restart", "a"]);
    home.ended("a");
    settles(&log_of(&home, "a"), 2 * MIB);
}

#[test]
fn a_file_of_the_user_s_is_left_alone_and_what_is_no_cap_is_refused() {
    let home = Home::new();
    let write = format!("seq -f '%063.0f' {LINES}");
    home.ok(["run", "--id", "a", "--logfile", "mine", "--wait", &write]);
    let (cue, script) = writer(&home, "b", LINES);
    home.ok(["run", "--id", "b", "--logfile", "mine", &script]);
    self::write(&home, "b", &cue, LINES);
    cue.say("end");
    home.ended("b");
    assert_eq!(on_disk(&home.path().join("mine")), 16 * MIB);
    let own = ["run", "--id", "x", "--logfile", "mine", "--log-cap", "1M", "--", "true"];
    let bad =
        [["run", "--id", "x", "--log-cap"]; 7].into_iter().zip(["-1", "x", "", "1", "63K", "1Z", "9999999T"]);
    let bad = bad.map(|(words, size)| [&words[..], &[size, "--", "true"]].concat());
    for words in bad.chain([own.to_vec()]) {
        let said = home.nodejobs(&words);
        assert_eq!((said.code, said.stdout.len()), (2, 0), "{words:?}: {said:?}");
    }
    assert_eq!(home.nodejobs(["status", "x"]).code, 3, "nothing was done");
}

#[test]
fn beyond_the_quota_the_oldest_ended_jobs_lose_their_output_and_running_ones_none() {
    let home = Home::new();
    let write = format!("seq -f '%063.0f' {}", LINES / 4);
    let (cue, running) = writer(&home, "long", LINES / 2);
    std::fs::create_dir_all(home.data_dir()).expect("a directory");
    let quota = |size: &str| {
        let text = format!("[logs]\nquota = \"{size}\"\n");
        std::fs::write(home.data_dir().join("config.toml"), text).expect("written");
    };
    quota("9M");
    block_on(async {
        let options = OpenOptions { keeper: Some(KEEPER.into()), ..OpenOptions::default() };
        let jobs = Jobs::open_with(home.data_dir(), options).await.expect("opened");
        let spec = |id: &str, script: &str| {
            let spec = JobSpec::new(Command::shell(script), "/").id(id).expect("valid").log_cap(0);
            spec.context(nodejobs::capture_context().expect("captured"))
        };
        jobs.run(spec("long", &running)).await.expect("accepted");
        write_from(&home, &cue).await;
        for id in ["a", "b", "c", "d"] {
            jobs.run(spec(id, &write)).await.expect("accepted");
            jobs.wait(id).await.expect("ended");
        }
        let mut bytes = Vec::new();
        for _ in 0..1_000 {
            bytes.clear();
            for id in ["long", "a", "b", "c", "d"] {
                bytes.push(jobs.get_status(id).await.expect("there").log_bytes.expect("known"));
            }
            if bytes.iter().sum::<u64>() <= 9 * MIB {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(bytes, [4 * MIB, 0, 0, 2 * MIB, 2 * MIB], "the oldest, and no more than had to be");
        cue.say("end");
        jobs.wait("long").await.expect("ended");
        jobs.close().await;
    });
    let said = home.nodejobs(["logs", "-f", "a"]);
    assert!((said.code, said.stdout.len()) == (0, 0) && said.stderr.contains("is not kept"), "{said:?}");
    assert_eq!(home.stdout("d").len() as u64, 2 * MIB);
    quota("3M");
    home.ok(["daemon", "reload"]);
    eventually("the oldest but the newest are gone", || {
        let kept = home.records().iter().map(|job| job["log_bytes"].as_u64().expect("known")).sum::<u64>();
        (kept <= 3 * MIB).then_some(())
    });
    assert_eq!(home.stdout("d").len() as u64, 2 * MIB, "the newest is kept");
}

/// Has the job write once, without keeping the owner, which is this thread, from serving.
async fn write_from(home: &Home, cue: &Cue) {
    cue.say("go");
    let done = home.path().join("long.done");
    while !done.exists() {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}
