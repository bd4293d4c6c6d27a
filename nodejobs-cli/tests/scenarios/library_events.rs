//! What the library tells as it happens: status events of the whole directory, and everything of one job.

use std::time::{Duration, Instant};

use nodejobs::api::{BindEvent, BindQuery, BindToken, Bound, FollowQuery, JobEvent, LogStream, ProblemKind};
use nodejobs::spec::JobSpec;
use nodejobs::{Error, Jobs, Status};
use tokio::sync::mpsc::Receiver;

use crate::library::{Embedding, block_on, in_both_modes, kind, open, run_as, script, with_id};
use crate::support::{Cue, Home, eventually, kill};

in_both_modes![
    status_events_are_told_once_each_and_without_a_gap,
    a_slow_listener_misses_nothing,
    a_job_is_told_from_its_beginning_to_its_end,
    a_binding_goes_on_behind_each_of_its_tokens,
    a_binding_is_taken_up_while_the_job_runs,
    further_attempts_are_told_if_asked_for,
    heartbeats_come_while_nothing_happens,
    what_is_there_now_is_told_without_waiting,
    what_cannot_be_bound_to_is_said,
    a_job_that_never_started_is_told_too,
    a_status_is_told_once_though_the_record_changes_more_often,
];

/// The next event of a stream that is not at its end.
async fn next<T>(events: &mut Receiver<Result<T, Error>>) -> T {
    events.recv().await.expect("an event").expect("no error")
}

/// The sequence numbers of events up to the last word about a job.
async fn up_to_the_end_of(id: &str, events: &mut Receiver<Result<JobEvent, Error>>) -> Vec<JobEvent> {
    let mut heard = Vec::new();
    loop {
        heard.push(next(events).await);
        let last = heard.last().expect("just heard");
        if last.attempt.id.as_str() == id && last.status.is_terminal() {
            return heard;
        }
    }
}

#[track_caller]
fn assert_follows_on(after: u64, events: &[JobEvent]) {
    let seqs: Vec<u64> = events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (after + 1..=after + events.len() as u64).collect::<Vec<_>>());
}

/// C14
async fn status_events_are_told_once_each_and_without_a_gap(home: &Home, jobs: &Jobs) {
    assert_eq!(jobs.newest_event().await.expect("a number"), 0);
    let mut live = jobs.events(0).await.expect("a stream");
    jobs.run(with_id("a", script(home, "exit 3"))).await.expect("run");
    let heard = up_to_the_end_of("a", &mut live).await;
    assert_follows_on(0, &heard);
    let mut statuses: Vec<Status> = heard.iter().map(|event| event.status).collect();
    statuses.dedup();
    assert_eq!(statuses, [Status::Starting, Status::Running, Status::Failed]);
    let last = heard.last().expect("some").seq;
    assert_eq!(jobs.newest_event().await.expect("a number"), last);

    // Who comes later hears the same, and who goes on hears the rest.
    jobs.run(with_id("b", script(home, "true"))).await.expect("run");
    let more = up_to_the_end_of("b", &mut live).await;
    assert_follows_on(last, &more);
    let whole = [heard, more].concat();
    for after in [0, 1, last - 1, last, last + 1] {
        let mut events = jobs.events(after).await.expect("a stream");
        let index = usize::try_from(after).expect("small");
        assert_eq!(up_to_the_end_of("b", &mut events).await, whole[index..], "after {after}");
    }
}

async fn a_slow_listener_misses_nothing(home: &Home, jobs: &Jobs) {
    let mut slow = jobs.events(0).await.expect("a stream");
    let specs: Vec<JobSpec> = (0..100).map(|n| with_id(&format!("j{n}"), script(home, "true"))).collect();
    for id in jobs.run_batch(specs).await.expect("a batch") {
        jobs.wait(id.expect("accepted").as_str()).await.expect("ended");
    }
    let newest = jobs.newest_event().await.expect("a number");
    assert!(newest >= 300, "far more than any buffer holds: {newest}");
    jobs.run(with_id("last", script(home, "true"))).await.expect("run");
    assert_follows_on(0, &up_to_the_end_of("last", &mut slow).await);
}

