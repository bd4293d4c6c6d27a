//! Schedules through the library, as the owner and connected, and start times that have passed.

use nodejobs::api::{ProblemKind, ScheduleAction, ScheduleQuery, ScheduleRequest, ScheduleState, When};
use nodejobs::client::{Client, ClientError};
use nodejobs::schedule::Overlap;
use nodejobs::spec::Start;
use nodejobs::{Jobs, Status, Timestamp};

use crate::library::{in_both_modes, kind, run_as, script};
use crate::support::Home;

in_both_modes![schedules_are_kept_shown_and_forgotten, a_start_that_has_passed_is_refused];

async fn schedules_are_kept_shown_and_forgotten(home: &Home, jobs: &Jobs) {
    let cron = When::Cron { expression: "30  2 * * *".to_owned(), zone: Some("europe/berlin".to_owned()) };
    let mut request = ScheduleRequest::new("night", cron, script(home, "exit 3"));
    request.overlap = Overlap::Queue;
    request.spec.submit_key = Some("k".to_owned());
    let added = jobs.add_schedule(request.clone()).await.expect("added");
    assert_eq!((added.cron.as_deref(), added.zone.as_deref()), (Some("30 2 * * *"), Some("Europe/Berlin")));
    assert_eq!((added.state, added.next.len(), added.last.as_ref()), (ScheduleState::Active, 1, None));
    // Sent again it is the same; another one is refused.
    assert_eq!(jobs.add_schedule(request.clone()).await.expect("the same"), added);
    request.spec.submit_key = None;
    assert_eq!(kind(jobs.add_schedule(request.clone()).await), ProblemKind::Conflict);
    request.when = When::EveryMs(999);
    request.replace = true;
    assert_eq!(kind(jobs.add_schedule(request.clone()).await), ProblemKind::Usage);
    request.when = When::EveryMs(3_600_000);
    let replaced = jobs.add_schedule(request).await.expect("replaced");
    assert_eq!((replaced.every_ms, replaced.cron), (Some(3_600_000), None));

    let shown = jobs.schedule("night", &ScheduleQuery { next: 3 }).await.expect("shown");
    let apart = shown.next.windows(2).map(|pair| pair[1].as_millis() - pair[0].as_millis());
    assert_eq!(apart.collect::<Vec<_>>(), [3_600_000; 2]);
    assert_eq!(kind(jobs.schedule("night", &ScheduleQuery { next: 1_001 }).await), ProblemKind::Usage);
    let job = jobs.run_schedule("night").await.expect("run");
    let ended = jobs.wait(job.self_id.as_str()).await.expect("ended");
    assert_eq!((ended.status, ended.exit_code), (Status::Failed, Some(3)));
    let listed = jobs.schedules().await.expect("a list");
    let last = listed[0].last.clone().expect("a run");
    assert_eq!((listed.len(), last.self_id, last.status), (1, job.self_id, Some(Status::Failed)));
    let paused = jobs.act_on_schedule("night", ScheduleAction::Pause).await.expect("paused");
    assert_eq!((paused.state, paused.next.len()), (ScheduleState::Paused, 0));
    let resumed = jobs.act_on_schedule("night", ScheduleAction::Resume).await.expect("resumed");
    assert_eq!(resumed.state, ScheduleState::Active);
    jobs.act_on_schedule("night", ScheduleAction::Remove).await.expect("removed");
    assert_eq!(jobs.schedules().await.expect("a list"), []);
    assert_eq!(kind(jobs.run_schedule("night").await), ProblemKind::NotFound);
    assert_eq!(kind(jobs.act_on_schedule("night", ScheduleAction::Pause).await), ProblemKind::NotFound);
}

async fn a_start_that_has_passed_is_refused(home: &Home, jobs: &Jobs) {
    let mut spec = script(home, "true");
    spec.start = Start::At(Timestamp::from_millis(1_784_000_000_000));
    assert_eq!(kind(jobs.run(spec.clone()).await), ProblemKind::Usage);
    let results = jobs.run_batch(vec![spec.clone(), script(home, "true")]).await.expect("a batch");
    assert!(results[0].is_err() && results[1].is_ok(), "{results:?}");
    let data_dir = home.data_dir().to_owned();
    let refused = tokio::task::spawn_blocking(move || {
        Client::connect(&data_dir).expect("an owner").submit(&spec).expect_err("refused")
    });
    match refused.await.expect("asked") {
        ClientError::Problem(problem) => {
            let said =
                "the start time 2026-07-14T03:33:20.000Z has passed; leave it out to start the job now";
            assert_eq!((problem.kind, problem.message.as_str()), (ProblemKind::Usage, said));
        }
        other => panic!("{other}"),
    }
    assert_eq!(jobs.list().await.expect("a list"), []);

    // Sent again over a new connection, it was still to come when it was first sent.
    let mut spec = script(home, "true");
    spec.start = Start::At(Timestamp::from_millis(1_784_000_000_000));
    let body = serde_json::to_vec(&spec).expect("JSON");
    let socket = home.data_dir().join("sock");
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{Read as _, Write as _};
        let mut stream = std::os::unix::net::UnixStream::connect(socket).expect("an owner");
        let length = body.len();
        let head = format!(
            "POST /v1/jobs?resend=true HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(&[head.as_bytes(), &body].concat()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    });
    let answer = answer.await.expect("asked");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}
