//! A newer program takes over from an older one: daemons, keepers, and those who watch meanwhile.

use std::process::Stdio;
use std::time::Instant;

use nodejobs::api::{BindQuery, Bound, FollowEvent, FollowQuery};
use rustix::process::Signal;

use crate::library::{block_on, open};
use crate::other_protocol::OtherProtocol;
use crate::support::{Cue, Home, eventually, is_alive, kill, lines, pid_of, signal, text};

/// A version of the keeper's protocol that there is not.
const OTHER: u32 = 0xffff;

#[test]
fn a_restart_of_the_daemon_harms_no_job_and_nobody_who_watches() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let script = format!("while read word; do echo $word; [ $word = 7 ] && exit 7; done < {}", cue.path());
    home.ok(["run", "--id", "a", &script]);
    let (pid, keeper, old) = (home.running("a")["last_pid"].clone(), home.keeper(), home.daemon_pid());
    let watch = |words: &[&str]| {
        let mut command = home.command(words);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started")
    };
    let follower = watch(&["logs", "-f", "a"]);
    let waiter = watch(&["wait", "a"]);
    cue.say("one");
    eventually("the job writes", || home.ok(["logs", "a"]).contains("one").then_some(()));

    assert_eq!(home.ok(["daemon", "restart"]), "");
    let new = home.daemon_pid();
    assert!(new != old && !is_alive(old), "{new}, {old}");
    assert_eq!((home.record("a")["last_pid"].clone(), home.keeper()), (pid, keeper));
    cue.say("two");
    cue.say("7");

    let follower = follower.wait_with_output().expect("ended");
    assert_eq!(
        (follower.status.code(), follower.stdout.as_slice()),
        (Some(7), &b"one\ntwo\n7\n"[..]),
        "{follower:?}"
    );
    assert_eq!(waiter.wait_with_output().expect("ended").status.code(), Some(7));
}

#[test]
fn a_restart_starts_a_daemon_where_there_is_none() {
    let home = Home::new();
    let said = home.nodejobs(["daemon", "restart"]);
    assert!(said.code == 0 && said.stderr.contains("was not running"), "{said:?}");
    let first = home.daemon_pid();
    let said = home.nodejobs(["-o", "json", "daemon", "restart"]);
    assert_eq!(pid_of(&said.json()["pid"]), home.daemon_pid());
    assert!(home.daemon_pid() != first && !is_alive(first));
}

/// Its jobs stay with it and end with their true codes; what is new goes to a keeper of the owner's own version.
#[test]
fn a_keeper_of_another_protocol_sees_its_jobs_to_their_ends_and_gets_no_new_ones() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    home.ok([
        "run",
        "--id",
        "a",
        &format!("echo $NODEJOBS_ATTEMPT >> evidence; read code < {}; exit $code", cue.path()),
    ]);
    let pid = home.running("a")["last_pid"].clone();
    let (guard, worker) = home.keeper();
    kill(home.daemon_pid());
    let _other = OtherProtocol::pretend(&home.data_dir().join("keepers"), OTHER);

    let record = home.record("a");
    assert_eq!((text(&record, "status"), &record["last_pid"]), ("running", &pid), "{record}");
    assert_eq!(home.nodejobs(["run", "--wait", "exit 3"]).code, 3);
    let daemon = home.daemon();
    assert_eq!(daemon["keepers"].as_array().map(Vec::len), Some(2), "{daemon}");
    assert_ne!(home.keeper(), (guard, worker));
    assert_eq!(home.nodejobs(["stop", "nobody"]).code, 3);

    cue.say("7");
    let record = home.ended("a");
    assert_eq!((text(&record, "status"), &record["exit_code"]), ("failed", &7.into()), "{record}");
    assert_eq!(lines(&home.path().join("evidence")), ["1"]);
    eventually("it leaves once it has nothing to do", || {
        (!is_alive(guard) && !is_alive(worker)).then_some(())
    });
    assert_eq!(home.daemon()["keepers"].as_array().map(Vec::len), Some(1));
}