/// Everything that is left of a stream, to its end.
async fn rest(events: &mut Receiver<Result<BindEvent, Error>>) -> Vec<BindEvent> {
    let mut heard: Vec<BindEvent> = Vec::new();
    while let Some(event) = events.recv().await {
        assert!(!heard.last().is_some_and(BindEvent::is_last), "after the end comes {event:?}");
        heard.push(event.expect("no error"));
    }
    assert!(heard.last().is_some_and(BindEvent::is_last), "the last word is missing");
    heard
}

async fn bound(jobs: &Jobs, id: &str, query: &BindQuery) -> Vec<BindEvent> {
    rest(&mut jobs.bind(id, query).await.expect("bound")).await
}

fn from(token: BindToken) -> BindQuery {
    BindQuery { token: Some(token), ..BindQuery::default() }
}

/// What was told, without where output was cut into pieces.
#[derive(Debug, PartialEq, Eq, Default)]
struct Story {
    /// By attempt, number and status.
    statuses: Vec<(u32, u64, Status)>,
    stdout: String,
    stderr: String,
    ended: Vec<(u32, Status, Option<i32>)>,
}

fn story(events: &[BindEvent]) -> Story {
    let mut story = Story::default();
    for BindEvent { token, what } in events {
        match what {
            Bound::Status(event) => {
                assert_eq!((token.attempt, token.event), (event.attempt.attempt, event.seq));
                story.statuses.push((token.attempt, event.seq, event.status));
            }
            Bound::Output(chunk) => {
                let (text, end) = match chunk.stream {
                    LogStream::Stdout => (&mut story.stdout, token.stdout),
                    LogStream::Stderr => (&mut story.stderr, token.stderr),
                };
                assert_eq!(end, chunk.end());
                text.push_str(std::str::from_utf8(&chunk.bytes).expect("UTF-8"));
            }
            Bound::Ended(record) => story.ended.push((record.attempt, record.status, record.exit_code)),
            Bound::Truncated { .. } | Bound::Heartbeat | Bound::Now(_) => panic!("{what:?}"),
        }
    }
    story
}

fn statuses(story: &Story) -> Vec<Status> {
    story.statuses.iter().map(|(_, _, status)| *status).collect()
}

/// C14
async fn a_job_is_told_from_its_beginning_to_its_end(home: &Home, jobs: &Jobs) {
    let text = "echo 1; echo e >&2; echo 2; echo 3; exit 4";
    jobs.run(with_id("a", script(home, text))).await.expect("run");
    // While it happens, and long after.
    for _ in 0..2 {
        let heard = bound(jobs, "a", &BindQuery::default()).await;
        let told = story(&heard);
        assert_eq!(statuses(&told), [Status::Starting, Status::Running, Status::Failed]);
        assert_eq!((told.stdout.as_str(), told.stderr.as_str()), ("1\n2\n3\n", "e\n"));
        assert_eq!(told.ended, [(1, Status::Failed, Some(4))]);
        // Output is told where it belongs: after `running`, before the end.
        let outline: String = heard
            .iter()
            .map(|event| match &event.what {
                Bound::Status(_) => 's',
                Bound::Output(_) => 'o',
                _ => '.',
            })
            .collect();
        let output = outline.strip_prefix("ss").and_then(|rest| rest.strip_suffix("s."));
        assert!(output.is_some_and(|output| output.chars().all(|c| c == 'o')), "{outline}");
    }
}

