//! Everything that may be killed is killed, and nothing is lost.

use crate::support::{Home, eventually, kill, lines};

/// Jobs at a time.
const JOBS: usize = 20;

/// Starts jobs that leave a line of evidence each time they are executed.
fn start_jobs(home: &Home) -> Vec<String> {
    let evidence = home.path().join("evidence");
    let script = format!("echo $JOB_ID $NODEJOBS_ATTEMPT >> {}; sleep 3; exit 7", evidence.display());
    let ids: Vec<String> = (0..JOBS).map(|_| home.run_script(&script)).collect();
    eventually("all jobs have left evidence", || (lines(&evidence).len() == JOBS).then_some(()));
    ids
}

fn check_outcomes(home: &Home, ids: &[String]) {
    for id in ids {
        let record = home.ended(id);
        assert_eq!((&record["status"], &record["exit_code"]), (&"failed".into(), &7.into()), "{record}");
        let runtime = record["runtime_ms"].as_u64().expect("a run time");
        assert!((2_900..4_500).contains(&runtime), "the true end time is kept: {record}");
    }
    let mut evidence = lines(&home.path().join("evidence"));
    evidence.sort();
    let mut expected: Vec<String> = ids.iter().map(|id| format!("{id} 1")).collect();
    expected.sort();
    assert_eq!(evidence, expected, "every job was executed once");
}

#[test]
fn jobs_outlive_a_killed_daemon_that_comes_back_while_they_run() {
    let home = Home::new();
    let ids = start_jobs(&home);
    kill(home.daemon_pid());
    check_outcomes(&home, &ids);
}