/// Nothing is lost when the daemon is stopped by a signal for a while, and nobody is left to wonder.
#[test]
fn a_daemon_that_is_stopped_is_named_and_goes_on_with_everything() {
    let home = Home::new();
    home.ok(["run", "--id", "a", "while :; do echo x >> ticks; sleep 0.01; done"]);
    home.running("a");
    let ticks = || lines(&home.path().join("ticks")).len();
    let daemon = home.daemon_pid();
    signal(daemon, Signal::STOP);
    let begin = Instant::now();
    let mut submit = home.command(["run", "--id", "b", "echo $NODEJOBS_ATTEMPT >> evidence; exit 7"]);
    let submit = submit.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let before = ticks();
    let submit = {
        // It says so after a few seconds. A job that had to wait for us would not go on.
        eventually("the job goes on", || (begin.elapsed().as_secs() >= 4 && ticks() > before).then_some(()));
        signal(daemon, Signal::CONT);
        submit.wait_with_output().expect("ended")
    };
    let said = String::from_utf8_lossy(&submit.stderr).into_owned();
    assert!(submit.status.success(), "{submit:?}");
    assert!(said.contains(&format!("`kill -CONT {daemon}`")), "{said}");
    let record = home.ended("b");
    assert_eq!((text(&record, "status"), &record["exit_code"]), ("failed", &7.into()), "{record}");
    assert_eq!(lines(&home.path().join("evidence")), ["1"]);
    home.ok(["stop", "a"]);
}

/// The same for a program that is connected by the library, also when the daemon is killed and comes back.
#[test]
fn the_library_s_streams_and_waits_go_on_with_the_next_daemon() {
    for end_it in [
        |home: &Home| drop(home.ok(["daemon", "restart"])),
        |home: &Home| {
            kill(home.daemon_pid());
            home.ok(["daemon", "start"]);
        },
    ] {
        let home = Home::new();
        home.ok(["daemon", "start"]);
        let cue = Cue::new(&home, "cue");
        let script =
            format!("while read word; do echo $word; [ $word = 7 ] && exit 7; done < {}", cue.path());
        home.ok(["run", "--id", "a", &script]);
        home.running("a");
        block_on(async {
            let jobs = open(home.data_dir()).await;
            assert!(!jobs.is_owner());
            let mut bound = jobs.bind("a", &BindQuery::default()).await.expect("bound");
            let mut followed = jobs.follow("a", &FollowQuery::default()).await.expect("followed");
            let mut events = jobs.events(0).await.expect("events");
            let waited = jobs.wait("a");
            let cued = async {
                cue.say("one");
                // Once both have heard something, and while all are listening.
                let first = (bound.recv().await, followed.recv().await);
                assert!(first.0.is_some() && first.1.is_some());
                end_it(&home);
                cue.say("7");
                (first.0, first.1)
            };
            let (record, (first_bound, first_followed)) = tokio::join!(waited, cued);
            assert_eq!(record.expect("ended").exit_code, Some(7));

            let mut output = Vec::new();
            let mut next = first_followed;
            while let Some(event) = next {
                match event {
                    FollowEvent::Output(chunk) => output.extend(chunk.bytes),
                    FollowEvent::Ended(record) => assert_eq!(record.exit_code, Some(7)),
                    other => panic!("{other:?}"),
                }
                next = followed.recv().await;
            }
            assert_eq!(String::from_utf8_lossy(&output), "one\n7\n");

            let (mut output, mut ended) = (Vec::new(), 0);
            let mut next = first_bound;
            while let Some(event) = next {
                match event.expect("an event").what {
                    Bound::Output(chunk) => output.extend(chunk.bytes),
                    Bound::Ended(record) => ended += usize::from(record.exit_code == Some(7)),
                    _ => {}
                }
                next = bound.recv().await;
            }
            assert_eq!((String::from_utf8_lossy(&output).as_ref(), ended), ("one\n7\n", 1));

            let mut numbers = Vec::new();
            loop {
                let event = events.recv().await.expect("it goes on").expect("an event");
                numbers.push(event.seq);
                if event.status.is_terminal() {
                    break;
                }
            }
            let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
            assert_eq!(numbers, expected, "each event once and in order");
            jobs.close().await;
        });
    }
}