/// N28
async fn a_binding_goes_on_behind_each_of_its_tokens(home: &Home, jobs: &Jobs) {
    let cue = Cue::new(home, "cue");
    let text = format!(
        "exec 3<'{}'; for n in 1 2 3; do echo $n; echo e$n >&2; read _ <&3; done; exit 4",
        cue.path()
    );
    jobs.run(with_id("a", script(home, &text))).await.expect("run");
    let mut events = jobs.bind("a", &BindQuery::default()).await.expect("bound");
    let mut heard = Vec::new();
    while let Some(event) = events.recv().await {
        let event = event.expect("no error");
        // Cut into as many pieces as there can be.
        if matches!(event.what, Bound::Output(_)) {
            cue.say("go on");
        }
        heard.push(event);
    }
    let whole = story(&heard);
    assert_eq!((whole.stdout.as_str(), whole.stderr.as_str()), ("1\n2\n3\n", "e1\ne2\ne3\n"));
    assert!(heard.len() > 6, "{heard:?}");
    for (index, event) in heard.iter().enumerate() {
        let token: BindToken = event.token.to_string().parse().expect("the same token");
        let again = story(&bound(jobs, "a", &from(token)).await);
        let mut expected = story(&heard[index + 1..]);
        // The end is told to whoever asks.
        expected.ended.clone_from(&whole.ended);
        assert_eq!(again, expected, "after {event:?}");
    }
}

/// N28
async fn a_binding_is_taken_up_while_the_job_runs(home: &Home, jobs: &Jobs) {
    let cue = Cue::new(home, "cue");
    let text = format!("exec 3<'{}'; echo 1; read _ <&3; echo 2; read _ <&3; echo 3; exit 4", cue.path());
    jobs.run(with_id("a", script(home, &text))).await.expect("run");
    let mut heard = Vec::new();
    let mut query = BindQuery::default();
    for lines in 1..=2 {
        let mut events = jobs.bind("a", &query).await.expect("bound");
        while story(&heard).stdout.lines().count() < lines {
            heard.push(next(&mut events).await);
        }
        query = from(heard.last().expect("some").token);
        // Dropped here; what comes meanwhile is told to the next one.
        drop(events);
        cue.say("go on");
    }
    heard.extend(bound(jobs, "a", &query).await);
    let told = story(&heard);
    assert_eq!(statuses(&told), [Status::Starting, Status::Running, Status::Failed]);
    assert_eq!((told.stdout.as_str(), told.stderr.as_str()), ("1\n2\n3\n", ""));
    assert_eq!(told.ended, [(1, Status::Failed, Some(4))]);
}

async fn further_attempts_are_told_if_asked_for(home: &Home, jobs: &Jobs) {
    let run = async |text: &str| {
        jobs.run(with_id("a", script(home, text))).await.expect("run");
        jobs.wait("a").await.expect("ended");
    };
    run("echo first; exit 1").await;
    let first = bound(jobs, "a", &BindQuery::default()).await;
    run("echo second; exit 2").await;
    run("echo third; exit 3").await;

    // Without being asked, a binding stays with its attempt, also with a token from its middle.
    let expected = [(1, Status::Failed, Some(1))];
    for token in first.iter().map(|event| event.token) {
        let again = story(&bound(jobs, "a", &from(token)).await);
        assert_eq!(again.ended, expected, "after {token}");
        assert!(again.statuses.iter().all(|(attempt, ..)| *attempt == 1), "{again:?}");
    }
    let newest = story(&bound(jobs, "a", &BindQuery::default()).await);
    assert_eq!((newest.stdout.as_str(), newest.ended), ("third\n", vec![(3, Status::Failed, Some(3))]));
    let second = BindQuery { attempt: Some(2), ..BindQuery::default() };
    assert_eq!(story(&bound(jobs, "a", &second).await).stdout, "second\n");

    // Asked, it goes on with all that follow, and from each token with what is left.
    let all = BindQuery { attempt: Some(1), further_attempts: true, ..BindQuery::default() };
    let heard = bound(jobs, "a", &all).await;
    let whole = story(&heard);
    assert_eq!(
        (whole.stdout.as_str(), whole.ended.clone()),
        ("first\nsecond\nthird\n", vec![(3, Status::Failed, Some(3))])
    );
    let each = [Status::Starting, Status::Running, Status::Failed];
    assert_eq!(statuses(&whole), [each, each, each].concat());
    for (index, event) in heard.iter().enumerate() {
        let query = BindQuery { further_attempts: true, ..from(event.token) };
        let again = story(&bound(jobs, "a", &query).await);
        let mut expected = story(&heard[index + 1..]);
        expected.ended.clone_from(&whole.ended);
        assert_eq!(again, expected, "after {event:?}");
    }
    // The last token of an ended attempt is good for those that come later.
    let last = heard.last().expect("some").token;
    run("echo fourth").await;
    let query = BindQuery { further_attempts: true, ..from(last) };
    let later = story(&bound(jobs, "a", &query).await);
    assert_eq!((later.stdout.as_str(), later.ended), ("fourth\n", vec![(4, Status::Finished, Some(0))]));
}

