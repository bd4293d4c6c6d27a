//! One job, from its command to its outcome.

use crate::support::Home;

/// N1
#[test]
fn a_job_that_succeeds_is_finished_with_its_times_and_its_process() {
    let home = Home::new();
    let said = home.nodejobs(["run", "--id", "a", "--wait", "--", "true"]);
    assert_eq!((said.code, said.text().as_str()), (0, "a"), "{said:?}");
    let record = home.record("a");
    assert_eq!((&record["status"], &record["exit_code"]), (&"finished".into(), &0.into()));
    assert!(record["last_pid"].as_u64().is_some_and(|pid| pid > 1), "{record}");
    let time = |name: &str| record[name].as_str().expect(name).to_owned();
    assert!(time("ended_at") >= time("started_at") && time("started_at") >= time("created_at"), "{record}");
}
