//! Signals, input and terminals of jobs through the library, as the owner of a directory and connected to one.

use nodejobs::api::{LogQuery, ProblemKind, SendAnswer, SendRequest, SignalRequest};
use nodejobs::signal::Signal;
use nodejobs::spec::{Command, Stdin, TerminalSize};
use nodejobs::{Jobs, Status};

use crate::library::{in_both_modes, kind, run_as, script, spec, with_id};
use crate::support::Home;

in_both_modes![
    jobs_get_signals,
    jobs_read_what_they_are_sent,
    a_job_that_does_not_read_takes_a_part,
    terminals_are_typed_into_and_read,
    what_cannot_be_sent_is_said,
];

fn reading(home: &Home, id: &str, stdin: Stdin, words: &[&str]) -> nodejobs::spec::JobSpec {
    with_id(id, spec(home, Command::argv(words.iter().copied()))).stdin(stdin)
}

async fn jobs_get_signals(home: &Home, jobs: &Jobs) {
    jobs.run(with_id("a", script(home, "exec sleep 1000"))).await.expect("run");
    assert_eq!(
        jobs.signal("a", "URG".parse().expect("a signal")).await.expect("sent").status,
        Status::Running
    );
    let request = SignalRequest { tree: true, ..SignalRequest::new(["a", "nobody"], Signal::INT) };
    let answer = jobs.signal_with(request).await.expect("an answer");
    assert_eq!(answer.results.len(), 2);
    assert_eq!(jobs.wait("a").await.expect("ended").signal, Some(2));
    assert_eq!(kind(jobs.signal("a", Signal::INT).await), ProblemKind::Conflict, "it has ended");
    assert_eq!(kind(jobs.signal("a", Signal::STOP).await), ProblemKind::Usage, "pause says so");
}

async fn jobs_read_what_they_are_sent(home: &Home, jobs: &Jobs) {
    jobs.run(reading(home, "a", Stdin::Pipe, &["cat"])).await.expect("run");
    jobs.send("a", "one\n").await.expect("sent");
    let large = vec![b'x'; 300_000];
    jobs.send("a", &large).await.expect("sent");
    let end = SendRequest { eof: true, ..SendRequest::new("") };
    assert_eq!(jobs.send_with("a", end).await.expect("sent"), SendAnswer { taken: 0, whole: true });
    assert_eq!(jobs.wait("a").await.expect("ended").status, Status::Finished);
    let logs = jobs.job_logs("a", &LogQuery::default()).await.expect("logs");
    assert_eq!(logs.stdout, [b"one\n".as_slice(), &large].concat());
}

async fn a_job_that_does_not_read_takes_a_part(home: &Home, jobs: &Jobs) {
    jobs.run(reading(home, "a", Stdin::Pipe, &["sleep", "1000"])).await.expect("run");
    let request = SendRequest { timeout_ms: 50, ..SendRequest::new(vec![b'x'; 100_000]) };
    let answer = jobs.send_with("a", request).await.expect("an answer");
    assert_eq!(answer, SendAnswer { taken: 65_536, whole: false });
    jobs.stop("a").await.expect("stopped");
}

async fn terminals_are_typed_into_and_read(home: &Home, jobs: &Jobs) {
    let size = TerminalSize { rows: 10, columns: 40 };
    jobs.run(reading(
        home,
        "a",
        Stdin::Terminal(size),
        &["sh", "-c", "stty size; read line; stty size; exit 6"],
    ))
    .await
    .expect("run");
    let wider = TerminalSize { rows: 11, columns: 132 };
    let terminal = jobs.attach("a", wider).await.expect("attached");
    assert_eq!((terminal.place().self_id.as_str(), terminal.place().attempt), ("a", 1));
    let reading = tokio::task::spawn_blocking(move || {
        terminal.write_all(b"now\n").expect("typed");
        let mut seen = Vec::new();
        while let Some(output) = terminal.read().expect("read") {
            seen.extend(output);
        }
        String::from_utf8(seen).expect("text")
    });
    let seen = reading.await.expect("read to its end");
    assert!(seen.contains("now\r\n") && seen.ends_with("11 132\r\n"), "{seen:?}");
    assert_eq!(jobs.wait("a").await.expect("ended").exit_code, Some(6));
}

async fn what_cannot_be_sent_is_said(home: &Home, jobs: &Jobs) {
    jobs.run(reading(home, "plain", Stdin::Null, &["sleep", "1000"])).await.expect("run");
    jobs.run(reading(home, "over", Stdin::Pipe, &["true"])).await.expect("run");
    jobs.wait("over").await.expect("ended");
    let cases = [
        ("plain", ProblemKind::Conflict),
        ("over", ProblemKind::Conflict),
        ("nobody", ProblemKind::NotFound),
    ];
    for (id, expected) in cases {
        assert_eq!(kind(jobs.send(id, "x").await), expected, "{id}");
        assert_eq!(kind(jobs.attach(id, TerminalSize::default()).await), expected, "{id}");
    }
    assert_eq!(kind(jobs.send("plain", "").await), ProblemKind::Usage);
    let flat = Stdin::Terminal(TerminalSize { rows: 0, columns: 80 });
    assert_eq!(kind(jobs.run(reading(home, "flat", flat, &["true"])).await), ProblemKind::Usage);
    jobs.stop("plain").await.expect("stopped");
}