async fn heartbeats_come_while_nothing_happens(home: &Home, jobs: &Jobs) {
    let cue = Cue::new(home, "cue");
    let text = format!("echo up; read _ <'{}'; echo down", cue.path());
    jobs.run(with_id("a", script(home, &text))).await.expect("run");
    let query = BindQuery { heartbeat_ms: Some(100), ..BindQuery::default() };
    let mut events = jobs.bind("a", &query).await.expect("bound");
    let mut heard = Vec::new();
    let mut beats = Vec::new();
    while beats.len() < 3 {
        match next(&mut events).await {
            BindEvent { token, what: Bound::Heartbeat } => beats.push(token),
            // On a slow machine one may come before the job is up.
            event => {
                beats.clear();
                heard.push(event);
            }
        }
    }
    assert!(beats.iter().all(|token| *token == heard.last().expect("it is up").token), "{beats:?}");
    cue.say("go on");
    heard.extend(rest(&mut events).await.into_iter().filter(|event| event.what != Bound::Heartbeat));
    assert_eq!(story(&heard).stdout, "up\ndown\n");
    // From a heartbeat it goes on as from anything else.
    assert_eq!(story(&bound(jobs, "a", &from(beats[0])).await).stdout, "down\n");
}

async fn what_is_there_now_is_told_without_waiting(home: &Home, jobs: &Jobs) {
    jobs.run(with_id("a", script(home, "echo first; echo last"))).await.expect("run");
    jobs.wait("a").await.expect("ended");
    let cue = Cue::new(home, "cue");
    let text = format!("echo up; echo here; read _ <'{}'; echo down", cue.path());
    jobs.run(with_id("a", script(home, &text))).await.expect("run");
    let mut follower = jobs.bind("a", &BindQuery::default()).await.expect("bound");
    loop {
        if let BindEvent { token, what: Bound::Output(_) } = next(&mut follower).await
            && token.stdout == 8
        {
            break;
        }
    }
    let now = BindQuery { only_now: true, ..BindQuery::default() };
    let query = BindQuery { attempt: Some(1), further_attempts: true, tail: Some(1), ..now.clone() };
    let mut heard = bound(jobs, "a", &query).await;
    let BindEvent { token, what: Bound::Now(record) } = heard.pop().expect("an end") else {
        panic!("{heard:?}")
    };
    assert_eq!((token.attempt, record.attempt, record.status), (2, 2, Status::Running));
    assert_eq!(story(&heard).stdout, "last\nup\nhere\n");
    // The token is good for more, now and until the end.
    let later = BindQuery { token: Some(token), ..now };
    assert!(matches!(&bound(jobs, "a", &later).await[..], [BindEvent { what: Bound::Now(_), .. }]));
    cue.say("go on");
    let rest = story(&rest(&mut follower).await);
    assert_eq!(rest.stdout, "down\n");
    let later = story(&bound(jobs, "a", &later).await);
    assert_eq!((later.stdout.as_str(), later.ended), ("down\n", vec![(2, Status::Finished, Some(0))]));
}

