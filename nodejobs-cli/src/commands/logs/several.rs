//! `nodejobs logs` of several jobs: one after the other, or all at once as they write.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use nodejobs::api::{BindEvent, BindQuery};
use nodejobs::record::JobRecord;

use crate::connect::{Connection, Target};
use crate::exit::{Failure, say};
use crate::watch;

/// The jobs that are meant, each once, with the failures of references that mean none. Names and beginnings of ids may
/// mean another job later.
pub(super) fn resolve(
    connection: &mut Connection<'_>,
    references: &[String],
) -> Result<(Vec<JobRecord>, Vec<Failure>), Failure> {
    let (mut jobs, mut failures) = (Vec::<JobRecord>::new(), Vec::new());
    for reference in references {
        match connection.ask(|client| client.job(reference)) {
            Ok(record) if jobs.iter().any(|job| job.self_id == record.self_id) => {}
            Ok(record) => jobs.push(record),
            Err(Failure::ClosedPipe) => return Err(Failure::ClosedPipe),
            Err(failure) => {
                say(&failure);
                failures.push(failure);
            }
        }
    }
    Ok((jobs, failures))
}

/// What each job is called: its name, or its id if it has none or shares it with another one of these.
pub(super) fn labels(jobs: &[JobRecord]) -> Vec<String> {
    let is_shared = |name: &str| jobs.iter().filter(|job| job.name.as_deref() == Some(name)).count() > 1;
    let label = |job: &JobRecord| match &job.name {
        Some(name) if !is_shared(name) => name.clone(),
        _ => job.self_id.to_string(),
    };
    jobs.iter().map(label).collect()
}

/// What a follower of one of them tells.
enum Told {
    Event(usize, Box<BindEvent>),
    Ended(usize, Box<Result<JobRecord, Failure>>),
}

/// Follows all of them, each over a connection of its own, and calls `heard` with what each one tells, and `ended` with
/// its end.
pub(super) fn follow(
    target: &Target,
    jobs: &[JobRecord],
    query: impl Fn(&JobRecord) -> BindQuery,
    mut heard: impl FnMut(usize, &BindEvent) -> Result<(), Failure>,
    mut ended: impl FnMut(usize, Result<JobRecord, Failure>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // A few ahead: who reads slowly has the daemon wait, and no job.
    let (sender, told) = sync_channel(16);
    for (index, job) in jobs.iter().enumerate() {
        let (target, query, sender) = (target.clone(), query(job), sender.clone());
        let id = job.self_id.to_string();
        let spawned = std::thread::Builder::new()
            .name("nodejobs-follow".to_owned())
            .spawn(move || follow_one(index, &target, &id, query, &sender));
        if let Err(error) = spawned {
            return Err(Failure::caused(crate::exit::FAILED, "no thread can be started", &error));
        }
    }
    drop(sender);
    hear(&told, &mut heard, &mut ended)
}

fn hear(
    told: &Receiver<Told>,
    heard: &mut impl FnMut(usize, &BindEvent) -> Result<(), Failure>,
    ended: &mut impl FnMut(usize, Result<JobRecord, Failure>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    // Ends when the last follower has. Those that are left by an error end with the process.
    for told in told {
        match told {
            Told::Event(index, event) => heard(index, &event)?,
            Told::Ended(index, record) => ended(index, *record)?,
        }
    }
    Ok(())
}

fn follow_one(index: usize, target: &Target, id: &str, query: BindQuery, told: &SyncSender<Told>) {
    let follow = || {
        let mut connection = target.connect()?;
        watch::bind(&mut connection, id, query, |event| {
            let event = Told::Event(index, Box::new(event.clone()));
            told.send(event).map_err(|_| Failure::ClosedPipe)
        })
    };
    let _ = told.send(Told::Ended(index, Box::new(follow())));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::tests::record;

    #[test]
    fn a_job_is_called_by_its_name_unless_another_one_has_it() {
        let named = |id: &str, name: Option<&str>| {
            let mut job = record(id);
            job.name = name.map(str::to_owned);
            job
        };
        let jobs =
            [named("a", Some("web")), named("b", Some("db")), named("c", Some("web")), named("d", None)];
        assert_eq!(labels(&jobs), ["a", "db", "c", "d"]);
    }
}