async fn what_cannot_be_bound_to_is_said(home: &Home, jobs: &Jobs) {
    let default = BindQuery::default();
    assert_eq!(kind(jobs.bind("nobody", &default).await), ProblemKind::NotFound);
    assert_eq!(kind(jobs.bind("no body?", &default).await), ProblemKind::Usage);
    for id in ["a", "b"] {
        jobs.run(with_id(id, script(home, "true"))).await.expect("run");
        jobs.wait(id).await.expect("ended");
    }
    let token = bound(jobs, "a", &default).await.last().expect("some").token;
    let other = jobs.bind("b", &from(token)).await.expect_err("of another job");
    assert_eq!(other.kind(), ProblemKind::Usage);
    assert!(other.to_string().contains(&token.to_string()), "{other}");
    for (query, expected) in [
        (BindQuery { attempt: Some(9), ..BindQuery::default() }, ProblemKind::NotFound),
        (from(BindToken { attempt: 9, ..token }), ProblemKind::NotFound),
        (BindQuery { attempt: Some(2), ..from(token) }, ProblemKind::Usage),
        (BindQuery { tail: Some(2), ..from(token) }, ProblemKind::Usage),
        (BindQuery { heartbeat_ms: Some(0), ..BindQuery::default() }, ProblemKind::Usage),
    ] {
        assert_eq!(kind(jobs.bind("a", &query).await), expected, "{query:?}");
    }
}

async fn a_job_that_never_started_is_told_too(home: &Home, jobs: &Jobs) {
    let mut nowhere = with_id("a", script(home, "true"));
    nowhere.cwd = "/no/such/directory".into();
    jobs.run(nowhere).await.expect("run");
    for _ in 0..2 {
        let told = story(&bound(jobs, "a", &BindQuery::default()).await);
        assert_eq!(statuses(&told), [Status::Starting, Status::FailedStart]);
        assert_eq!(told.ended, [(1, Status::FailedStart, None)]);
    }
}

async fn a_status_is_told_once_though_the_record_changes_more_often(home: &Home, jobs: &Jobs) {
    // Its end is written down while it is still running: what it leaves behind has to be ended first.
    let cue = Cue::new(home, "cue");
    let text = format!("read _ <'{}'; sleep 1000 & exit 3", cue.path());
    jobs.run(with_id("a", script(home, &text))).await.expect("run");
    let mut events = jobs.bind("a", &BindQuery::default()).await.expect("bound");
    let mut heard = vec![next(&mut events).await, next(&mut events).await];
    cue.say("go on");
    heard.extend(rest(&mut events).await);
    let expected = [Status::Starting, Status::Running, Status::Failed];
    assert_eq!(statuses(&story(&heard)), expected);
    let mut events = jobs.events(0).await.expect("a stream");
    assert!(
        up_to_the_end_of("a", &mut events).await.len() > expected.len(),
        "there are more events than changes"
    );
    for (index, event) in heard.iter().enumerate() {
        let again = story(&bound(jobs, "a", &from(event.token)).await);
        assert_eq!(again.statuses, story(&heard[index + 1..]).statuses, "after {event:?}");
    }
}

/// How many connections the owner has accepted and not closed. They have the name of the socket they came through.
fn connections(home: &Home) -> usize {
    let socket = home.data_dir().join("sock");
    let sockets = std::fs::read_to_string("/proc/net/unix").expect("readable");
    let is_accepted = |line: &&str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        // Number, references, protocol, flags, type, state (3 is connected), inode, path.
        fields.get(5) == Some(&"03") && fields.get(7).is_some_and(|path| socket.as_os_str() == *path)
    };
    sockets.lines().filter(is_accepted).count()
}

#[test]
fn a_stream_that_nobody_hears_any_more_ends_its_connection() {
    run_as(false, async |home, jobs| {
        jobs.run(with_id("a", script(home, "exec sleep 1000"))).await.expect("run");
        let binding = jobs.bind("a", &BindQuery::default()).await.expect("bound");
        let all = jobs.events(0).await.expect("a stream");
        let follower = jobs.follow("a", &nodejobs::api::FollowQuery::default()).await.expect("followed");
        // The streams' own tasks have to go on meanwhile.
        let until = async |count: usize| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while connections(home) != count {
                assert!(Instant::now() < deadline, "{} connections instead of {count}", connections(home));
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        until(3).await;
        // The job says nothing, so only the end of a connection ends the wait for it.
        drop(all);
        until(2).await;
        drop((follower, binding));
        until(0).await;
        jobs.stop("a").await.expect("stopped");
    });
}

/// N28, C14: the owner is killed in the middle of it, and the next one goes on where it was.
fn streams_outlive_the_owner(home: &Home, kill_owner: impl FnOnce(), cue: &Cue) {
    let (mut heard, mut events) = (Vec::new(), Vec::new());
    block_on(async {
        let jobs = open(home.data_dir()).await;
        assert!(!jobs.is_owner());
        let mut binding = jobs.bind("a", &BindQuery::default()).await.expect("bound");
        let mut all = jobs.events(0).await.expect("a stream");
        while story(&heard).stdout.is_empty() {
            heard.push(next(&mut binding).await);
        }
        while !events.iter().any(|event: &JobEvent| event.status == Status::Running) {
            events.push(next(&mut all).await);
        }
        kill_owner();
        let error = binding.recv().await.expect("a last word").expect_err("it was cut off");
        assert_eq!(error.kind(), ProblemKind::Unavailable);
        assert!(binding.recv().await.is_none());
        let error = all.recv().await.expect("a last word").expect_err("it was cut off");
        assert_eq!(error.kind(), ProblemKind::Unavailable);
        jobs.close().await;
    });
    // While nobody owns the directory.
    cue.say("go on");
    block_on(async {
        let jobs = open(home.data_dir()).await;
        assert!(jobs.is_owner());
        heard.extend(bound(&jobs, "a", &from(heard.last().expect("some").token)).await);
        let last = events.last().expect("some").seq;
        let mut all = jobs.events(last).await.expect("a stream");
        events.extend(up_to_the_end_of("a", &mut all).await);
        jobs.close().await;
    });
    let told = story(&heard);
    assert_eq!(statuses(&told), [Status::Starting, Status::Running, Status::Failed]);
    assert_eq!((told.stdout.as_str(), told.ended), ("1\n2\n3\n", vec![(1, Status::Failed, Some(4))]));
    assert_follows_on(0, &events);
}

#[test]
fn streams_outlive_a_killed_daemon() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    home.ok(["daemon", "start"]);
    let text = format!("echo 1; read _ <'{}'; echo 2; echo 3; exit 4", cue.path());
    home.ok(["run", "--id", "a", "--shell", "--", &text]);
    let daemon = home.daemon_pid();
    streams_outlive_the_owner(&home, || kill(daemon), &cue);
}

#[test]
fn streams_outlive_a_killed_program() {
    let home = Home::new();
    let cue = Cue::new(&home, "cue");
    let mut program =
        Embedding::start(&home, &format!("echo 1; read _ <'{}'; echo 2; echo 3; exit 4", cue.path()));
    eventually("the program owns the directory and runs its job", || {
        let owned = home.data_dir().join("sock").exists() && home.nodejobs(["daemon", "status"]).code == 0;
        (owned && home.nodejobs(["status", "a"]).code == 0).then_some(())
    });
    streams_outlive_the_owner(&home, || program.kill(), &cue);
}

#[test]
fn streams_that_nobody_reads_do_not_keep_the_directory() {
    let home = Home::new();
    block_on(async {
        let jobs = open(home.data_dir()).await;
        let spec = with_id("a", script(&home, "head -c 3000000 /dev/zero"));
        jobs.run(spec).await.expect("run");
        jobs.wait("a").await.expect("ended");
        for _ in 0..20 {
            jobs.restart("a").await.expect("restarted");
            jobs.wait("a").await.expect("ended");
        }
        let bound = jobs.bind("a", &BindQuery::default()).await.expect("bound");
        let followed = jobs.follow("a", &FollowQuery::default()).await.expect("followed");
        let events = jobs.events(0).await.expect("a stream");
        while bound.len() < 16 || followed.len() < 16 || events.len() < 16 {
            tokio::task::yield_now().await;
        }
        jobs.close().await;
        let next = open(home.data_dir()).await;
        assert!(next.is_owner());
        drop((bound, followed, events));
        next.close().await;
    });
}
